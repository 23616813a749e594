"""Results of every kind come by reference, and are what plain Dask gives."""

from __future__ import annotations

import array
import collections
import dataclasses
import functools
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from distributed import wait
from processes import released
from relayed import Received

import daskps

NBYTES = 2 << 20


class Box:
    """An ordinary instance."""

    def __init__(self, content):
        self.content = content


class Slotted:
    __slots__ = ("content",)

    def __init__(self, content):
        self.content = content


class Counted(dict):
    """A dictionary with something more."""


class InItsOwnWay:
    """Says itself how it is pickled."""

    def __init__(self, content):
        self.content = content

    def __reduce__(self):
        return InItsOwnWay, (self.content,)


Pair = collections.namedtuple("Pair", ["first", "second"])


@dataclasses.dataclass
class TaskResult:
    """What the tasks of some task servers return."""

    value: Any
    info: dict


def numbers(nbytes=NBYTES, dtype="f8"):
    return np.random.default_rng(0).integers(0, 99, nbytes // 8).astype(dtype)


def text(nbytes=NBYTES):
    return "".join(map(chr, np.random.default_rng(0).integers(32, 126, nbytes)))


def read_only(x):
    x.flags.writeable = False
    return x


def rows(n=20_000):
    return pd.DataFrame(
        {"a": numbers(8 * n), "name": [f"name {i} of many" for i in range(n)]}
    )


def on_bytes(x):
    """An array whose memory is a bytes object."""
    return np.frombuffer(x.tobytes(), x.dtype)


def with_default(value):
    return lambda x=value: x


# Looked for where tests run: to skip one within a task would end the worker's thread.
OF_LIBRARIES = {
    "sparse matrix": "scipy.sparse",
    "Arrow table": "pyarrow",
    "dataset": "xarray",
    "dataset on bytes": "xarray",
}


def dataset(values):
    import xarray as xr

    return xr.Dataset({"x": ("i", values), "y": ("i", values)})


def sparse_matrix():
    import scipy.sparse as scipy_sparse

    return scipy_sparse.random(1 << 10, 1 << 10, 0.2, "csr", random_state=0)


def table():
    import pyarrow as pa

    return pa.table({"x": numbers(), "y": numbers()})


SQUARE = 1 << 9

KINDS = {
    "bytes": lambda: text().encode(),
    "bytearray": lambda: bytearray(text().encode()),
    "memoryview": lambda: memoryview(text().encode()),
    "str": text,
    "str beyond Latin": lambda: "\u4e00" * (NBYTES // 2),
    "array.array": lambda: array.array("d", numbers().tolist()),
    "list of bytes": lambda: [text(NBYTES // 4).encode() for _ in range(4)],
    "list of many small arrays": lambda: list(numbers().reshape(64, -1)),
    "list of strings": lambda: [f"string number {i}" * 8 for i in range(20_000)],
    "set": lambda: {f"string number {i}" * 20 for i in range(9_000)},
    "frozenset": lambda: frozenset(f"string number {i}" * 20 for i in range(9_000)),
    "dict": lambda: {i: f"string number {i}" * 20 for i in range(9_000)},
    "dict of arrays": lambda: {"a": numbers(), "b": [numbers()]},
    "dict with keys of all kinds": lambda: {(1, "a"): numbers(), None: numbers()},
    "tuple": lambda: (1, None, numbers(), "text"),
    "named tuple": lambda: Pair(numbers(), text(99)),
    "nested": lambda: [[numbers()], {"a": (numbers(), [1, 2])}, 3],
    "the same twice": lambda: [numbers()] * 2,
    "the same twice within": lambda: Box([numbers()] * 2),
    "instance": lambda: Box(numbers()),
    "instance of many parts": lambda: Box(list(numbers().reshape(64, -1))),
    "instance with text": lambda: Box({"text": text()}),
    "instance with bytes": lambda: Box(text().encode()),
    "slotted": lambda: Slotted(numbers()),
    "in its own way": lambda: InItsOwnWay(numbers()),
    "dataclass": lambda: TaskResult(numbers(), {"seconds": 1.5}),
    "dictionary with more": lambda: Counted(a=numbers(), b=2),
    "default dictionary": lambda: collections.defaultdict(list, a=numbers()),
    "deque": lambda: collections.deque([numbers(), text(99)]),
    "partial": lambda: functools.partial(np.add, numbers()),
    "closure": lambda: with_default(numbers()),
    "error": lambda: ValueError(text()),
    "pickle": lambda: pickle.dumps(numbers()),
    "array": numbers,
    "read-only array": lambda: read_only(numbers()),
    "array on bytes": lambda: on_bytes(numbers()),
    "array in an instance, on bytes": lambda: Box(on_bytes(numbers())),
    "read-only array in a list": lambda: [read_only(numbers()), on_bytes(numbers())],
    "read-only array in an instance": lambda: Box(read_only(numbers())),
    "array of another byte order": lambda: numbers(dtype=">f8"),
    "another byte order, within": lambda: Box([numbers(dtype=">f8")]),
    "another byte order, in a list": lambda: [numbers(dtype=">f8")],
    "array in Fortran's order": lambda: np.asfortranarray(
        numbers().reshape(SQUARE, -1)
    ),
    "Fortran's order, within": lambda: Box(
        [np.asfortranarray(numbers().reshape(SQUARE, -1))]
    ),
    "transposed axes": lambda: numbers().reshape(64, 8, -1).transpose(1, 0, 2),
    "transposed axes, within": lambda: Box(
        numbers().reshape(64, 8, -1).transpose(1, 0, 2)
    ),
    "strided array": lambda: numbers(4 * NBYTES).reshape(2 * SQUARE, -1)[::2, ::2],
    "strided array, within": lambda: Box(
        numbers(4 * NBYTES).reshape(2 * SQUARE, -1)[::2, ::2]
    ),
    "read-only strided array": lambda: {
        "x": read_only(numbers(4 * NBYTES).reshape(2 * SQUARE, -1)[::2, ::2])
    },
    "reversed array": lambda: numbers()[::-1],
    "structured array": lambda: numbers().view([("a", "f4"), ("b", "i4")]),
    "array of dates": lambda: numbers(dtype="i8").view("M8[s]"),
    "array of objects": lambda: np.array(text().split(" "), object),
    "array of strings": lambda: np.array([text(64) for _ in range(20)] * 500),
    "masked array": lambda: np.ma.MaskedArray(numbers(), numbers() > 50),
    "masked array without a mask": lambda: np.ma.MaskedArray(numbers()),
    "matrix": lambda: np.matrix(numbers().reshape(SQUARE, -1)),
    "frame": rows,
    "list of frames": lambda: [rows(), rows()],
    "series": lambda: pd.Series(numbers()),
    "index": lambda: pd.Index(numbers()),
    "categories": lambda: pd.Series(text(30_000).split(" ") * 99, dtype="category"),
    "sparse matrix": sparse_matrix,
    "Arrow table": table,
    "dataset": lambda: dataset(numbers()),
    "dataset on bytes": lambda: dataset(on_bytes(numbers())),
}


def assert_alike(a, b, path="result"):
    """Assert that two values are the same in all that a program can tell."""
    assert type(a) is type(b), path
    for types, check in CHECKS.items():
        if isinstance(a, types):
            check(a, b, path)
            break
    else:
        parts = parts_of(a)
        if parts is None:
            assert a.equals(b) if hasattr(a, "equals") else a == b, path
        else:
            assert_alike(parts, parts_of(b), path)


def check_array(a, b, path):
    if isinstance(a, np.ma.MaskedArray):
        assert_alike([a.data, np.array(a.mask)], [b.data, np.array(b.mask)], path)
    assert (a.dtype, a.shape, a.strides) == (b.dtype, b.shape, b.strides), path
    assert a.dtype.byteorder == b.dtype.byteorder, path
    assert a.flags.writeable == b.flags.writeable, path
    np.testing.assert_array_equal(a, b)


def check_dict(a, b, path):
    assert list(a) == list(b), path
    assert_alike(list(a.values()), list(b.values()), f"{path}.values()")
    assert_alike(getattr(a, "__dict__", None), getattr(b, "__dict__", None), path)


def check_sequence(a, b, path):
    assert len(a) == len(b), path
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        assert_alike(x, y, f"{path}[{i}]")
    if len(a) < 100:
        assert [[x is y for x in a] for y in a] == [[x is y for x in b] for y in b]


def check_series(a, b, path):
    pd.testing.assert_series_equal(a, b)
    flags = [x.to_numpy().flags.writeable for x in (a, b)]
    assert flags[0] == flags[1], path


def check_memory(a, b, path):
    assert (a.format, a.shape, a.readonly) == (b.format, b.shape, b.readonly), path
    assert a == b, path


CHECKS = {
    np.ndarray: check_array,
    dict: check_dict,
    (list, tuple, collections.deque): check_sequence,
    pd.DataFrame: lambda a, b, path: pd.testing.assert_frame_equal(a, b),
    pd.Series: check_series,
    pd.Index: lambda a, b, path: pd.testing.assert_index_equal(a, b),
    memoryview: check_memory,
}


def parts_of(value):
    """What makes up an object; None if it is to be compared as it is."""
    if isinstance(value, functools.partial):
        return [value.args, value.keywords]
    if isinstance(value, BaseException):
        return [value.args]
    if isinstance(value, Slotted):
        return [value.content]
    if isinstance(value, (Box, InItsOwnWay, TaskResult)):
        return vars(value)
    module = type(value).__module__
    if module.startswith("scipy"):
        return [value.data, value.indices, value.indptr]
    if module.startswith("xarray"):
        return [dict(value.sizes), *(v.values for v in value.variables.values())]
    return list(value.__defaults__) if callable(value) else None


def made(kind):
    return KINDS[kind]()


@pytest.fixture(scope="module")
def cluster(own_cluster):
    """Workers go by the threshold of who opened a store, so nobody else has."""
    return own_cluster


@pytest.fixture(scope="module")
def plain(cluster):
    """Results as plain Dask gives them."""

    @functools.cache
    def result(kind):
        with cluster.client(set_as_default=False) as client:
            return client.submit(made, kind, pure=False).result()

    return result


# Whoever uses matrices is warned, as in plain Dask.
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_a_result_of_any_kind_comes_by_reference(client, plain, kind):
    if kind in OF_LIBRARIES:
        pytest.importorskip(
            OF_LIBRARIES[kind], reason="daskps and most tests do without it"
        )
    expected = plain(kind)
    with daskps.proxy_graph():
        future = client.submit(made, kind, pure=False)
        wait(future)
        with Received(client) as received:
            result = future.result()
        assert_alike(result, expected)
        assert received.nbytes < 0.05 * NBYTES
        del future
    assert released(client)
