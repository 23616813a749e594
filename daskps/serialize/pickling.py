"""Pickle as Dask does, and hand out what plain pickle would copy. Runs everywhere.

Pickle gives the memory of a contiguous array as a buffer. What it copies into its stream
instead, although a buffer would do, is treated here:

``bytes``
    Alone or in a list.
Arrays that are not contiguous
    Such as the blocks of ``dask.array.from_array(x, chunks=(512, 512))``, and the rows of a
    frame that ``dask.dataframe.from_pandas`` takes.
Slices of Arrow data
    Pickling one writes all of what it was sliced from.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import weakref
from collections import ChainMap
from collections.abc import Callable
from pickle import PickleBuffer
from typing import Any

import cloudpickle
import numpy as np
from distributed.protocol import pickle as dask_pickle

from daskps.lazy import loaded
from daskps.serialize.frames import of_its_owner

# Below these sizes (bytes), pickle's own copy costs less than a buffer.
OUT_OF_BAND_NBYTES = 1 << 16
STRIDED_OUT_OF_BAND_NBYTES = 1 << 14
# How much of what a slice refers to may lie outside of it, as a share, before it is cut out.
ARROW_SLACK = 1.1

_reducers: dict[type, Callable[[Any], Any]] = {}
# Arrays that are to take the place of the (empty) buffers that pickle got for them.
_strided: weakref.WeakKeyDictionary[PickleBuffer, np.ndarray]
_strided = weakref.WeakKeyDictionary()


def dump(
    value: Any,
    buffers: list[Any],
    protocol: int = pickle.HIGHEST_PROTOCOL,
) -> bytes:
    """Pickle a value, large memory out of band.

    Parameters
    ----------
    value
        Anything that Dask can send.
    buffers
        Buffers are added to this list, in order: flat memoryviews of bytes, and arrays
        that are not contiguous, whose bytes are meant in C order.
    protocol
        What Dask would use. Before 5, pickle copies arrays, and what is read from a copy
        may be written to, is in this machine's byte order, and in C or Fortran order.

    Returns
    -------
    bytes
        The pickle without the buffers.

    Raises
    ------
    Exception
        Whatever pickling raises.

    Notes
    -----
    Thread-safe. The order of attempts is that of ``distributed.protocol.pickle.dumps``:
    pickle, then cloudpickle if that fails or something of ``__main__`` is in it.
    """
    start = len(buffers)
    try:
        return _pickled(value, buffers, protocol)[0]
    except Exception:
        # Types that only distributed's serialisers know.
        del buffers[start:]
        take = _taker(buffers)
        value = _wrap_bytes(value)
        by_dask: bytes = dask_pickle.dumps(value, buffer_callback=take, protocol=5)
        return by_dask


def dump_and_meet(
    value: Any, buffers: list[Any]
) -> tuple[bytes, Callable[[], list[Any]]]:
    """The same, and which objects the pickle has once, however often they occur in it.

    Returns
    -------
    bytes
        The pickle without the buffers.
    callable
        Gives the objects. They are kept for as long as it exists.

    Raises
    ------
    Exception
        Whatever pickling raises.
    """
    stream, pickler = _pickled(value, buffers)
    # The pickler has not seen these themselves.
    wrapped = value if type(value) in (list, tuple) else ()

    def met() -> list[Any]:
        known = [thing for _, thing in pickler.memo.copy().values()]
        return [*known, *filter(_is_large_bytes, wrapped)]

    return stream, met


def _pickled(
    value: Any, buffers: list[Any], protocol: int = pickle.HIGHEST_PROTOCOL
) -> tuple[bytes, Any]:
    _know_arrow()
    start = len(buffers)
    value = _wrap_bytes(value)
    try:
        stream, pickler = _dump_with(_PICKLERS[protocol >= 5], value, buffers)
        if b"__main__" not in stream and not _module_by_value(value):
            return stream, pickler
    except Exception:
        pass  # cloudpickle can do more, and says why not
    del buffers[start:]
    return _dump_with(_BY_VALUE_PICKLERS[protocol >= 5], value, buffers)


class _Pickler(pickle.Pickler):
    dispatch_table = ChainMap[type, Callable[[Any], Any]](
        _reducers, copyreg.dispatch_table
    )


class _ByValuePickler(cloudpickle.Pickler):
    dispatch_table = ChainMap(_reducers, *cloudpickle.Pickler.dispatch_table.maps)


# By whether arrays come as they are, or as copies.
_copying: dict[type, Callable[[Any], Any]] = {}


class _CopyingPickler(pickle.Pickler):
    dispatch_table = ChainMap(_copying, *_Pickler.dispatch_table.maps)


class _CopyingByValuePickler(cloudpickle.Pickler):
    dispatch_table = ChainMap(_copying, *_ByValuePickler.dispatch_table.maps)


_PICKLERS = _CopyingPickler, _Pickler
_BY_VALUE_PICKLERS = _CopyingByValuePickler, _ByValuePickler


def _dump_with(type_: type[Any], value: Any, buffers: list[Any]) -> tuple[bytes, Any]:
    """The pickle, and the pickler, which has met the objects in it."""
    with io.BytesIO() as file:
        pickler = type_(file, protocol=5, buffer_callback=_taker(buffers))
        pickler.dump(value)
        return file.getvalue(), pickler


def _taker(buffers: list[Any]) -> Callable[[PickleBuffer], None]:
    def take(buffer: PickleBuffer) -> None:
        array = _strided.pop(buffer, None)
        buffers.append(of_its_owner(buffer.raw()) if array is None else array)

    return take


def _module_by_value(value: Any) -> bool:
    registered = cloudpickle.list_registry_pickle_by_value()
    return bool(registered) and getattr(value, "__module__", None) in registered


class Reduced:
    """Pickles as a call of `function` with `args`."""

    def __init__(self, function: Any, *args: Any):
        self.reduced = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


# bytes


def _wrap_bytes(value: Any) -> Any:
    if type(value) is bytes:
        return Reduced(bytes, PickleBuffer(value))
    if type(value) in (list, tuple) and any(map(_is_large_bytes, value)):
        large = {id(v): v for v in value if _is_large_bytes(v)}
        # One wrapper for each object, so that what was shared stays shared.
        wrapped = {i: Reduced(bytes, PickleBuffer(v)) for i, v in large.items()}
        return type(value)(wrapped.get(id(v), v) for v in value)
    return value


def _is_large_bytes(value: Any) -> bool:
    return type(value) is bytes and len(value) >= OUT_OF_BAND_NBYTES


# Arrays


def _reduce_array(array: np.ndarray) -> Any:
    small = array.nbytes < STRIDED_OUT_OF_BAND_NBYTES or array.dtype.hasobject
    # Pickle writes a broadcast array out in full, and another byte order as this machine's.
    if small or is_dense(array) or is_broadcast(array) or not array.dtype.isnative:
        return array.__reduce_ex__(5)
    return _reduce_as_copy(array)


def _reduce_as_copy(array: np.ndarray) -> Any:
    """Have the array come as a copy in C order, which is not made here."""
    # Pickle refuses a strided buffer, so it gets an empty one. What plain pickle makes of
    # it is a copy, which may be written to even if the array may not.
    stand_in = PickleBuffer(bytearray())
    _strided[stand_in] = array
    return _array_from_bytes, (stand_in, array.dtype, array.shape)


def _copy_array(array: np.ndarray) -> Any:
    """Do as pickle did before protocol 5."""
    small = array.nbytes < STRIDED_OUT_OF_BAND_NBYTES or array.dtype.hasobject
    # NumPy decides what becomes of fields in another order.
    if small or (array.dtype.kind == "V" and not array.dtype.isnative):
        return array.__reduce__()
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.flags.fnc:  # Fortran and not C
        return _transpose, (array.T,)
    return _reduce_as_copy(array)


def _transpose(array: np.ndarray) -> np.ndarray:
    return array.T


def is_dense(array: np.ndarray) -> bool:
    """Whether it is contiguous, its axes in some order.

    NumPy keeps that order (2.4), or else does as it does for any array.
    """
    axes = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
    return array.transpose(axes).flags.c_contiguous


def is_broadcast(value: Any) -> bool:
    """Whether a value is an array that shows the same memory several times."""
    return isinstance(value, np.ndarray) and 0 in value.strides


def _array_from_bytes(
    buffer: Any, dtype: np.dtype, shape: tuple[int, ...]
) -> np.ndarray:
    return np.ndarray(shape, dtype=dtype, buffer=buffer)


_reducers[np.ndarray] = _reduce_array
_copying[np.ndarray] = _copy_array


# Arrow


def _know_arrow() -> None:
    """Treat Arrow's types too, once there may be objects of them."""
    pa = loaded("pyarrow")
    if pa is None or pa.Table in _reducers:
        return
    types = [pa.RecordBatch, pa.ChunkedArray, *_subclasses(pa.Array), pa.Table]
    _reducers.update(dict.fromkeys(types, _reduce_arrow))


def _subclasses(type_: type) -> set[type]:
    direct: set[type] = set(type_.__subclasses__())
    return direct.union(*map(_subclasses, direct))


def _reduce_arrow(data: Any) -> Any:
    import pyarrow as pa

    if (
        data.get_total_buffer_size()
        <= ARROW_SLACK * data.nbytes + STRIDED_OUT_OF_BAND_NBYTES
    ):
        return data.__reduce_ex__(5)
    if isinstance(data, pa.Table):
        table = data
    elif isinstance(data, pa.RecordBatch):
        table = pa.Table.from_batches([data])
    else:
        table = pa.table({"": data})
    if any("extension<" in str(type_) for type_ in table.schema.types):
        return data.__reduce_ex__(5)  # the reader may not know the type by its name
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return _arrow_from_bytes, (type(data), PickleBuffer(sink.getvalue()))


def _arrow_from_bytes(type_: Any, buffer: Any) -> Any:
    import pyarrow as pa

    table = pa.ipc.open_stream(pa.py_buffer(buffer)).read_all()
    if issubclass(type_, pa.Table):
        return table
    if issubclass(type_, pa.RecordBatch):
        batches = table.combine_chunks().to_batches()
        return batches[0] if batches else type_.from_pylist([], schema=table.schema)
    column = table.column(0)
    if issubclass(type_, pa.ChunkedArray):
        return column
    array = column.combine_chunks()
    # A single chunked array was one array before.
    return array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
