"""What the garbage collector asks for: evictions, and stores to be closed.

A finalizer runs at any point of any thread, perhaps inside the very connector that it would
have to call, which then waits for a lock that its own thread holds. So what is to be done
goes to a thread of its own. A forked process has no such thread, and so deletes nothing that
its parent still needs.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

from daskps.stores import opened

logger = logging.getLogger(__name__)

# Of all queues, this one may be used in a finalizer.
_waiting: queue.SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...]] | None]
_waiting = queue.SimpleQueue()
_lock = threading.Lock()
_thread: threading.Thread | None = None
_users = 0


def start() -> None:
    """Count one more user of the thread, and start it if it does not run."""
    global _thread, _users
    with _lock:
        _users += 1
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_run, name="daskps-evict", daemon=True)
            _thread.start()


def stop() -> None:
    """Count one user less; after the last one, the thread ends when nothing waits."""
    global _users
    with _lock:
        _users -= 1
        if not _users:
            _waiting.put(None)


def evict_later(store: str, key: Any) -> None:
    """Evict an object soon; does not block."""
    call_later(evict_now, store, key)


def call_later(function: Callable[..., Any], *args: Any) -> None:
    """Call a function soon; does not block."""
    _waiting.put((function, args))


def _run() -> None:
    while True:
        waiting = _waiting.get()
        if waiting is not None:
            function, args = waiting
            try:
                function(*args)
            except Exception:
                logger.exception("%s failed", function)
        elif _ends():
            return


def _ends() -> bool:
    global _thread
    with _lock:
        if _users:
            return False  # somebody came meanwhile
        _thread = None
        return True


def evict_now(store: str, key: Any) -> bool:
    """Evict an object; False, and a line in the log, if the store refuses."""
    try:
        opened.evict(store, key)
    except Exception as e:
        logger.error("Could not evict object %s from store %s: %r", key, store, e)
        return False
    return True
