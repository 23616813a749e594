"""The setting ``store``: what may be given, and how it is shown."""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import SplitResult, urlsplit

from daskps.exceptions import ConfigError
from daskps.lazy import loaded
from daskps.linux import is_linux
from daskps.serialize.values import to_bytes
from daskps.stores.schemes import SCHEMES, scheme_module, schemes

#: Schemes that are gone, and what to do.
_GONE = {
    "zmq": "Use peer://, which encrypts what it sends where the cluster's connections do "
    "(TLS), or give a ZeroMQConnector of ProxyStore's"
}
# Nothing follows what they name.
_WITHOUT_OPTIONS = {"shm", "file", "peer"}


def is_proxystore(store: Any) -> bool:
    """Whether it is a ProxyStore ``Store``."""
    module = loaded("proxystore.store.base")
    return module is not None and isinstance(store, module.Store)


def _is_connector(store: Any) -> bool:
    from proxystore.connectors.protocols import Connector

    return isinstance(store, Connector)


def check_store(key: str, store: Any) -> Any:
    """Check a ``store`` setting.

    Parameters
    ----------
    key
        The setting's name, for the error.
    store
        None, a URL, a ProxyStore ``Store``, or a ``Connector``.

    Raises
    ------
    ConfigError
        If it is none of these, or the URL cannot be used.
    """
    if store is None:
        return None
    if is_proxystore(store):
        if store._serializer not in (None, to_bytes):
            # A value is stored in parts, so that large buffers are stored once.
            raise ConfigError(
                f"{key}: store {store.name!r} has a serializer of its own, which daskps "
                "cannot use. Pass its connector (store.connector) instead."
            )
        return store
    if not isinstance(store, str) and _is_connector(store):
        return store
    valid = ", ".join(f"{scheme}://" for scheme in schemes())
    if not isinstance(store, str):
        raise ConfigError(
            f"{key}={store!r} is not a store: give a URL ({valid}), a ProxyStore Store "
            "or Connector, or None"
        )
    parts = _split(key, store)
    instead = _GONE.get(parts.scheme)
    if instead is not None and parts.scheme not in schemes():
        raise ConfigError(
            f"{key}={describe(store)!r}: there is no {parts.scheme}:// any more. {instead}"
        )
    if "://" not in store or parts.scheme not in {**SCHEMES, **schemes()}:
        raise ConfigError(
            f"{key}={describe(store)!r} has no known scheme: give one of {valid}, a "
            "ProxyStore Store or Connector, or None"
        )
    # Elsewhere the modules of schemes cannot be imported.
    if is_linux():
        scheme_module(key, parts.scheme).check(key, parts)
    if parts.scheme in _WITHOUT_OPTIONS and (parts.query or parts.fragment):
        raise ConfigError(
            f"{key}={describe(store)!r}: {parts.scheme}:// takes nothing after '?' or '#'"
        )
    return store


def _split(key: str, url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _, bracket, address = parts.netloc.rpartition("@")[2].partition("[")
        if bracket:
            # Python before 3.11.4 takes whatever is in brackets.
            ipaddress.IPv6Address(address.partition("]")[0])
    except ValueError:
        # Without Python's own words, which may have a password in them.
        raise ConfigError(
            f"{key}={describe(url)!r} is not a URL: in brackets there is only an IPv6 "
            "address, as in redis://[::1]:6379, and special characters of a password "
            "are percent-encoded"
        ) from None
    return parts


def describe(store: Any) -> str:
    """A store for people, without credentials."""
    if not isinstance(store, str):
        return repr(store)
    scheme, _, rest = store.partition(":")
    if "@" not in rest or scheme == "file":
        return store
    # Not urlsplit: a password with a character that is not quoted may be in any part.
    return f"{scheme}://***@{rest.rpartition('@')[2].partition('?')[0]}"


def without_credentials(parts: SplitResult) -> str:
    """A URL without user name and password."""
    netloc = parts.netloc.rpartition("@")[2]
    # geturl() would drop the slashes of a scheme that it does not know.
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{netloc}{parts.path}{query}"
