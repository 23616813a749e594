"""What a client tells the scheduler of its stores. Runs on the client.

What was stored for a graph is told with the graph. What was read besides, once a second,
goes with whatever the client sends next: it sends at least a heartbeat, and a message of its
own would have the next graph wait.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tornado.ioloop import PeriodicCallback

from daskps.dask_private.connections import (
    When,
    connection,
    is_closing,
    send_to_scheduler,
)
from daskps.stores.reports import reports

if TYPE_CHECKING:
    from distributed import Client

REPORT_MILLISECONDS = 1000


def tell_with_next(client: Client, over: Any, store_names: Iterable[str]) -> None:
    """Have what is new of stores sent with the next message of a client.

    Parameters
    ----------
    client
        The client.
    over
        Its connection, as for
        :func:`~daskps.dask_private.connections.send_to_scheduler`.
    store_names
        Of the stores.
    """
    for message in reports(store_names):
        send_to_scheduler(client, over, message, When.WITH_NEXT)


def report_while_connected(client: Client, store_name: str) -> None:
    """Look once a second whether there is something to tell of a store.

    To be called on the client's event loop. The client is not kept alive.
    """
    weak, over = weakref.ref(client), connection(client)

    def tell() -> None:
        alive = weak()
        current = alive is not None and connection(alive) is over
        if alive is None or not current or is_closing(alive):
            periodic.stop()
        else:
            tell_with_next(alive, over, [store_name])

    periodic = PeriodicCallback(tell, REPORT_MILLISECONDS)
    periodic.start()
