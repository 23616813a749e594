"""Which results come back to a client by reference. Runs on the client.

Dask's scheduler passes on what the client says it can read: families of serialisation, of
which each store is one (:mod:`daskps.references.results`).
"""

from __future__ import annotations

import functools
import logging
import time
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from daskps.dask_private.connections import (
    ask_with,
    call_actors_with,
    families_allowed,
    gather_with,
)
from daskps.exceptions import ObjectMissingError
from daskps.messages import AGAIN, DASK_FAMILIES, family
from daskps.references.results import Unread

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

# For how long results come by way of the scheduler after one could not be read from a store.
PLAIN_AFTER_FAILURE_SECONDS = 10.0


class Reader(Protocol):
    """Wants large results of a client to come back through stores."""

    def client_closed(self) -> None:
        """The client is closed: what was kept for it is of no more use."""


class Fetching:
    """Has results of one client answered with references.

    Thread-safe.

    Parameters
    ----------
    client
        The client, which is not kept alive.
    stores
        Gives the names of the stores whose references the client can read now.
    call
        Sends what calls an actor's method.
    """

    _client: weakref.ref[Client]
    _stores: Callable[[], Iterable[str]]
    _readers: weakref.WeakSet[Reader]
    _allowed: list[str] | None
    #: Until when (``time.monotonic``) results are not read from stores.
    _plain_until: float

    def __init__(
        self,
        client: Client,
        stores: Callable[[], Iterable[str]],
        call: Callable[..., Any],
    ):
        self._client = weakref.ref(client)
        self._call = call
        self._stores = stores
        self._readers = weakref.WeakSet()
        # What the client was made with, which is None unless the user gave some.
        self._allowed = families_allowed(client)[1]
        self._plain_until = 0.0

    def start(self, reader: Reader) -> None:
        """Have large results come back through the stores that are open.

        Parameters
        ----------
        reader
            Who wants it; until it is collected, or given to :meth:`stop`.
        """
        self._readers.add(reader)
        self.update()

    def stop(self, reader: Reader) -> None:
        """Have results come back as in plain Dask, unless others want references."""
        self._readers.discard(reader)
        self.update()

    def let_go(self) -> None:
        """Have all readers hold nothing for graphs that could follow."""
        for reader in list(self._readers):
            reader.client_closed()

    def update(self) -> bool:
        """Ask for references to the stores that are open now, if they are wanted.

        Returns
        -------
        bool
            Whether references are asked for.
        """
        client = self._client()
        # Read once: another thread may close the client meanwhile.
        scheduler = None if client is None else client.scheduler
        if scheduler is None:
            return False
        families = [family(name) for name in dict.fromkeys(self._stores())]
        allowed = self._allowed or DASK_FAMILIES
        by_reference = (
            bool(families and self._readers)
            and time.monotonic() >= self._plain_until
            # A result by reference is unpickled. The user may not want that.
            and "pickle" in allowed
        )
        asked = [*families, *allowed]
        gather_with(scheduler, asked if by_reference else self._allowed)
        call_actors_with(
            scheduler, asked if by_reference else None, self._ask_again, self._call
        )
        read = functools.partial(self._read_published, asked)
        ask_with(scheduler, "publish_get", read if by_reference else None)
        return by_reference

    async def _read_published(
        self, families: list[str], plain: Callable[..., Any], **message: Any
    ) -> Any:
        try:
            return await plain(**message, deserializers=families)
        except ObjectMissingError as e:
            self.failed(e)
            return await plain(**message)

    def _ask_again(self, result: Any) -> dict[str, Any] | None:
        """What asks a worker for a result of an actor that could not be read here.

        The method cannot be called again.
        """
        if not isinstance(result, Unread):
            return None
        self.failed(result.error)
        self.update()
        return {"op": AGAIN, "reference": result.reference}

    def failed(self, error: Exception) -> bool:
        """Whether results that could not be read are to be fetched without stores.

        A worker may have dropped a result, or died, after it sent the reference; or this
        client cannot reach the store.
        """
        if not isinstance(error, ObjectMissingError):
            return False
        logger.warning("A result is fetched again, through the scheduler: %s", error)
        self._plain_until = time.monotonic() + PLAIN_AFTER_FAILURE_SECONDS
        return True
