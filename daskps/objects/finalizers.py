"""What the garbage collector asks for: evictions, and stores to be closed.

A finalizer runs at any point of any thread, perhaps inside the very connector that it would
have to call, which then waits for a lock that its own thread holds. So what is to be done
goes to a thread of its own. A forked process has no such thread, and so deletes nothing that
its parent still needs.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import weakref
from collections.abc import Callable
from typing import Any

from daskps.stores import opened

logger = logging.getLogger(__name__)

# How often (seconds) the thread looks whether it is still needed.
LOOK_SECONDS = 0.5

# Of all queues, this one may be used in a finalizer.
_waiting: queue.SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...]] | None]
_waiting = queue.SimpleQueue()
_lock = threading.Lock()
_thread: threading.Thread | None = None
_users = 0
#: What to call when a client is closed.
_clients: weakref.WeakKeyDictionary[Any, Callable[[], None]]
_clients = weakref.WeakKeyDictionary()


def start(client: Any = None, closed: Callable[[], None] = lambda: None) -> None:
    """Start the thread, if it does not run.

    Parameters
    ----------
    client
        The client that needs it, until it is closed. None: somebody who calls
        :func:`stop`.
    closed
        Called in the thread, soon after the client is closed.
    """
    global _thread, _users
    with _lock:
        if client is None:
            _users += 1
        else:
            _clients[client] = closed
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
    call_later(opened.try_to_evict, store, key)


def call_later(function: Callable[..., Any], *args: Any) -> None:
    """Call a function soon, and do not wait; if there is no thread any more, at once."""
    if _thread is None:
        function(*args)
    else:
        _waiting.put((function, args))


def _run() -> None:
    while True:
        with contextlib.suppress(queue.Empty):
            waiting = _waiting.get(timeout=LOOK_SECONDS)
            if waiting is not None:
                _call(*waiting)
        _look_for_closed_clients()
        if _ends():
            return


def _call(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
        function(*args)
    except Exception:
        logger.exception("%s failed", function)


def _look_for_closed_clients() -> None:
    with _lock:
        closed = [client for client in list(_clients) if client.status == "closed"]
        functions = [_clients.pop(client) for client in closed]
    for function in functions:
        _call(function, ())


def _ends() -> bool:
    global _thread
    with _lock:
        if _users or _clients:
            return False
        _thread = None
    # What was put there before others could see that the thread ends.
    while not _waiting.empty():
        if (waiting := _waiting.get()) is not None:
            _call(*waiting)
    return True
