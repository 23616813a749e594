"""A value as a short stream and large buffers, and back. Runs everywhere.

Values inside a Dask graph are pickled, so that is what decides what a task receives: types,
dtypes, shared references, and whether an array may be written to. daskps pickles as Dask
does (:mod:`daskps.serialize.pickling`), and takes the buffers out of band (:pep:`574`), so
that large memory is neither copied nor joined on its way to a store.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from pickle import PickleBuffer
from typing import Any, NamedTuple

import numpy as np
from distributed.protocol import pickle

from daskps.serialize.frames import Frame, contiguous_parts
from daskps.serialize.pickling import Reduced, dump, dump_and_meet


class Serialized(NamedTuple):
    """One value, serialised.

    Attributes
    ----------
    stream
        The pickle, without the buffers.
    buffers
        What the pickle refers to, in order.
    writable
        For each buffer, whether the value may write to it.
    """

    stream: bytes
    buffers: list[Frame]
    writable: list[bool]

    @property
    def nbytes(self) -> int:
        """Bytes in all."""
        return len(self.stream) + sum(
            b.nbytes if isinstance(b, (memoryview, np.ndarray)) else len(b)
            for b in self.buffers
        )


def serialize(value: Any, *, protocol: int = pickle.HIGHEST_PROTOCOL) -> Serialized:
    """Serialise a value without copying its large parts.

    The buffers refer to the value's own memory: use them before it changes.

    Parameters
    ----------
    value
        Anything.
    protocol
        As for :func:`daskps.serialize.pickling.dump`.

    Raises
    ------
    Exception
        Whatever pickling raises.
    """
    buffers: list[Any] = []
    stream = dump(value, buffers, protocol)
    return Serialized(stream, buffers, _writable(buffers))


def serialize_and_meet(value: Any) -> tuple[Serialized, Callable[[], list[Any]]]:
    """The same, and what gives the objects that were met.

    See :func:`daskps.serialize.pickling.dump_and_meet`.
    """
    buffers: list[Any] = []
    stream, met = dump_and_meet(value, buffers)
    return Serialized(stream, buffers, _writable(buffers)), met


def _writable(buffers: list[Any]) -> list[bool]:
    # An array is here what pickle would copy.
    return [isinstance(b, np.ndarray) or not b.readonly for b in buffers]


def serialize_method(name: str, owner: Serialized) -> Serialized:
    """Serialise a bound method of an object that is serialised already.

    Parameters
    ----------
    name
        The method's.
    owner
        The object.
    """
    buffers = [
        b if isinstance(b, np.ndarray) else PickleBuffer(b) for b in owner.buffers
    ]
    unpickled = Reduced(deserialize, PickleBuffer(owner.stream), buffers)
    serialized = serialize(Reduced(getattr, unpickled, name))
    # The first buffer is the owner's stream.
    return serialized._replace(writable=[False, *owner.writable])


def deserialize(
    stream: bytes | memoryview, buffers: Iterable[bytes | bytearray | memoryview]
) -> Any:
    """Make the value again.

    Parameters
    ----------
    stream, buffers
        As in :class:`Serialized`. A buffer that the value may write to must be writable,
        and used for this value only: the value keeps it.
    """
    return pickle.loads(stream, buffers=list(buffers))


# One value as one run of bytes, for what goes through a ProxyStore Store as it is (proxies
# made by hand): MAGIC, number of buffers, length of the stream, then length and
# writability of each buffer; then stream and buffers, each aligned.
_MAGIC = b"dkps"
_ALIGNMENT = 64
_HEAD = struct.Struct("<4sIQ")
_BUFFER = struct.Struct("<Q?")


def to_bytes(value: Any) -> bytes:
    """Serialise a value to one run of bytes: the ``serializer`` of daskps's stores."""
    stream, buffers, writable = serialize(value)
    parts = [memoryview(p) for b in buffers for p in _one_part(b)]
    head = _HEAD.pack(_MAGIC, len(parts), len(stream))
    for part, w in zip(parts, writable, strict=True):
        head += _BUFFER.pack(part.nbytes, w)
    out: list[bytes | memoryview] = [head]
    position = len(head)
    for part in (memoryview(stream), *parts):
        padding = -position % _ALIGNMENT
        out += [bytes(padding), part.cast("B")]
        position += padding + part.nbytes
    return b"".join(out)


def _one_part(frame: Frame) -> list[Any]:
    if not isinstance(frame, np.ndarray):
        return [frame]
    return list(contiguous_parts(np.ascontiguousarray(frame)))


def is_ours(data: bytes | bytearray | memoryview) -> bool:
    """Whether :func:`to_bytes` has written these bytes."""
    return memoryview(data)[: len(_MAGIC)] == _MAGIC


def from_bytes(data: bytes | bytearray | memoryview) -> Any:
    """The value that :func:`to_bytes` serialised: the ``deserializer``.

    Raises
    ------
    ValueError
        If the bytes were not written by :func:`to_bytes`, or were cut short.
    """
    view = memoryview(data)
    try:
        magic, count, length = _HEAD.unpack_from(view)
        sizes = [
            _BUFFER.unpack_from(view, _HEAD.size + i * _BUFFER.size)
            for i in range(count)
        ]
    except struct.error:
        magic = b""
    if magic != _MAGIC:
        raise ValueError("these bytes are not a value that daskps stored, or cut short")
    position = _HEAD.size + count * _BUFFER.size
    parts: list[Any] = []
    for nbytes, writable in ((length, False), *sizes):
        position += -position % _ALIGNMENT
        part = view[position : position + nbytes]
        if part.nbytes != nbytes:
            raise ValueError("this value was cut short")
        parts.append(bytearray(part) if writable and part.readonly else part)
        position += nbytes
    return deserialize(parts[0], parts[1:])
