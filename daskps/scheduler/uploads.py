"""Objects that clients send by Dask's connection alone. Runs on the scheduler.

Such a client sends what it stores in pieces, over a connection of its own beside that on
which graphs travel. Each piece is written to the store of the scheduler's host, from where
all hosts read: the scheduler's process keeps none of them, and is not held up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distributed.protocol.serialize import Serialize, Serialized, ToPickle, deserialize
from distributed.utils import offload

from daskps.exceptions import ClusterError
from daskps.messages import UPLOAD, UPLOADED
from daskps.stores.files.pieces import Pieces
from daskps.stores.keys import creator_name


class Uploads:
    """Takes pieces. Runs on the event loop.

    Parameters
    ----------
    named
        Finds a store by its name: what was asked for, and the store.
    is_there
        Whether a client, given its id, is connected.
    """

    def __init__(
        self,
        named: Callable[[str], tuple[Any, Any] | None],
        is_there: Callable[[str], bool],
    ):
        self._named = named
        self._is_there = is_there
        #: By client, and by the names that clients give them.
        self._pieces: dict[tuple[str, str], Pieces] = {}

    def operations(self) -> dict[str, Callable[..., Any]]:
        """What is done at which operation."""
        return {UPLOAD: self.upload, UPLOADED: self.uploaded}

    async def upload(
        self, store: str, client: str, name: str, nbytes: int, data: Any
    ) -> dict[str, Any]:
        """Take the next piece of an object.

        Parameters
        ----------
        store, client
            Name and id.
        name
            The object's, among those that the client sends now.
        nbytes
            Of the object.
        data
            The piece.

        Returns
        -------
        dict
            ``key``: the object's, if this was the last piece.

        Raises
        ------
        OSError, StoreFullError
            If it cannot be stored.
        """
        connector = self._connector(store)
        piece = memoryview(_unwrapped(data)).cast("B")
        pieces = self._pieces.pop((client, name), None)
        try:
            if pieces is None:
                pieces = await offload(connector.begin, nbytes, creator_name(client))
            await offload(pieces.write, piece)
            if not self._is_there(client):  # it has gone meanwhile
                raise ConnectionAbortedError(f"client {client} is not connected")
            if pieces.written < nbytes:
                self._pieces[client, name] = pieces
                return {}
            key = await offload(pieces.finish)
        except BaseException:
            if pieces is not None:
                pieces.abandon()
            raise
        return {"key": ToPickle(await offload(connector.here, key))}

    async def uploaded(self, store: str, key: Any = None) -> dict[str, Any]:
        """Where objects are read that were taken, and whether one is there still."""
        connector = self._connector(store)
        found = key is not None and await offload(connector.exists, key)
        return {"address": await offload(connector.serves_at), "found": found}

    def client_gone(self, client: str) -> None:
        """Delete what a client has not sent to the end."""
        for other, name in list(self._pieces):
            if other == client:
                self._pieces.pop((other, name)).abandon()

    def _connector(self, store: str) -> Any:
        found = self._named(store)
        connector = found and found[1].connector.serving()
        if connector is None:
            raise ClusterError(f"The scheduler takes no objects for store {store!r}")
        return connector


def _unwrapped(data: Any) -> Any:
    if isinstance(data, Serialized):
        return deserialize(data.header, data.frames)
    return data.data if isinstance(data, Serialize) else data
