"""Data sets that are published by reference. Runs on the scheduler.

What is published belongs to its name: it outlives the client that has published it, until
the name is deleted or taken by another one. So its objects are held for the name. Whoever
can read the store gets the reference; to everybody else the scheduler sends what it stands
for, as in plain Dask.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dask.utils import stringify
from distributed.protocol.serialize import Serialized
from distributed.utils import offload

from daskps.dask_private.connections import published_datasets
from daskps.references.nodes import ObjectId
from daskps.references.published import family_of, published_in

if TYPE_CHECKING:
    from distributed import Scheduler


class Publications:
    """Holds the objects of published data sets, for one scheduler.

    Parameters
    ----------
    scheduler
        Whose data sets.
    hold
        Called with a holder, and objects with their sizes.
    release
        Called with a holder and objects.
    """

    #: What is held: the message as it is kept, and its objects, by name.
    _held: dict[Any, tuple[Any, list[ObjectId]]]

    def __init__(
        self,
        scheduler: Scheduler,
        hold: Callable[[str, list[tuple[ObjectId, int]]], None],
        release: Callable[[str, list[ObjectId]], None],
    ):
        self._scheduler = scheduler
        self._hold = hold
        self._release = release
        self._held = {}
        ours: dict[str, Callable[..., Any]] = {
            "publish_put": self.put,
            "publish_get": self.get,
            "publish_delete": self.delete,
        }
        #: Operations that take the place of Dask's, which a scheduler may be without.
        self.operations = {n: ours[n] for n in ours if n in scheduler.handlers}
        self._plain = {name: scheduler.handlers[name] for name in self.operations}

    def close(self) -> None:
        """Have Dask's own operations again."""
        self._scheduler.handlers.update(self._plain)

    async def put(self, **message: Any) -> Any:
        """Publish, and hold the objects for the name."""
        return await self._and_note("publish_put", message)

    async def delete(self, **message: Any) -> Any:
        """Delete a name, and let go of the objects."""
        return await self._and_note("publish_delete", message)

    async def get(self, serializers: Any = None, **message: Any) -> Any:
        """What was published, in a form that the reader can read.

        Parameters
        ----------
        serializers
            The families of serialisation that can be read there; None: Dask's own.
        """
        found = await self._call("publish_get", message)
        if isinstance(found, list):
            return [await self._readable(entry, serializers) for entry in found]
        return await self._readable(found, serializers)

    async def _readable(self, entry: Any, families: Any) -> Any:
        family = family_of(entry["data"]) if entry else None
        if family is None or family in (families or ()):
            return entry
        published = published_in(entry["data"])
        frames = await offload(published.read)
        return {**entry, "data": Serialized(published.header, frames)}

    async def _call(self, name: str, message: dict[str, Any]) -> Any:
        result = self._plain[name](**message)
        return await result if inspect.isawaitable(result) else result

    async def _and_note(self, name: str, message: dict[str, Any]) -> Any:
        try:
            return await self._call(name, message)
        finally:
            self._note()

    def _note(self) -> None:
        datasets = published_datasets(self._scheduler)
        gone = {
            name: objects
            for name, (data, objects) in self._held.items()
            if name not in datasets or datasets[name]["data"] is not data
        }
        for name in gone:
            del self._held[name]
        for name, entry in datasets.items():
            data = entry["data"]
            if name not in self._held and family_of(data) is not None:
                sizes = published_in(data).objects()
                self._held[name] = data, list(sizes)
                self._hold(_holder(name), list(sizes.items()))
        for name, objects in gone.items():
            _, still = self._held.get(name, (None, []))
            self._release(_holder(name), [id for id in objects if id not in still])


def _holder(name: Any) -> str:
    # As Dask names who wants the keys of a data set.
    return f"published-{stringify(name)}"
