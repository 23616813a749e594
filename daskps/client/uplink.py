"""Stores a client's objects by way of the scheduler. Runs on the client.

For a client that reaches nothing but Dask's own address of the scheduler, as behind a
gateway or a forwarded port, or whose host the workers' hosts reach in no way: see
:mod:`daskps.scheduler.uploads`.
"""

from __future__ import annotations

import asyncio
import secrets
import weakref
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from distributed.protocol.serialize import ToPickle, to_serialize

from daskps.messages import UPLOAD, UPLOADED
from daskps.serialize.frames import Frame, contiguous_parts, frame_nbytes
from daskps.stores.interfaces import Address, pair

if TYPE_CHECKING:
    from distributed import Client

# Bytes of a piece: the scheduler's event loop is busy with it for some milliseconds.
PIECE_NBYTES = 4 << 20


class Uplink:
    """What stores objects where the scheduler is.

    Thread-safe, but not for the client's event loop: it would wait for itself.

    Parameters
    ----------
    client
        Connected. Not kept alive.
    store
        Name of the store.
    """

    def __init__(self, client: Client, store: str):
        self._client = weakref.ref(client)
        self._store = store

    async def address(self) -> Address:
        """Where the objects are read.

        Raises
        ------
        Exception
            If the scheduler's host cannot take any.
        """
        return pair((await self._ask(UPLOADED))["address"])

    def put_frames(self, frames: Sequence[Frame], creator: str) -> Any:
        """Store one object that is in several pieces; its key.

        Raises
        ------
        OSError
            If the connection is lost.
        """
        return self._run(self._send(frames))

    def exists(self, key: Any) -> bool:
        """Whether an object is there.

        Raises
        ------
        OSError
            As :meth:`put_frames`.
        """
        return bool(self._run(self._ask(UPLOADED, key=ToPickle(key)))["found"])

    def _run(self, coroutine: Any) -> Any:
        client = self._client()
        if client is None:
            coroutine.close()
            raise ConnectionError("the client is closed")
        future = asyncio.run_coroutine_threadsafe(coroutine, client.loop.asyncio_loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def _send(self, frames: Sequence[Frame]) -> Any:
        nbytes, name = sum(map(frame_nbytes, frames)), secrets.token_urlsafe(8)
        answer: dict[str, Any] = {}
        for piece in _pieces(frames):
            answer = await self._ask(
                UPLOAD, name=name, nbytes=nbytes, data=to_serialize(piece)
            )
        return answer["key"]

    async def _ask(self, operation: str, **message: Any) -> Any:
        client = self._client()
        if client is None:
            raise ConnectionError("the client is closed")
        if operation == UPLOAD:
            message["client"] = client.id
        return await getattr(client.scheduler, operation)(store=self._store, **message)


def _pieces(frames: Sequence[Frame]) -> Iterator[memoryview]:
    """The bytes of an object; at least one piece, if it is empty."""
    pieces = (
        part[start : start + PIECE_NBYTES]
        for frame in frames
        for part in contiguous_parts(frame)
        for start in range(0, part.nbytes, PIECE_NBYTES)
    )
    yield next(pieces, memoryview(b""))
    yield from pieces
