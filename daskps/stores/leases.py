"""Leases: what nobody renews goes by itself.

Where no kernel notices that a process died, as on another host, the owner of a store says
from time to time that it is alive. A network store forgets an object at the end of its
lease, which each process renews for the objects that it needs: the scheduler for those that
tasks need or clients hold, a client or a worker for those that it has stored. So after
``kill -9`` of everything nothing stays for ever.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from daskps.stores.connectors.base import StoreConnector

logger = logging.getLogger(__name__)

# How often (seconds) an owner says that it is alive.
HEARTBEAT_SECONDS = 15.0


class Owner(Protocol):
    """Has to say that it lives.

    Attributes
    ----------
    closed
        Set when it need not say so any more.
    """

    closed: threading.Event

    def heartbeat(self) -> None:
        """Say so."""


def say_alive(connector: StoreConnector[Any]) -> None:
    """Have the owner of a store say that it is alive, until the store is closed.

    Parameters
    ----------
    connector
        Of the store, in the process that owns it. Not kept alive.
    """
    if connector.has_heartbeat:
        repeat_heartbeat(connector)


def repeat_heartbeat(owner: Owner) -> None:
    """Have somebody say that it lives, until it is closed. Not kept alive."""
    _repeat(HEARTBEAT_SECONDS, owner, owner, lambda o, _: o.heartbeat())


def renew(
    connector: StoreConnector[Any],
    holder: Any,
    keys: Callable[[Any], Iterable[Any] | None],
) -> None:
    """Renew the leases of objects, until the store is closed.

    Parameters
    ----------
    connector
        Of the store. Not kept alive.
    holder
        Who needs the objects; for as long as this exists. Not kept alive.
    keys
        Given the holder, gives the keys of the objects, or None for all that are there.
        Called in another thread.
    """
    if connector.lease is not None:
        # Two more attempts before the lease ends.
        _repeat(connector.lease / 4, connector, holder, lambda c, h: c.renew(keys(h)))


def _repeat(
    period: float,
    owner: Owner | StoreConnector[Any],
    holder: Any,
    call: Callable[[Any, Any], Any],
) -> None:
    # A thread, since an event loop may be busy for long with a large graph. A forked
    # process does not have it.
    arguments = (period, owner.closed, weakref.ref(owner), weakref.ref(holder))
    threading.Thread(
        target=_run, args=(*arguments, call), name="daskps-leases", daemon=True
    ).start()


def _run(
    period: float,
    closed: threading.Event,
    connector: weakref.ref[Any],
    holder: weakref.ref[Any],
    call: Callable[[Any, Any], Any],
) -> None:
    while not closed.wait(period):
        pair = connector(), holder()
        if None in pair:
            return
        try:
            call(*pair)
        except Exception as e:
            logger.warning("Could not renew the leases of %r: %s", pair[0], e)
        del pair
