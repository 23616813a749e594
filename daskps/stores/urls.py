"""Stores by URL: which module makes the stores of each scheme, and who asks for them.

To add a scheme, add a line to ``SCHEMES``, and the module that it names.
"""

from __future__ import annotations

import importlib
import ipaddress
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast
from urllib.parse import SplitResult, urlsplit

import dask

from daskps.config import size
from daskps.exceptions import ConfigError
from daskps.lazy import loaded
from daskps.linux import is_linux, system
from daskps.serialize.values import from_bytes, to_bytes
from daskps.stores import leases
from daskps.stores.connectors.sealed import SealedConnector, sealed
from daskps.stores.store import ConnectorConfig, Store, StoreConfig

if TYPE_CHECKING:
    import proxystore.store


class Scheme(NamedTuple):
    """One kind of URL.

    Attributes
    ----------
    module
        Has the functions of :class:`SchemeModule`; imported when such a URL is used.
    extra
        The extra of daskps that installs what the module imports, if any.
    """

    module: str
    extra: str | None = None


SCHEMES = {
    "shm": Scheme("daskps.stores.files.shm_scheme"),
    "file": Scheme("daskps.stores.files.file_scheme"),
    "peer": Scheme("daskps.stores.peer.scheme"),
    "redis": Scheme("daskps.stores.redis.scheme", "redis"),
    "rediss": Scheme("daskps.stores.redis.scheme", "redis"),
    "daos": Scheme("daskps.stores.daos.scheme", "daos"),
    "zmq": Scheme("daskps.stores.zmq.scheme", "zmq"),
}


class SchemeModule(Protocol):
    """What the module of a scheme has."""

    def check(self, key: str, parts: SplitResult) -> None:
        """Raise ConfigError for a URL that cannot be used, given the setting's name."""

    def options(self, parts: SplitResult) -> dict[str, Any]:
        """What the configuration of this process, the client, says besides the URL.

        Credentials are each a :class:`daskps.stores.secret.Secret`. All values can be
        hashed.

        Raises
        ------
        daskps.exceptions.ConfigError
            If a setting is not valid.
        """

    def make(self, parts: SplitResult, options: dict[str, Any]) -> Any:
        """Make the connector, in the process that is to own the store.

        The URL is without credentials here. Among the options are also ``host``, the
        address by which other processes of the cluster reach this one, and
        ``host_cache`` (see :class:`StoreRequest`). Objects of a SealedConnector are kept
        on each host without its doing.

        Raises
        ------
        daskps.exceptions.ConfigError
            If that process cannot open it.
        """

    def sweep(self, parts: SplitResult, dry_run: bool) -> list[str]:
        """Delete what dead processes left there; gives names of it.

        With `dry_run`, only say what would be deleted.
        """


def scheme_module(key: str, scheme: str) -> SchemeModule:
    """The module that makes stores of this scheme.

    Raises
    ------
    ConfigError
        If something that it needs is not installed.
    """
    name, extra = SCHEMES[scheme]
    try:
        return cast(SchemeModule, importlib.import_module(name))
    except ModuleNotFoundError as e:
        raise ConfigError(
            f"{key}: {scheme}:// needs the package {e.name!r}, which is not installed: "
            f"pip install 'daskps[{extra}]', on the client, the scheduler and every "
            "worker"
        ) from e


@dataclass(frozen=True)
class StoreRequest:
    """What a client asks a cluster's scheduler to open. Pickled; compares by content.

    Attributes
    ----------
    url
        A URL without credentials, or None if `config` or `candidates` are given.
    options
        What the client's configuration says besides, names and values.
    config
        Configuration of a ProxyStore store that the user made.
    host_cache
        Bytes of a network store's objects that each host keeps; None: up to the host.
    candidates
        If no store was named, those that one is chosen from (:mod:`daskps.client.choice`):
        the first is for processes of one host, the last for any.
    """

    url: str | None
    options: tuple[tuple[str, Any], ...] = ()
    config: StoreConfig | None = field(default=None, hash=False, repr=False)
    host_cache: int | None = None
    candidates: tuple[StoreRequest, ...] = ()

    @classmethod
    def of(cls, store: Any) -> StoreRequest:
        """From a checked setting (see :func:`check_store`)."""
        if store is None:
            shared = dask.config.get("temporary-directory")
            urls = ["shm://", *[f"file://{shared}"] * bool(shared), "peer://"]
            # Of a store that may not be installed: nothing is imported for it.
            encrypted = cls(url="zmq://", host_cache=_host_cache())
            return cls(url=None, candidates=(*map(cls.of, urls), encrypted))
        if isinstance(store, str):
            parts = urlsplit(store)
            options = scheme_module("store", parts.scheme).options(parts)
            return cls(
                url=_without_credentials(parts),
                options=tuple(sorted(options.items())),
                host_cache=_host_cache(),
            )
        connector = store.connector if _is_proxystore(store) else store
        return cls(url=None, config=_shared(connector), host_cache=_host_cache())


def _host_cache() -> int | None:
    nbytes = dask.config.get("daskps.host-cache")
    return None if nbytes is None else size("daskps.host-cache", nbytes)


def _is_proxystore(store: Any) -> bool:
    """Whether it is a ProxyStore ``Store``."""
    module = loaded("proxystore.store.base")
    return module is not None and isinstance(store, module.Store)


def _is_connector(store: Any) -> bool:
    from proxystore.connectors.protocols import Connector

    return isinstance(store, Connector)


def _shared(connector: Any) -> StoreConfig:
    config = ConnectorConfig.of(connector)
    # ProxyStore's FileConnector and others delete everything when any one process closes
    # them, unless told not to; only the user's own instance may do so.
    shared = ConnectorConfig(config.kind, _without_clear(config.options))
    # The cluster's store is another than the user's, and has a name of its own: what is
    # asked for twice is the same connector, whatever it is called.
    return StoreConfig(name="", connector=shared)


def _without_clear(options: Any) -> Any:
    # Options of a MultiConnector have those of others in them, in tuples.
    if isinstance(options, dict):
        return {
            name: False if name == "clear" else _without_clear(value)
            for name, value in options.items()
        }
    if isinstance(options, tuple):
        return tuple(map(_without_clear, options))
    return options


def new_name() -> str:
    """A name for a store: unique, and short, since every node in a graph holds it."""
    return "daskps-" + secrets.token_urlsafe(6)


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
    if _is_proxystore(store):
        if store._serializer is not None or store._deserializer is not None:
            # A value is stored in parts, so that large buffers are stored once.
            raise ConfigError(
                f"{key}: store {store.name!r} has a serializer of its own, which daskps "
                "cannot use. Pass its connector (store.connector) instead."
            )
        return store
    if not isinstance(store, str) and _is_connector(store):
        return store
    valid = ", ".join(f"{scheme}://" for scheme in SCHEMES)
    if not isinstance(store, str):
        raise ConfigError(
            f"{key}={store!r} is not a store: give a URL ({valid}), a ProxyStore Store "
            "or Connector, or None"
        )
    parts = _split(key, store)
    if parts.scheme not in SCHEMES:
        raise ConfigError(
            f"{key}={describe(store)!r} has no known scheme: give one of {valid}, a "
            "ProxyStore Store or Connector, or None"
        )
    # Elsewhere the modules of schemes cannot be imported.
    if is_linux():
        scheme_module(key, parts.scheme).check(key, parts)
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
    scheme, _, rest = store.partition("://")
    if "@" not in rest or scheme == "file":
        return store
    # Not urlsplit: a password with a character that is not quoted may be in any part.
    return f"{scheme}://***@{rest.rpartition('@')[2].partition('?')[0]}"


def _without_credentials(parts: SplitResult) -> str:
    netloc = parts.netloc.rpartition("@")[2]
    # geturl() would drop the slashes of a scheme that it does not know.
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{netloc}{parts.path}{query}"


def open_store(url: str) -> proxystore.store.Store[Any]:
    """Open a store that belongs to this process.

    For proxies made by hand, and for use with ProxyStore's own functions. Close it when
    done (or use it in a ``with`` statement): that deletes the objects.

    Parameters
    ----------
    url
        Such as ``shm://``, ``file:///directory`` or ``redis://host``.

    Returns
    -------
    proxystore.store.Store
        Registered with ProxyStore under its name. Objects that it gives out are made
        anew at each ``get``, so that changing one changes no other.

    Raises
    ------
    daskps.exceptions.ConfigError
        If the URL is not valid, or this system is not Linux.

    Examples
    --------
    >>> import numpy as np
    >>> with open_store("shm://") as store:
    ...     key = store.put(np.arange(3))
    ...     store.get(key)
    array([0, 1, 2])
    """
    if not isinstance(url, str):
        raise ConfigError(f"open_store({url!r}): give a URL, such as 'shm://'")
    if not is_linux():
        raise ConfigError(
            f"open_store({describe(url)!r}): daskps's stores need Linux, and this is "
            f"{system()}. ProxyStore's own connectors work here."
        )
    check_store("url", url)
    from proxystore.store import Store as ProxyStore

    made = make(StoreRequest.of(url))
    store = ProxyStore(
        made.name,
        made.connector,
        serializer=to_bytes,
        deserializer=from_bytes,
        # ProxyStore's cache counts objects, whatever their size, and would hand one
        # object to several tasks.
        cache_size=0,
        populate_target=False,
        register=True,
    )
    leases.say_alive(store.connector)
    leases.renew(store.connector, store, lambda _: None)
    return store


def make(request: StoreRequest, *, host: str = "127.0.0.1") -> Store:
    """Make the store that was asked for; whoever makes it owns it.

    If none was named: the one for processes of one host.

    Parameters
    ----------
    request
        Which one.
    host
        The address by which other processes of the cluster reach this one.
    """
    if request.candidates:
        request = request.candidates[0]
    if request.config is not None:
        connector: Any = sealed(request.config).connector
        return Store(new_name(), _cached(connector, request.host_cache))
    parts = urlsplit(request.url or "")
    options = {"host": host, "host_cache": request.host_cache}
    connector = scheme_module("store", parts.scheme).make(
        parts, {**dict(request.options), **options}
    )
    if isinstance(connector, SealedConnector):
        connector = _cached(connector, request.host_cache)
    return Store(new_name(), connector)


def _cached(connector: Any, limit: int | None) -> Any:
    from daskps.stores.files.cached import CachedConnector

    return CachedConnector(connector, limit)
