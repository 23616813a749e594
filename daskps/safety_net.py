"""A fault of daskps costs speed, never the user's program. Runs everywhere.

Any library may put objects and layers of its own into a graph, and daskps looks into all of
them. What it cannot treat, for whatever reason, goes as in plain Dask: a value, a layer, a
graph, a result. Each place where that is possible catches every error, and gives it to
:func:`fell_back`.

Errors that daskps raises on purpose (:mod:`daskps.exceptions`) are the user's, and pass.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable
from typing import Any

import dask

from daskps.exceptions import DaskpsError

logger = logging.getLogger(__name__)

#: Switches the net off, so that tests see faults. Not for users: in no default.
SETTING = "daskps.safety-net"
#: This process, for who adds up the faults of many.
PROCESS = uuid.uuid4().hex

_lock = threading.Lock()
_count = 0
_said: set[tuple[str, str]] = set()
_listeners: list[Callable[[], None]] = []


def fell_back(error: Exception, attempt: str, subject: Any = None) -> None:
    """Note that something went on as in plain Dask. To be called where an error is handled.

    The first time for each type, it is logged with a traceback.

    Parameters
    ----------
    error
        What went wrong.
    attempt
        What daskps was about to do: a verb, and what comes before the type's name.
    subject
        What it was about to do that to; only its type is looked at. None: `attempt` says it.

    Raises
    ------
    Exception
        `error`, if it is meant for the user, or the net is off.

    Notes
    -----
    Thread-safe.
    """
    global _count
    if isinstance(error, DaskpsError) or not dask.config.get(SETTING, True):
        raise error
    name = _type_name(subject)
    with _lock:
        _count += 1
        new = (attempt, name) not in _said
        _said.add((attempt, name))
    if new:
        logger.warning(
            "daskps could not %s, and goes on as plain Dask does. Results are the same. "
            "Please report this, with the traceback: %s",
            f"{attempt} {name}".strip(),
            type(error).__name__,
            exc_info=error,
        )
    for listener in list(_listeners):
        listener()


def count() -> int:
    """How often something fell back in this process."""
    return _count


def listen(listener: Callable[[], None]) -> None:
    """Call this after each fault, in the thread where it happened."""
    _listeners.append(listener)


def stop_listening(listener: Callable[[], None]) -> None:
    """Call this no more."""
    _listeners.remove(listener)


def _type_name(subject: Any) -> str:
    if subject is None:
        return ""
    try:
        return f"{type(subject).__module__}.{type(subject).__qualname__}"
    except Exception:  # a metaclass may do as it likes
        return "an object"
