"""References to results, as whoever fetches them reads them. Runs on clients and workers.

Dask asks the reader of a result which families of serialisation it can read. Each store is
such a family. Workers write them (:mod:`daskps.worker.results`), schedulers relay them
unopened.
"""

from __future__ import annotations

import pickle
from functools import partial
from typing import Any

from daskps.dask_private.connections import is_family, register_family
from daskps.exceptions import ObjectMissingError
from daskps.messages import dependency_family, family
from daskps.progress import shown
from daskps.references.nodes import StoredValue
from daskps.references.published import PUBLISHED, Published
from daskps.safety_net import fell_back
from daskps.serialize.sent import from_sent
from daskps.stores import opened


class Answer:
    """What a worker sends in a family of a store: a reference, or a small value.

    Parameters
    ----------
    family
        The family.
    header, frames
        As :func:`load_reference` reads them.
    """

    family: str
    header: dict[str, Any]
    frames: list[Any]

    __slots__ = ("family", "frames", "header")

    def __init__(self, family: str, header: dict[str, Any], frames: list[Any]):
        self.family = family
        self.header = header
        self.frames = frames

    def __sizeof__(self) -> int:
        # Dask asks, to serialise what is large in another thread. This is done.
        return 512


def register_reader(store_name: str) -> None:
    """Let this process read results from a store, and say so when it relays a request."""
    # Of a worker that could not open the store, others ask for dependencies as of any: to
    # Dask, an unknown family is a lost connection, for ever.
    for name, load in (
        (family(store_name), load_reference),
        (dependency_family(store_name), decline),
    ):
        # A process that is a worker as well may read dependencies already.
        if not is_family(name):
            register_family(name, partial(_dump, name), load)


def _dump(name: str, value: Any) -> tuple[dict[str, Any], list[Any]]:
    """Send what a worker has made for this family; Dask tries the next one for others."""
    if type(value) is Answer and value.family == name:
        return value.header, value.frames
    raise NotImplementedError


def decline(header: dict[str, Any], frames: list[Any]) -> Any:
    """Read nothing in this family, which is asked for by others only."""
    raise NotImplementedError


def load_reference(header: dict[str, Any], frames: list[Any]) -> Any:
    """Read what a worker answered in a family of a store.

    Raises
    ------
    ObjectMissingError
        If it cannot be read: whoever asked asks again without references.
    """
    lent = "lent" in header
    if lent and "sent" in header:
        return from_sent(header["sent"], frames)  # nobody can be asked again
    try:
        return _load(header, frames)
    except ObjectMissingError as e:
        missing = e
    except Exception as e:
        fell_back(e, "read", StoredValue)
        # Whoever asked asks again without references, and may fail as in plain Dask.
        missing = ObjectMissingError(
            f"A result could not be read from its store: {type(e).__name__}: {e}"
        )
        missing.__cause__ = e
    if lent:
        return Unread(bytes(frames[0]), missing)
    try:
        raise missing
    finally:
        del missing  # it would keep itself, and the frames


def _load(header: dict[str, Any], frames: list[Any]) -> Any:
    if "sent" in header:
        return from_sent(header["sent"], frames)
    if PUBLISHED in header:
        published: Published = pickle.loads(frames[0])
        return from_sent(published.header, published.read())
    return _read(frames[0], only_reader="lent" in header)


class Unread:
    """Stands for a value that could not be read, and was sent for this reader alone.

    The worker can read it for him, or else nobody has it any more.
    """

    reference: bytes
    error: ObjectMissingError

    __slots__ = ("error", "reference")

    def __init__(self, reference: bytes, error: ObjectMissingError):
        self.reference = reference
        self.error = error


def _read(reference: Any, only_reader: bool) -> Any:
    stored: StoredValue = pickle.loads(reference)
    with shown("Reading a result", stored.stored_nbytes()):
        value = stored.resolve()
    # What was read stays mapped. The worker deletes its result without telling this host;
    # what was sent for this reader alone is his to delete.
    for id in stored.objects():
        opened.evict_copy(id.store, id.key)
        if only_reader:
            opened.try_to_evict(id.store, id.key)
    return value
