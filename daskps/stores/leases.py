"""Leases: what nobody renews goes by itself.

Where no kernel notices that a process died, as on another host, the owner of a store says
from time to time that it is alive, and renews the leases of the objects that are needed.
After ``kill -9`` of everything the objects of a network store expire, and a directory whose
owner was on another host may be deleted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

logger = logging.getLogger(__name__)

# How often (seconds) an owner says that it is alive, or tries again to renew.
HEARTBEAT = 15.0


class LeaseThread:
    """Renews the leases of one store until it is closed.

    A thread, since the scheduler's event loop may be busy for long with a large graph.
    A forked process does not have it.

    Parameters
    ----------
    connector
        Of the store, in the process that owns it; has `lease` (seconds) and ``heartbeat()``,
        and perhaps ``renew(keys)``.
    keys
        Gives the keys of the objects that are needed now, or None for all that are there.
        Called in the thread.
    """

    def __init__(self, connector: Any, keys: Callable[[], Iterable[Any] | None]):
        self._connector = connector
        self._keys = keys
        self._closed = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="daskps-leases", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Renew nothing any more. Does not wait for what is under way."""
        self._closed.set()

    def _run(self) -> None:
        period = self._connector.lease / 4
        due = time.monotonic() + period
        while not self._closed.wait(min(HEARTBEAT, period)):
            try:
                self._connector.heartbeat()
                if time.monotonic() >= due and hasattr(self._connector, "renew"):
                    self._connector.renew(self._keys())
                    due = time.monotonic() + period
            except Exception as e:
                if not self._closed.is_set():
                    logger.warning(
                        "Could not renew the leases of %r: %s", self._connector, e
                    )
