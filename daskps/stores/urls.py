"""Stores by URL: what each scheme is, and who can make it.

To add a scheme, add a line to ``SCHEMES``.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

import dask
from proxystore.connectors.protocols import Connector
from proxystore.store import Store
from proxystore.store.config import ConnectorConfig, StoreConfig

from daskps.config import size
from daskps.exceptions import ConfigError
from daskps.serialization import from_bytes, to_bytes
from daskps.stores.directory import OwnedDirectory, sweep
from daskps.stores.sealed import sealed
from daskps.stores.segments import SegmentConnector


@dataclass(frozen=True)
class StoreRequest:
    """What a client asks a cluster's scheduler to open. Pickled; compares by content.

    Attributes
    ----------
    url
        A URL, or None if `config` is given.
    shm_directory, shm_reserve, shm_keep
        The client's settings for ``shm://``.
    config
        Configuration of a ProxyStore store that the user made.
    """

    url: str | None
    shm_directory: str = "/dev/shm"
    shm_reserve: int = 0
    shm_keep: int = 0
    config: StoreConfig | None = field(default=None, hash=False)

    @classmethod
    def of(cls, store: Any) -> StoreRequest:
        """From a checked setting (see :func:`check_store`)."""
        if store is None or isinstance(store, str):
            return cls(
                url=store or "shm://",
                shm_directory=dask.config.get("daskps.shm.directory"),
                shm_reserve=_size("daskps.shm.reserve"),
                shm_keep=_size("daskps.shm.keep-warm"),
            )
        if isinstance(store, Store):
            return cls(url=None, config=_shared(store.config()))
        path = f"{type(store).__module__}.{type(store).__qualname__}"
        connector = ConnectorConfig(kind=path, options=store.config())
        config = StoreConfig(name=new_name(), connector=connector)
        return cls(url=None, config=_shared(config))


def _size(key: str) -> int:
    return size(key, dask.config.get(key))


def _shared(config: StoreConfig) -> StoreConfig:
    # ProxyStore's FileConnector and others delete everything when any one process closes
    # them, unless told not to; only the user's own instance may do so.
    options = dict(config.connector.options)
    if "clear" in options:
        options["clear"] = False
    connector = ConnectorConfig(kind=config.connector.kind, options=options)
    return StoreConfig(name=config.name, connector=connector, cache_size=0)


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
    if isinstance(store, Store):
        if store._serializer is not None or store._deserializer is not None:
            # A value is stored in parts, so that large buffers are stored once.
            raise ConfigError(
                f"{key}: store {store.name!r} has a serializer of its own, which daskps "
                "cannot use. Pass its connector (store.connector) instead."
            )
        return store
    if store is None or isinstance(store, Connector):
        return store
    valid = ", ".join(f"{scheme}://" for scheme in SCHEMES)
    if not isinstance(store, str):
        raise ConfigError(
            f"{key}={store!r} is not a store: give a URL ({valid}), a ProxyStore Store "
            "or Connector, or None"
        )
    parts = urlsplit(store)
    if parts.scheme not in SCHEMES:
        raise ConfigError(
            f"{key}={describe(store)!r} has no known scheme: give one of {valid}, a "
            "ProxyStore Store or Connector, or None"
        )
    SCHEMES[parts.scheme].check(key, parts)
    return store


def describe(store: Any) -> str:
    """A store for people, without credentials."""
    if not isinstance(store, str):
        return repr(store)
    parts = urlsplit(store)
    if "@" not in parts.netloc:
        return store
    return parts._replace(netloc="***@" + parts.netloc.rpartition("@")[2]).geturl()


def open_store(url: str) -> Store[Any]:
    """Open a store that belongs to this process.

    For proxies made by hand, and for use with ProxyStore's own functions. Close it when
    done (or use it in a ``with`` statement): that deletes the objects.

    Parameters
    ----------
    url
        ``shm://`` or ``file:///directory``.

    Returns
    -------
    proxystore.store.Store
        Registered with ProxyStore under its name. Objects that it gives out are made
        anew at each ``get``, so that changing one changes no other.

    Raises
    ------
    daskps.exceptions.ConfigError
        If the URL is not valid.

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
    check_store("url", url)
    return make(StoreRequest.of(url), register=True)


def make(request: StoreRequest, *, register: bool = False) -> Store[Any]:
    """Make the store that was asked for; whoever makes it owns it."""
    if request.config is not None:
        return Store.from_config(sealed(request.config))
    parts = urlsplit(request.url or "")
    return Store(
        new_name(),
        SCHEMES[parts.scheme].make(request, parts),
        serializer=to_bytes,
        deserializer=from_bytes,
        # ProxyStore's cache counts objects, whatever their size, and would hand one
        # object to several tasks.
        cache_size=0,
        populate_target=False,
        register=register,
    )


def _check_shm(key: str, parts: SplitResult) -> None:
    if parts.netloc or parts.path.strip("/"):
        # geturl() would drop the slashes of a scheme that it does not know.
        url = f"shm://{parts.netloc}{parts.path}"
        raise ConfigError(
            f"{key}={url!r}: shm:// takes no path; its directory is set by "
            "daskps.shm.directory in Dask's configuration"
        )


def _make_shm(request: StoreRequest, parts: SplitResult) -> SegmentConnector:
    spill = dask.config.get("temporary-directory") or tempfile.gettempdir()
    return _segments(
        [request.shm_directory, spill], request.shm_reserve, request.shm_keep
    )


def _check_file(key: str, parts: SplitResult) -> None:
    if parts.netloc or not parts.path.startswith("/"):
        raise ConfigError(
            f"{key}={parts.geturl()!r} does not name a directory: give an absolute path, "
            "file:///like/this (three slashes)"
        )


def _make_file(request: StoreRequest, parts: SplitResult) -> SegmentConnector:
    return _segments([parts.path], 0, 0)


def _segments(parents: list[str], reserve: int, keep: int) -> SegmentConnector:
    owned: list[OwnedDirectory] = []
    try:
        for parent in parents:
            sweep(parent)
            owned.append(OwnedDirectory(parent))
    except OSError as e:
        for directory in owned:
            directory.remove()
        raise ConfigError(
            f"cannot keep objects in {parent}: {e}. Give a directory that exists and "
            "may be written to, or another store."
        ) from e
    paths = [directory.path for directory in owned]
    # Never more than an eighth of the file system: others use it too.
    keep = min(keep, SegmentConnector(paths[:1]).capacity() // 8)
    return SegmentConnector(paths, reserve, keep, owned)


@dataclass(frozen=True)
class Scheme:
    """One kind of URL.

    Attributes
    ----------
    check
        Raises ConfigError for a URL that cannot be used, given the setting's name.
    make
        Makes the connector, in the process that is to own the store.
    """

    check: Callable[[str, SplitResult], None]
    make: Callable[[StoreRequest, SplitResult], Any]


SCHEMES = {
    "shm": Scheme(_check_shm, _make_shm),
    "file": Scheme(_check_file, _make_file),
}
