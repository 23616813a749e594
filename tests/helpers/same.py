"""Whether two values are the same to a program, in all that it can see.

A value is described as text and numbers: types, dtypes, the order in memory of arrays and
whether they may be written to, attributes, and which objects within are one. Descriptions
can be made where the value is, and compared elsewhere.
"""

from __future__ import annotations

import copyreg
import functools
import hashlib
import operator
import sys
from collections.abc import Callable, Collection
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Address
from itertools import chain
from pathlib import PurePosixPath
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MethodType,
    MethodWrapperType,
    ModuleType,
)
from typing import Any
from uuid import UUID

import numpy as np

#: Nested tuples of strings and numbers.
Description = Any

# Nobody can tell equal ones apart, and their texts say all.
_SIMPLE = {
    *(int, float, complex, bool, str, bytes, type(None)),
    *(np.float64, np.float32, np.int64, np.int32, np.bool_, np.str_, np.bytes_),
    *(Fraction, Decimal, UUID, IPv4Address, PurePosixPath),
    *(datetime, date, timedelta),
}
_LONG = 100
_NOTICED = ("has_canonical_format", "_has_sorted_indices")
_VIEWS = (type({}.keys()), type({}.values()), type({}.items()))


def assert_same(ours: Any, theirs: Any) -> None:
    """Fail unless two values are the same to a program."""
    assert describe(ours) == describe(theirs)


def digest(value: Any) -> str:
    """A short text that differs for values that differ."""
    return _hash(repr(describe(value)).encode())


def describe(value: Any) -> Description:
    """All that a program can see of a value."""
    return _Describer()(value)


def _hash(data: Any) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


class _Describer:
    def __init__(self) -> None:
        # By id: the objects that were described, which are kept alive, and their numbers.
        self._seen: dict[int, tuple[Any, int]] = {}

    def __call__(self, value: Any) -> Description:
        type_ = type(value)
        if type_ in _SIMPLE:
            return _simple(value)
        if type_ in (tuple, list) and _all_simple(value):
            return self._once(value) or (type_.__name__, *_simples(value))
        return self._once(value) or (_name(type_), *self._contents(type_, value))

    def _once(self, value: Any) -> Description | None:
        """A reference to what was described before, if the value was."""
        # Nobody can tell equal tuples and functions apart, and Python has some of them once.
        if isinstance(value, (tuple, frozenset, np.dtype, FunctionType)):
            return None
        if id(value) in self._seen:
            return ("the same as", self._seen[id(value)][1])
        self._seen[id(value)] = value, len(self._seen)
        return None

    def _contents(self, type_: type, value: Any) -> tuple[Any, ...]:
        if type_ in _PLAIN_TYPES:
            return tuple(_PLAIN_TYPES[type_](self, value))
        for base, contents in _CONTENTS.items():
            if issubclass(type_, base):
                return tuple(contents(self, value))
        library = type_.__module__.partition(".")[0]
        for base_name, contents in _CONTENTS_OF_LIBRARIES.get(library, {}).items():
            if base_name in (b.__name__ for b in type_.__mro__):
                return tuple(contents(self, value))
        return self._reduced(value)

    def all(self, values: Any) -> tuple[Description, ...]:
        return tuple(map(self, values))

    def items(self, mapping: Any) -> tuple[Description, ...]:
        if _all_simple(mapping) and _all_simple(mapping.values()):
            return _simples(mapping.items())
        return tuple((self(k), self(v)) for k, v in mapping.items())

    def _reduced(self, value: Any) -> tuple[Any, ...]:
        """As pickle takes it apart."""
        reduce = copyreg.dispatch_table.get(type(value))
        reduced = reduce(value) if reduce else value.__reduce_ex__(4)
        if isinstance(reduced, str):
            return (reduced,)
        func, args, *rest = reduced
        state, items, pairs = (*rest, None, None, None)[:3]
        return (
            self(func),
            self.all(args),
            self(state),
            self.all(items or ()),
            tuple((self(k), self(v)) for k, v in pairs or ()),
        )


def _name(type_: type) -> str:
    builtin = type_.__module__ == "builtins"
    return type_.__qualname__ if builtin else f"{type_.__module__}.{type_.__qualname__}"


def _all_simple(values: Collection[Any]) -> bool:
    """Whether there are only simple values, and tuples of such."""
    types = set(map(type, values))
    if tuple in types:
        tuples = (v for v in values if type(v) is tuple)
        inside = set(map(type, chain.from_iterable(tuples)))
        types = types - {tuple} | inside
    return types <= _SIMPLE


def _simple(value: Any) -> Description:
    if type(value) is int:
        text = hex(value)
    elif isinstance(value, (str, bytes)) and len(value) > _LONG:
        data = value.encode("utf-8", "surrogatepass") if type(value) is str else value
        text = f"{len(value)}: {_hash(data)}"
    else:
        text = repr(value)
    return f"{type(value).__name__} {text}"


def _simples(values: Any) -> tuple[Any, ...]:
    def each() -> tuple[Any, ...]:
        return tuple(_simples(v) if type(v) is tuple else _simple(v) for v in values)

    if len(values) <= _LONG:
        return each()
    try:
        text = repr(list(values))
    except ValueError:  # of an int with thousands of digits
        return each()
    return len(values), _hash(text.encode("utf-8", "surrogatepass"))


_Contents = Callable[[_Describer, Any], Any]


def _of_array(d: _Describer, array: np.ndarray) -> Any:
    flags = array.flags
    yield str(array.dtype.descr if array.dtype.names else array.dtype.str)
    yield array.shape
    yield "".join(
        name
        for name, flag in (
            ("C", flags.c_contiguous),
            ("F", flags.f_contiguous),
            ("W", flags.writeable),
        )
        if flag
    )
    if isinstance(array, np.ma.MaskedArray):
        yield array.mask is np.ma.nomask
        yield d(np.ma.getmaskarray(array))
        yield repr(array.fill_value), bool(array.hardmask)
        yield _content(d, array.data.view(np.ndarray))
        return
    yield _content(d, array.view(np.ndarray))
    if vars := getattr(array, "__dict__", None):
        yield d(vars)


def _content(d: _Describer, array: np.ndarray) -> Description:
    if array.dtype.names:
        # Not the bytes between the fields, which nobody reads.
        return tuple((name, _content(d, array[name])) for name in array.dtype.names)
    if array.dtype.hasobject or array.dtype.kind == "T":
        return d(array.ravel().tolist())
    return _hash(np.ascontiguousarray(array).view("V").tobytes())


def _of_function(d: _Describer, function: Any) -> Any:
    yield function.__module__, function.__qualname__
    module = sys.modules.get(function.__module__ or "")
    try:
        if operator.attrgetter(function.__qualname__)(module) is function:
            return
    except AttributeError:
        pass
    code = function.__code__
    yield d(code)
    yield d.all(cell.cell_contents for cell in function.__closure__ or ())
    yield d(function.__defaults__), d(function.__kwdefaults__), d(function.__dict__)
    names = function.__globals__
    yield tuple((name, d(names[name])) for name in code.co_names if name in names)


def _of_code(d: _Describer, code: CodeType) -> Any:
    yield code.co_name, _hash(code.co_code), code.co_varnames
    yield d.all(code.co_consts)


def _of_type(d: _Describer, type_: type) -> Any:
    yield _name(type_)
    if "<locals>" in type_.__qualname__:
        for name, value in vars(type_).items():
            if not (
                name.startswith("_") or callable(value) or hasattr(value, "__get__")
            ):
                yield name, d(value)


def _of_set(d: _Describer, values: Any) -> Any:
    yield tuple(sorted(map(repr, d.all(values))))
    yield d(getattr(values, "__dict__", None))


def _of_dict(d: _Describer, values: Any) -> Any:
    yield d.items(values)


def _of_series(d: _Describer, series: Any) -> Any:
    yield d(series.name), d(series.attrs), series.flags.allows_duplicate_labels
    yield d(series.index)
    yield from _of_cells(d, series.array)


def _of_frame(d: _Describer, frame: Any) -> Any:
    yield d(frame.attrs), frame.flags.allows_duplicate_labels
    yield d(frame.index), d(frame.columns)
    yield tuple(
        tuple(_of_cells(d, frame.iloc[:, i].array)) for i in range(frame.shape[1])
    )
    yield tuple((name, d(getattr(frame, name))) for name in frame._metadata)


def _of_index(d: _Describer, index: Any) -> Any:
    yield d(list(index.names))
    if hasattr(index, "levels"):
        yield d.all(index.levels), d.all(map(np.asarray, index.codes))
    elif hasattr(index, "step"):
        yield index.start, index.stop, index.step
    else:
        yield repr(getattr(index, "freq", None))
        yield from _of_cells(d, index.array)


def _of_cells(d: _Describer, cells: Any) -> Any:
    """An array of pandas."""
    yield _name(type(cells))
    if hasattr(cells, "categories"):
        yield d(cells.categories), d(np.asarray(cells.codes)), bool(cells.ordered)
        return
    yield str(cells.dtype)
    for inside in (
        ("_ndarray",),
        ("_data", "_mask"),
        ("_pa_array",),
        ("sp_values", "sp_index", "fill_value"),
        ("left", "right"),
    ):
        if all(hasattr(cells, name) for name in inside):
            for name in inside:
                part = getattr(cells, name)
                indices = getattr(part, "indices", None)
                yield d(part if indices is None else indices)
            return
    yield d.all(cells)


def _of_arrow(d: _Describer, data: Any) -> Any:
    for name in "schema", "type":
        if hasattr(data, name):
            yield str(getattr(data, name))
    values = data.to_pylist() if hasattr(data, "to_pylist") else [data.as_py()]
    yield _hash(repr(values).encode("utf-8", "surrogatepass"))
    if hasattr(data, "dictionary") and hasattr(data, "indices"):
        yield d(data.dictionary)


def _of_sparse(d: _Describer, matrix: Any) -> Any:
    # Not what it has noticed about itself so far.
    yield d({k: v for k, v in vars(matrix).items() if not k.endswith(_NOTICED)})


def _of_xarray(d: _Describer, data: Any) -> Any:
    yield d(getattr(data, "name", None)), d(dict(data.attrs)), d(dict(data.encoding))
    yield dict(data.sizes).__repr__()
    if hasattr(data, "data_vars"):
        yield tuple((d(name), d(v.variable)) for name, v in data.data_vars.items())
    else:
        yield d(getattr(data, "variable", data).data)
    if hasattr(data, "coords"):
        yield tuple((d(name), d(v.variable)) for name, v in data.coords.items())


def _of_variable(d: _Describer, data: Any) -> Any:
    yield repr(data.dims), d(dict(data.attrs)), d(dict(data.encoding)), d(data.values)


_CONTENTS: dict[Any, _Contents] = {
    np.ndarray: _of_array,
    np.dtype: lambda d, dtype: [str(dtype.descr if dtype.names else dtype.str)],
    FunctionType: _of_function,
    (BuiltinFunctionType, MethodWrapperType): lambda d, f: [
        f.__qualname__,
        None if isinstance(f.__self__, ModuleType) else d(f.__self__),
    ],
    MethodType: lambda d, m: [d(m.__func__), d(m.__self__)],
    functools.partial: lambda d, p: [d(p.func), d.all(p.args), d(p.keywords)],
    CodeType: _of_code,
    ModuleType: lambda d, module: [module.__name__],
    type: _of_type,
    memoryview: lambda d, view: [
        view.format,
        view.shape,
        view.readonly,
        d(bytes(view)),
    ],
    _VIEWS: lambda d, view: [d.all(view)],
    BaseException: lambda d, e: [d.all(e.args), d(e.__dict__)],
}
# These have what pickle takes apart in no order, or more than a program can see.
_PLAIN_TYPES: dict[type, _Contents] = {
    set: _of_set,
    frozenset: _of_set,
    dict: _of_dict,
    list: lambda d, values: [d.all(values)],
    tuple: lambda d, values: [d.all(values)],
    slice: lambda d, s: [d(s.start), d(s.stop), d(s.step)],
    bytearray: lambda d, data: [len(data), _hash(data)],
}
_CONTENTS_OF_LIBRARIES: dict[str, dict[str, _Contents]] = {
    # What it pickles besides has bytes in it that were never set.
    "scipy": {
        "KDTree": lambda d, tree: [d(tree.data), d(tree.indices)],
        "_spbase": _of_sparse,
    },
    "pandas": {"DataFrame": _of_frame, "Series": _of_series, "Index": _of_index},
    "geopandas": {"DataFrame": _of_frame, "Series": _of_series},
    "pyarrow": dict.fromkeys(
        ("Table", "RecordBatch", "Array", "ChunkedArray", "Scalar"), _of_arrow
    ),
    "xarray": {
        "DataArray": _of_xarray,
        "Dataset": _of_xarray,
        "Variable": _of_variable,
    },
}
