"""A value as Dask sends it from process to process, and back. Runs everywhere.

What a task returns is not pickled as a whole: Dask has serialisers of its own for many
types, and takes a list, a tuple, a set or a dictionary element by element. That decides
what the reader gets: which arrays may be written to, their order of axes and of bytes, and
that what was shared within a list is not any more. So Dask's own serialisers make results
into frames here too, and read them. Only what it would pickle is pickled as daskps does
(:mod:`daskps.serialize.pickling`), without copies of large memory.
"""

from __future__ import annotations

import pickle
import uuid
from types import NoneType
from typing import Any, NamedTuple

import numpy as np
from distributed.protocol import pickle as dask_pickle
from distributed.protocol.serialize import deserialize as dask_deserialize
from distributed.protocol.serialize import serialize as dask_serialize
from distributed.utils import ensure_memoryview

from daskps.dask_private.connections import register_family
from daskps.messages import PICKLE_FAMILY
from daskps.serialize.frames import Frame, contiguous_parts, frame_nbytes, of_its_owner
from daskps.serialize.pickling import OUT_OF_BAND_NBYTES
from daskps.serialize.values import Serialized, serialize

_FAMILIES = ("dask", PICKLE_FAMILY, "pickle")
# As good with Dask's own pickle, and there may be many of them in a list.
_ATOMS = frozenset({bool, int, float, complex, str, NoneType})


class Sent(NamedTuple):
    """One value in Dask's form.

    Attributes
    ----------
    header
        What Dask needs to read it.
    frames
        The rest of it, which refers to the value's own memory.
    """

    header: dict[str, Any]
    frames: list[Frame]

    @property
    def nbytes(self) -> int:
        """Bytes of all frames."""
        return sum(map(frame_nbytes, self.frames))

    def flat(self) -> list[Any]:
        """The frames as Dask's connections take them."""
        return [
            b"".join(contiguous_parts(f)) if isinstance(f, np.ndarray) else f
            for f in self.frames
        ]


def to_sent(value: Any, protocol: int, known_to_dask: bool = False) -> Sent:
    """Serialise a value as Dask does what it sends.

    Parameters
    ----------
    protocol
        Of pickle, as the two ends of the connection have agreed.
    known_to_dask
        Whether somebody without daskps has to be able to read it.

    Raises
    ------
    TypeError
        If it cannot be serialised.
    """
    header, frames = dask_serialize(
        value,
        serializers=("dask", "pickle") if known_to_dask else _FAMILIES,
        on_error="raise",
        context={"pickle-protocol": protocol},
        iterate_collection=True,
    )
    return Sent(header, list(map(_frame, frames)))


def from_sent(header: dict[str, Any], frames: list[Any]) -> Any:
    """The value again. It keeps the frames, which have to be its own, and writable."""
    return dask_deserialize(header, frames)


def to_serialized(sent: Sent, unique: bool = False) -> Serialized:
    """The same in the form in which values are stored; read, it is the value.

    Parameters
    ----------
    unique
        Whether no other value is to have this stream, an equal one included.
    """
    # Whatever arrives over a connection may be written to, and Dask clears the flag of
    # what may not be. Pickle is given a writable stand-in, or would mark it read-only.
    large = [f for f in sent.frames if frame_nbytes(f) >= OUT_OF_BAND_NBYTES]
    frames = [
        pickle.PickleBuffer(bytearray())
        if frame_nbytes(f) >= OUT_OF_BAND_NBYTES
        else bytearray().join(contiguous_parts(f))
        for f in sent.frames
    ]
    token = uuid.uuid4().bytes if unique else b""
    stream = pickle.dumps(
        _Received(sent.header, frames, token), 5, buffer_callback=lambda _: None
    )
    return Serialized(stream, large, [True] * len(large))


def serialize_as_sent(value: Any, *, protocol: int) -> Serialized:
    """Serialise a value for a store, in the form in which Dask sends it.

    Parameters
    ----------
    protocol
        As for :func:`to_sent`, which says what this raises.
    """
    return to_serialized(to_sent(value, protocol))


class _Received:
    """Unpickled, it is the value."""

    def __init__(self, *args: Any):
        self._args = args

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, self._args


def _received(header: dict[str, Any], frames: list[Any], token: bytes) -> Any:
    return from_sent(header, frames)


def _frame(frame: Any) -> Frame:
    # An array that was pickled, in C order. One of dates has no memory to look at.
    if isinstance(frame, np.ndarray) and not frame.flags.forc:
        return frame
    if isinstance(frame, np.ndarray) and frame.flags.c_contiguous:
        return frame.reshape(-1).view(np.uint8).data
    return of_its_owner(ensure_memoryview(frame))


def _dump(value: Any, context: Any = None) -> tuple[dict[str, Any], list[Any]]:
    if type(value) in _ATOMS:
        raise NotImplementedError
    protocol = (context or {}).get("pickle-protocol") or pickle.HIGHEST_PROTOCOL
    stream, buffers, writable = serialize(value, protocol=protocol)
    return {"writable": writable}, [stream, *buffers]


def _load(header: dict[str, Any], frames: list[Any]) -> Any:
    views = [memoryview(frame) for frame in frames[1:]]
    # Dask's own: what it raises here is the user's error.
    return dask_pickle.loads(
        frames[0],
        buffers=[
            bytearray(view) if writable and view.readonly else view
            for view, writable in zip(views, header["writable"], strict=True)
        ],
    )


# For all that may read it: whoever reads references imports this.
register_family(PICKLE_FAMILY, _dump, _load)
