"""The stores that are open in this process, by name. Runs everywhere.

A graph names a store, and nothing else of it: addresses and credentials reach each
process over Dask's own connections, when the store is opened there.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from typing import Any

from distributed import get_worker
from proxystore.store import Store
from proxystore.store.config import StoreConfig

from daskps.exceptions import ObjectMissingError
from daskps.stores.sealed import DamagedError

logger = logging.getLogger(__name__)

# The garbage collector may close a store at any point, in the thread that opens another.
_lock = threading.RLock()
_stores: dict[str, tuple[Store[Any], int]] = {}
# Why a store could not be opened in this process, by store.
_refusals: dict[str, str] = {}
# Seconds for which to try to read, by store.
_read_timeouts: dict[str, float] = {}
# Names of stores that the process had open from which this one was forked: its, to close.
_inherited: set[str] = set()


def acquire(config: StoreConfig, read_timeout: float = 0.0) -> Store[Any]:
    """Open a store in this process, or count one more user of it.

    A cluster in one process has several users: its client, its scheduler, its workers.

    Parameters
    ----------
    config
        How to open it.
    read_timeout
        Seconds for which to try to read, if the store cannot be reached; of several
        users, the most patient one counts.

    Raises
    ------
    OSError
        If the store cannot be used here.
    ImportError
        If something that it needs is not installed here.
    """
    with _lock:
        store, users = _stores.get(config.name, (None, 0))
        if store is None:
            store = _open(config)
        _refusals.pop(config.name, None)
        _stores[config.name] = store, users + 1
        known = _read_timeouts.get(config.name, 0.0)
        _read_timeouts[config.name] = max(read_timeout, known)
        return store


def refuse(name: str, why: str) -> None:
    """Note why a store could not be opened in this process, for whoever reads from it."""
    _refusals[name] = why


def _open(config: StoreConfig) -> Store[Any]:
    try:
        return Store.from_config(config)
    except ValueError as e:
        # ProxyStore says only that it does not know the connector.
        if isinstance(e.__cause__, ImportError):
            raise e.__cause__ from None
        raise


def add(store: Store[Any]) -> None:
    """Open a store in this process, of which this process is the owner."""
    with _lock:
        _stores[store.name] = store, 1


def release(name: str) -> None:
    """Count one user less; the last one closes the store."""
    with _lock:
        store, users = _stores.get(name, (None, 0))
        if store is None:
            return
        if users > 1:
            _stores[name] = store, users - 1
            return
        del _stores[name]
    _close(store)


def get(name: str) -> Store[Any] | None:
    """A store that is open in this process, or None."""
    return _stores.get(name, (None, 0))[0]


def read(name: str, key: Any) -> Any:
    """The bytes of an object.

    Raises
    ------
    ObjectMissingError
        If the store is not open here, or does not have the object.
    """
    # No lock: looking up a dictionary is atomic, and this runs once for each argument.
    store = get(name)
    if store is None and name in _refusals:
        raise ObjectMissingError(
            f"Object {key} cannot be read{_for_task()}. {_refusals[name]}"
        )
    if store is None:
        raise ObjectMissingError(
            f"Store {name!r} is not open in this process, so object {key} cannot be "
            "read. It is opened on the scheduler and on every worker by "
            "daskps.proxy_graph() or daskps.Client; was this graph made for another "
            "cluster, or is that cluster closed?"
        )
    data = _read_patiently(store, key)
    if data is None:
        raise ObjectMissingError(
            f"Object {key} is not in store {name!r}, or not whole{_for_task()}. Either "
            "something else deleted it, or the cluster that kept it was closed or "
            "restarted. Submit the computation again."
        )
    return data


def _read_patiently(store: Store[Any], key: Any) -> Any:
    """Read, and try again for a while if the store cannot be reached."""
    timeout = _read_timeouts.get(store.name, 0.0)
    deadline = time.monotonic() + timeout
    delay = 0.05
    while True:
        try:
            return store.connector.get(key)
        except DamagedError as e:
            raise ObjectMissingError(
                f"Object {key} in store {store.name!r}{_for_task()} is damaged: {e}. "
                "Something else wrote to the store. Submit the computation again."
            ) from e
        except Exception as e:
            if time.monotonic() + delay > deadline:
                raise ObjectMissingError(
                    f"Object {key} could not be read from store {store.name!r} for "
                    f"{timeout:g} s{_for_task()}: {type(e).__name__}: {e}. Check that "
                    "the store can be reached from this worker, and submit the "
                    "computation again."
                ) from e
        time.sleep(delay)
        delay = min(2 * delay, 1.0)


def _for_task() -> str:
    """Which task this is, for messages."""
    try:
        return f" (needed by task {get_worker().get_current_task()!r})"
    except (ValueError, AttributeError):
        return ""


def close(name: str) -> None:
    """Close a store for all its users in this process: its owner is done with it."""
    with _lock:
        store, _ = _stores.pop(name, (None, 0))
    if store is not None:
        _close(store)


def _close(store: Store[Any]) -> None:
    """Close it. What goes wrong is nobody's error: who used it is done with it.

    It may be late: the process ends, the server has ended, the directory was deleted.
    """
    if store.name in _inherited:
        return
    try:
        store.close()
    except Exception as e:
        logger.warning(
            "Store %r could not be closed, and may keep what is in it: %s: %s",
            store.connector,
            type(e).__name__,
            e,
        )


def _close_all() -> None:
    for name in list(_stores):
        close(name)


def _forked() -> None:
    global _lock
    _lock = threading.RLock()  # a thread that is not here may have held it
    _inherited.update(_stores)


atexit.register(_close_all)
os.register_at_fork(after_in_child=_forked)


def evict(name: str, key: Any) -> None:
    """Delete an object. Not there, or the store is closed: does nothing."""
    store = get(name)
    if store is not None:
        store.connector.evict(key)


def evict_copy(name: str, key: Any) -> None:
    """Delete a copy that this host keeps of an object, if the store makes copies."""
    store = get(name)
    if store is not None and hasattr(store.connector, "evict_copy"):
        store.connector.evict_copy(key)
