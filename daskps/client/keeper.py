"""Holds what a client has stored, until its graph is on its way. Runs on the client."""

from __future__ import annotations

import collections
import contextlib
import weakref
from typing import TYPE_CHECKING, Any

from distributed.protocol.serialize import ToPickle

from daskps.dask_private.connections import connection, send_to_scheduler
from daskps.exceptions import ClusterError
from daskps.messages import HOLD, RELEASE, STORED
from daskps.objects import finalizers
from daskps.references.nodes import ObjectId
from daskps.stores import opened

if TYPE_CHECKING:
    from distributed import Client


class ClientKeeper:
    """Tells the scheduler what this client holds, over one connection.

    Parameters
    ----------
    client
        The client; the keeper does not keep it alive.

    Notes
    -----
    Thread-safe: what is to be sent goes through the client's event loop.

    What the scheduler was not told of, since the graph was never sent, is evicted here:
    the scheduler does not know of it, and may have forgotten this client by then. So the
    store stays open in this process for as long as there is a keeper, which catalog and
    handles keep alive.
    """

    def __init__(self, client: Client):
        self._client = weakref.ref(client)
        self._connection = connection(client)
        #: What the scheduler was told of, and what it is about to be told of.
        self._announced: set[ObjectId] = set()
        self._queued: set[ObjectId] = set()
        self._released: collections.deque[ObjectId] = collections.deque()

    def closes(self, store: str) -> None:
        """Close this store, which was opened in this process, after the last use."""
        # Stores that are open when the process ends are closed by themselves.
        release = weakref.finalize(self, finalizers.call_later, opened.release, store)
        release.atexit = False

    def stored(self, objects: list[tuple[ObjectId, int]]) -> None:
        self._announce(STORED, objects)

    def hold(self, objects: list[tuple[ObjectId, int]]) -> None:
        self._announce(HOLD, objects, with_next=True)

    def _announce(
        self, op: str, objects: list[tuple[ObjectId, int]], with_next: bool = False
    ) -> None:
        client = self._client()
        if client is None or _is_closed(client):
            raise _gone()
        over = self._over(client)
        if connection(client) is not over:
            raise connection_lost("values were stored")

        ids = [id for id, _ in objects]
        self._queued.update(ids)

        def done(sent: bool) -> None:
            self._queued.difference_update(ids)
            # A client that closes may send this after its last word to the scheduler.
            if sent and not _is_closed(client):
                self._announced.update(ids)

        message = {"op": op, "objects": ToPickle(objects)}
        send_to_scheduler(client, over, message, with_next, done)

    def _over(self, client: Client) -> Any:
        """The connection; None before there is one, when messages wait for the first."""
        if self._connection is None:
            self._connection = connection(client)
        return self._connection

    def release(self, objects: list[ObjectId]) -> None:
        # The garbage collector calls this at any point, perhaps while this thread holds
        # a lock: only note it, and let the event loop send it.
        self._released.extend(objects)
        client = self._client()
        if client is not None:
            # RuntimeError: the loop is closed, the client with it.
            with contextlib.suppress(RuntimeError):
                client.loop.add_callback(self._let_go)
            # A client is closed before its loop stops. If it is not closed yet, the loop
            # will come to the callback.
            if client.status != "closed":
                return
        self._let_go()

    def _let_go(self) -> None:
        client = self._client()
        closed = client is None or client.status == "closed"
        announced, queued = [], []
        while self._released:
            id = self._released.popleft()
            if id in self._queued and not closed:
                queued.append(id)
            elif id in self._announced:
                announced.append(id)
            else:
                finalizers.evict_later(*id)
        # Released since this callback was put behind earlier ones. Each release has a
        # callback of its own, behind those that send what it was held for.
        self._released.extend(queued)
        self._announced.difference_update(announced)
        # A scheduler that has lost the client has dropped what it held.
        if announced and client is not None and client.status == "running":
            message = {"op": RELEASE, "objects": ToPickle(announced)}
            send_to_scheduler(client, self._over(client), message)


def connection_lost(meanwhile: str) -> ClusterError:
    """The error of a graph that was not sent since the connection was lost."""
    return ClusterError(
        f"The connection to the scheduler was lost while {meanwhile}. Submit the "
        "computation again."
    )


def _gone() -> ClusterError:
    return ClusterError(
        "The client was closed while values were stored. The graph was not sent. Submit "
        "the computation again, with another client."
    )


def _is_closed(client: Client) -> bool:
    return client.status in ("closing", "closed")
