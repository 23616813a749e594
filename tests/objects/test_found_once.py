"""What takes long to weigh is weighed once for a graph, and not too heavy."""

from __future__ import annotations

import collections
import decimal
import pickle

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from dask._task_spec import Task

from daskps.graph.census import weigh
from daskps.objects import sizes
from daskps.objects.pickles import Pickles
from daskps.objects.sizes import nbytes_of


def dicts(n):
    return [{"id": i, "name": f"name {i}"} for i in range(n)]


def frame(n):
    return pd.DataFrame({"x": np.arange(n), "items": pd.Series(dicts(n), dtype=object)})


def cells(n):
    array = np.empty(n, dtype=object)
    array[:] = dicts(n)
    return array


@pytest.mark.parametrize(
    ("make", "name"),
    [(dicts, "_summary"), (frame, "frame_nbytes"), (cells, "_array_nbytes")],
)
def test_a_value_in_a_graph_is_weighed_once(monkeypatch, make, name):
    values = [make(20_000) for _ in range(3)]
    asked = collections.Counter()
    find = getattr(sizes, name)

    def counting(value, *args, **kwargs):
        asked[id(value)] += 1
        return find(value, *args, **kwargs)

    monkeypatch.setattr(sizes, name, counting)
    weight = weigh([Task(f"key-{i}", len, v) for i, v in enumerate(values)])
    assert len(list(weight.heavy(64 << 10))) == len(values)
    assert not weight.has(100 << 20)
    for value in values:
        assert nbytes_of(value, weight.pickles) > 64 << 10
    assert [asked[id(value)] for value in values] == [1, 1, 1]


def test_what_is_within_a_frame_is_not_kept_beside_it():
    pickles = Pickles()
    value = frame(2000)
    nbytes_of(value, pickles)
    assert list(pickles._found) == [id(value)]


ARROW = {
    "lists": ([[1, 2]] * 20_000, pa.list_(pa.int64())),
    "bytes": ([b"x" * 1000] * 500, pa.binary()),
    "decimals": ([decimal.Decimal("1.5")] * 20_000, pa.decimal128(10, 2)),
    "structures": ([{"a": 1, "b": 2.0}] * 20_000, None),
}


@pytest.mark.parametrize("name", ARROW)
def test_columns_of_arrow_have_the_size_of_their_buffers(name):
    values, type_ = ARROW[name]
    array = pa.array(values, type_)
    series = pd.Series(array, dtype=pd.ArrowDtype(array.type))
    pickled = len(pickle.dumps(series, protocol=5))
    assert 0.5 < nbytes_of(series) / pickled < 1.5


@pytest.mark.parametrize("missing", [pd.NA, np.nan])
def test_strings_in_python(missing):
    texts = [f"{i:01000}" for i in range(2000)]
    dtype = pd.StringDtype("python", na_value=missing)
    series = pd.Series(texts, dtype=dtype)
    pickled = len(pickle.dumps(series, protocol=5))
    assert 0.9 < nbytes_of(series) / pickled < 1.1
