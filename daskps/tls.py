"""TLS between processes of a cluster, with the certificates of Dask's own connections.

Uses the standard library alone: the server of a ``peer://`` store imports it.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
import os
import ssl
from collections.abc import Callable, Iterator
from typing import Any, NoReturn
from urllib.parse import urlsplit

# Schemes of addresses at which nothing is encrypted. Of one that is not known, as of a
# gateway's, it has to be expected.
PLAINTEXT = ("tcp", "ws", "inproc", "ucx", "ucxx")


def encrypts(address: str) -> bool:
    """Whether what is sent to this address of Dask's is encrypted."""
    return urlsplit(address).scheme not in PLAINTEXT


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Tls:
    """What a process needs for TLS as Dask has it.

    Both ends show a certificate, which the authority of the cluster has to have signed.
    Names of hosts are not compared: Dask's addresses are numbers.

    Never pickled, and shown nowhere: a private key is part of it.

    Attributes
    ----------
    authority, certificate
        PEM. A certificate may be followed by others, up to the authority's.
    key
        PEM; None: it is in `certificate`.
    ciphers
        As OpenSSL has them; None: its own choice.
    minimum, maximum
        Versions, values of :class:`ssl.TLSVersion`; None: OpenSSL's own.

    Notes
    -----
    Thread-safe. The properties raise :class:`OSError` or :class:`ValueError` if the
    certificates cannot be used.
    """

    authority: str
    certificate: str
    key: str | None = None
    ciphers: str | None = None
    minimum: int | None = None
    maximum: int | None = None

    def __repr__(self) -> str:
        return "Tls(***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("certificates stay in their process")

    def config(self) -> dict[str, Any]:
        """Arguments that make an equal one, for JSON. The private key is among them."""
        return dataclasses.asdict(self)

    @functools.cached_property
    def connecting(self) -> ssl.SSLContext:
        """For the end that connects."""
        return self._context(ssl.Purpose.SERVER_AUTH)

    @functools.cached_property
    def listening(self) -> ssl.SSLContext:
        """For the end that is connected to."""
        context = self._context(ssl.Purpose.CLIENT_AUTH)
        # For sessions that are taken up again, of which there are none.
        context.num_tickets = 0
        return context

    def _context(self, purpose: ssl.Purpose) -> ssl.SSLContext:
        with _in_file(self.authority) as path:
            context = ssl.create_default_context(purpose, cafile=path)
        if self.minimum is not None:
            context.minimum_version = ssl.TLSVersion(self.minimum)
        if self.maximum is not None:
            context.maximum_version = ssl.TLSVersion(self.maximum)
        with _in_file(self.certificate, self.key or "") as path:
            context.load_cert_chain(path, password=_no_password)
        context.verify_mode = ssl.CERT_REQUIRED
        context.check_hostname = False
        # As Dask: authorities that sites have made often lack what this asks for.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if self.ciphers is not None:
            context.set_ciphers(self.ciphers)
        return context


@contextlib.contextmanager
def _in_file(*texts: str) -> Iterator[str]:
    """The path of a file with these texts, which is in no directory: OpenSSL wants one."""
    with open(os.memfd_create("pem"), "wb") as file:
        file.write("\n".join(texts).encode(errors="surrogateescape"))
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


def _no_password() -> NoReturn:
    raise ValueError("the private key has a password: peer:// needs one without")


#: Gives this process's, or raises.
Source = Callable[[], Tls]
_source: contextvars.ContextVar[Source | None] = contextvars.ContextVar(
    "daskps.tls", default=None
)


@contextlib.contextmanager
def at_hand(source: Source | None) -> Iterator[None]:
    """Have connectors that are made in this block use these certificates."""
    token = _source.set(source)
    try:
        yield
    finally:
        _source.reset(token)


def source_at_hand() -> Source | None:
    """What the innermost block has said; None: nothing."""
    return _source.get()
