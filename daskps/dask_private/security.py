"""The certificates of Dask's own connections.

Checked with dask and distributed 2025.4.0 and 2026.8.0. What is used:

``distributed.Scheduler.security``, ``Worker.security``, ``Client.security``
    The :class:`distributed.Security` that each was given, or made of the configuration.
``distributed.Security.get_tls_config_for_role(role)``
    Paths, or PEM as text, which has line breaks: "ca_file", "cert", "key"; and "ciphers".
``distributed.Security.tls_min_version``, ``tls_max_version``
    Versions of TLS; None: OpenSSL's own.
``distributed.Scheduler.listeners``
    Each has a ``contact_address``.

And of dask-gateway 2026.3, whose ``GatewaySecurity`` has none of these attributes:

``tls_cert``, ``tls_key``
    PEM as text; the certificate is also the authority.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import distributed

from daskps.exceptions import ConfigError
from daskps.tls import Tls

Server: TypeAlias = distributed.Scheduler | distributed.Worker | distributed.Client


def addresses(scheduler: distributed.Scheduler) -> list[str]:
    """At which addresses a scheduler is."""
    return [listener.contact_address for listener in scheduler.listeners]


def tls_of(server: Server) -> Tls:
    """What a scheduler, worker or client uses for TLS.

    Raises
    ------
    ConfigError
        If it has nothing, or that cannot be used.
    """
    if isinstance(server, distributed.Scheduler):
        return _tls(server.security, "scheduler")
    if isinstance(server, distributed.Worker):
        return _tls(server.security, "worker")
    return _tls(server.security, "client")


def configured_tls() -> Tls:
    """What clients use for TLS by Dask's configuration.

    Raises
    ------
    ConfigError
        If it has nothing, or that cannot be used.
    """
    return _tls(distributed.Security(), "client")


def _tls(security: distributed.Security, role: str) -> Tls:
    authority, certificate, key, ciphers = _config(security, role)
    if not authority or not certificate:
        raise ConfigError(
            "This cluster's connections use TLS, and so do those of peer://, but Dask's "
            f"Security has no authority and certificate for a {role} here: give them as "
            f"tls_ca_file, tls_{role}_cert and tls_{role}_key, or in the configuration "
            f"as distributed.comm.tls.ca-file, {role}.cert and {role}.key"
        )
    try:
        made = Tls(
            _text(authority),
            _text(certificate),
            _text(key) if key else None,
            ciphers,
            _number(getattr(security, "tls_min_version", None)),
            _number(getattr(security, "tls_max_version", None)),
        )
        # What is wrong with them is said here, and not when somebody connects.
        _ = made.connecting, made.listening
    except (OSError, ValueError) as e:
        raise ConfigError(
            f"The certificates of Dask's Security for a {role} cannot be used for the TLS "
            f"of peer:// here: {e}"
        ) from e
    return made


def _config(security: distributed.Security, role: str) -> tuple[Any, Any, Any, Any]:
    if hasattr(security, "tls_ca_file"):
        tls = security.get_tls_config_for_role(role)
        return tls["ca_file"], tls["cert"], tls["key"], tls["ciphers"]
    certificate = getattr(security, "tls_cert", None)
    return certificate, certificate, getattr(security, "tls_key", None), None


def _text(pem: str) -> str:
    """A text, or that of the file that it names."""
    if "\n" in pem:
        return pem
    # What is beside certificates may be in any encoding.
    with open(pem, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _number(version: Any) -> int | None:
    return None if version is None else int(version)
