"""The stores that are open in this process, by name. Runs everywhere.

A graph names a store, and nothing else of it: addresses and credentials reach each
process over Dask's own connections, when the store is opened there.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Container, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from distributed import get_worker

from daskps.dask_private.scheduling import current_task
from daskps.exceptions import ObjectMissingError
from daskps.linux import is_linux
from daskps.serialize.frames import frame_nbytes
from daskps.stores.damaged import DamagedError
from daskps.stores.patience import may_wait, settle
from daskps.stores.store import Store, StoreConfig
from daskps.tls import Source, at_hand

logger = logging.getLogger(__name__)

# The garbage collector may close a store at any point, in the thread that opens another.
_lock = threading.RLock()
_stores: dict[str, tuple[Store, int]] = {}
# Seconds for which to try to read, by store.
_read_timeouts: dict[str, float] = {}
# For how long (seconds) after the first failure a task waits here for a store to be opened.
# Then it is better off elsewhere.
OPENING_GRACE_SECONDS = 1.0
# Names of stores that the process had open from which this one was forked: its, to close.
_inherited: set[str] = set()


@dataclass
class Absence:
    """Why a store is not open in this process, although it should be.

    Attributes
    ----------
    why
        For people.
    patience
        For how long (seconds) it may be waited for; None: it will never be open here.
    try_now
        Called by whoever needs the store, in any thread.
    since
        When it was first missed (``time.monotonic``).
    """

    why: str
    patience: float | None
    try_now: Callable[[], None]
    since: float


# By store.
_absences: dict[str, Absence] = {}
# Notified when a store is opened, or when it is known that it never will be.
_changed = threading.Condition()


def acquire(
    config: StoreConfig, read_timeout: float = 0.0, tls: Source | None = None
) -> Store:
    """Open a store in this process, or count one more user of it.

    A cluster in one process has several users: its client, its scheduler, its workers.

    Parameters
    ----------
    config
        How to open it.
    read_timeout
        Seconds for which to try to read, if the store cannot be reached; of several
        users, the most patient one counts.
    tls
        Gives the certificates of this process, if the store uses TLS.

    Raises
    ------
    OSError
        If the store cannot be used here.
    ConfigError
        If it uses TLS, and this process has no certificates.
    ImportError
        If something that it needs is not installed here.
    """
    with _lock:
        store, users = _stores.get(config.name, (None, 0))
        if store is None:
            with at_hand(tls):
                store = Store.from_config(config)
        _stores[config.name] = store, users + 1
        be_patient(config.name, read_timeout)
    _absences.pop(config.name, None)
    _notify()
    return store


def be_patient(name: str, read_timeout: float) -> None:
    """Have tasks try for so many seconds to read from a store, or longer if they do."""
    _read_timeouts[name] = max(read_timeout, _read_timeouts.get(name, 0.0))


async def acquire_in_thread(
    config: StoreConfig, read_timeout: float = 0.0, tls: Source | None = None
) -> Store:
    """Do so without holding up the event loop, if a server is slow or cannot be reached."""
    # Not one of asyncio's: who waits may be gone, and its event loop closed, by the time.
    opening: Future[Store] = Future()
    open_it = partial(acquire, config, read_timeout, tls)
    try:
        await asyncio.to_thread(settle, opening, open_it)
        return opening.result()
    except BaseException:
        opening.add_done_callback(_release_again)
        raise


def _release_again(opening: Future[Store]) -> None:
    if opening.exception() is None:
        # In a thread: the garbage collector, which must not wait for another store that is
        # being opened, may have ended who waited.
        name = opening.result().name
        threading.Thread(target=release, args=(name,), daemon=True).start()


def miss(
    name: str,
    why: str,
    patience: float | None = None,
    try_now: Callable[[], None] = lambda: None,
) -> None:
    """Note that a store could not be opened in this process, for whoever reads from it.

    Parameters
    ----------
    name
        The store.
    why, patience, try_now
        See :class:`Absence`.
    """
    before = _absences.get(name)
    since = time.monotonic() if before is None else before.since
    _absences[name] = Absence(why, patience, try_now, since)
    _notify()


def absence(name: str) -> Absence | None:
    """Why a store is not open in this process, if it should be."""
    return None if get(name) is not None else _absences.get(name)


def forget_absence(name: str) -> None:
    """Expect a store in this process no longer."""
    _absences.pop(name, None)
    _notify()


def _notify() -> None:
    with _changed:
        _changed.notify_all()


def add(store: Store) -> None:
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


def get(name: str) -> Store | None:
    """A store that is open in this process, or None."""
    return _stores.get(name, (None, 0))[0]


def read(name: str, key: Any) -> Any:
    """The bytes of an object.

    Raises
    ------
    ObjectMissingError
        If the store is not open here, or does not have the object.
    """
    store = expect(name, key)
    data = _read_patiently(store, key)
    if data is None:
        raise ObjectMissingError(
            f"Object {key} is not in store {name!r}, or not whole{_for_task()}. Either "
            "something else deleted it, or the cluster that kept it was closed or "
            "restarted. Submit the computation again."
        )
    return data


def expect(name: str, key: Any) -> Store:
    """A store, waited for if it is to be opened here, from which an object is needed.

    Raises
    ------
    ObjectMissingError
        If it is not open here.
    """
    # No lock: looking up a dictionary is atomic, and this runs once for each argument.
    store = get(name) or _when_open(name)
    if store is None:
        raise _unreadable(name, _why_not_open(name, key))
    return store


def patience(name: str) -> float:
    """For how long (seconds) to try to read from a store that cannot be reached."""
    missing = absence(name)
    if missing is not None:
        return missing.patience or 0.0
    return _read_timeouts.get(name, 0.0)


def _when_open(name: str) -> Store | None:
    """Wait for a store that is to be opened here; None if that takes too long."""
    missing = _absences.get(name)
    if missing is None or missing.patience is None:
        return get(name)
    missing.try_now()
    if not may_wait():
        return get(name)
    began = time.monotonic()
    left = (
        missing.since + min(OPENING_GRACE_SECONDS, missing.patience) - time.monotonic()
    )

    def settled() -> bool:
        now = absence(name)
        return now is None or now.patience is None

    with _changed:
        _changed.wait_for(settled, max(left, 0.0))
    store = get(name)
    if store is not None:
        store.traffic.has_waited(time.monotonic() - began)
    return store


def _why_not_open(name: str, key: Any) -> str:
    missing = absence(name)
    if missing is not None:
        return f"Object {key} cannot be read{_for_task()}. {missing.why}"
    return (
        f"Store {name!r} is not open in this process, so object {key} cannot be "
        "read. It is opened on the scheduler and on every worker by "
        "daskps.proxy_graph() or daskps.Client; was this graph made for another "
        "cluster, or is that cluster closed?"
    )


def _unreadable(name: str, message: str) -> ObjectMissingError:
    """The error of a process that cannot read, while others perhaps can."""
    error = ObjectMissingError(message)
    error.unreadable = name
    return error


def _read_patiently(store: Store, key: Any) -> Any:
    """Read, and try again for a while if the store cannot be reached."""
    timeout = _read_timeouts.get(store.name, 0.0) if may_wait() else 0.0
    deadline = time.monotonic() + timeout
    delay = 0.05
    while True:
        try:
            return _read(store, key)
        except DamagedError as e:
            raise ObjectMissingError(
                f"Object {key} in store {store.name!r}{_for_task()} is damaged: {e}. "
                "Something else wrote to the store. Submit the computation again."
            ) from e
        except Exception as e:
            if time.monotonic() + delay > deadline:
                raise _unreadable(
                    store.name,
                    f"Object {key} could not be read from store {store.name!r} for "
                    f"{timeout:g} s{_for_task()}: {type(e).__name__}: {e}. Check that "
                    "the store can be reached from this worker, and submit the "
                    "computation again.",
                ) from e
        time.sleep(delay)
        store.traffic.has_waited(delay)
        delay = min(2 * delay, 1.0)


def _read(store: Store, key: Any) -> Any:
    began = time.perf_counter()
    data = store.connector.get(key)
    if data is not None:
        store.traffic.was_read(frame_nbytes(data), time.perf_counter() - began)
    return data


def _for_task() -> str:
    """Which task this is, for messages."""
    try:
        key = current_task(get_worker())
    except ValueError:
        return ""
    return "" if key is None else f" (needed by task {key!r})"


def close(name: str) -> None:
    """Close a store for all its users in this process: its owner is done with it."""
    with _lock:
        store, _ = _stores.pop(name, (None, 0))
    if store is not None:
        _close(store)


def _close(store: Store) -> None:
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
if is_linux():  # Windows has no forks
    os.register_at_fork(after_in_child=_forked)


def holdings(names: Container[str] | None = None) -> dict[str, tuple[Any, ...]]:
    """What this host holds of each store that is open in this process and that can say it.

    Parameters
    ----------
    names
        Of which stores; None: of all.

    Returns
    -------
    dict
        By store, a :class:`~daskps.stores.holdings.Holdings` as a tuple.
    """
    found = {}
    for name, (store, _) in list(_stores.items()):
        if names is not None and name not in names:
            continue
        # ValueError: it is being closed.
        with contextlib.suppress(OSError, ValueError):
            here = store.connector.holdings()
            if here is not None:
                found[name] = tuple(here)
    return found


def evict(name: str, key: Any) -> None:
    """Delete an object. Not there, or the store is closed: does nothing."""
    store = get(name)
    if store is not None:
        store.connector.evict(key)
        store.traffic.was_evicted()


def try_to_evict(store: str, key: Any) -> bool:
    """Evict an object; False, and a line in the log, if the store refuses."""
    try:
        evict(store, key)
    except Exception as e:
        logger.error("Could not evict object %s from store %s: %r", key, store, e)
        return False
    return True


def evict_until_refused(ids: Iterable[tuple[str, Any]]) -> int:
    """Evict objects (store and key) in turn, until a store refuses; how many it was.

    A store that cannot be reached for one object is not asked for the rest: each may take
    long.
    """
    n = 0
    for store, key in ids:
        if not try_to_evict(store, key):
            break
        n += 1
    return n


def evict_copy(name: str, key: Any) -> None:
    """Delete a copy that this host keeps of an object, if the store makes copies."""
    store = get(name)
    if store is not None:
        store.connector.evict_copy(key)
