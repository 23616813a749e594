"""What all processes of a ``peer://`` store have to know. Travels with the store."""

from __future__ import annotations

from typing import NamedTuple

from daskps.stores.interfaces import Address
from daskps.stores.secret import Secret


class PeerSettings(NamedTuple):
    """Of one store.

    Attributes
    ----------
    token
        Names its directories on each host: random.
    secret
        The cluster's key.
    registry
        Where its owner is.
    lease
        Seconds after which an owner that is not heard of is dead.
    cache
        Bytes of other hosts' objects to keep on each host; None: see
        :class:`~daskps.stores.files.copies.HostCache`.
    tls
        Whether connections use TLS, since Dask's do. Each process has its own certificates.
    """

    token: str
    secret: Secret[bytes]
    registry: Address
    lease: float
    cache: int | None
    tls: bool = False
