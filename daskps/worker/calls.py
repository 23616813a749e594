"""What workers are asked to do with large arguments. Runs on workers.

``Client.run`` and actors' methods get their arguments in messages of their own, through the
scheduler. Here they come by reference, are read in a thread, and Dask's own operation goes
on with them.
"""

from __future__ import annotations

import logging
import pickle
from typing import TYPE_CHECKING, Any

from distributed.utils import offload

from daskps.dask_private.connections import handle
from daskps.exceptions import ObjectMissingError
from daskps.messages import UNREAD

if TYPE_CHECKING:
    from distributed import Worker

logger = logging.getLogger(__name__)


class Calls:
    """Operations of one worker whose arguments come by reference."""

    def __init__(self, worker: Worker):
        self._worker = worker

    async def run(self, comm: Any, reference: bytes, wait: bool) -> Any:
        """Run a function, as ``Client.run`` asks for.

        Parameters
        ----------
        comm
            The connection.
        reference
            Of function, arguments and keyword arguments, each pickled by Dask.
        wait
            Whether to wait for a coroutine function.
        """
        try:
            parts = await offload(pickle.loads(reference).resolve)
        except Exception as e:
            return _unread(e)
        named = dict(zip(("function", "args", "kwargs"), parts, strict=True))
        return await handle(self._worker, "run", comm, wait=wait, **named)

    async def call(
        self,
        comm: Any,
        references: dict[Any, bytes],
        args: Any,
        kwargs: Any,
        serializers: Any = None,
        **message: Any,
    ) -> Any:
        """Call an actor's method.

        Parameters
        ----------
        comm
            The connection.
        references
            Of those arguments that are stored, by position or name.
        args, kwargs
            The others, and anything in the place of those.
        serializers
            The families that the client can read.
        message
            Which actor, and which method.
        """
        try:
            stored = {place: pickle.loads(ref) for place, ref in references.items()}
            read = await offload(lambda: {p: s.resolve() for p, s in stored.items()})
        except Exception as e:
            return _unread(e)
        message["args"] = [read.get(place, arg) for place, arg in enumerate(args)]
        message["kwargs"] = {name: read.get(name, arg) for name, arg in kwargs.items()}
        return await handle(
            self._worker, "actor_execute", comm, serializers=serializers, **message
        )


def _unread(error: Exception) -> dict[str, Any]:
    """The answer to a client, which then sends the arguments themselves.

    Whatever the error is: if it is theirs, plain Dask will say so.
    """
    why = str(error) if isinstance(error, ObjectMissingError) else repr(error)
    logger.info("Arguments could not be read, and are asked for as they are: %s", why)
    return {"status": UNREAD, "why": why}
