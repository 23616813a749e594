"""Divisions of pandas frames: those that Dask finds, without its walk over the index."""

from __future__ import annotations

import datetime

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask.dataframe.dask_expr.io import io
from dask.dataframe.io.io import sorted_division_locations
from hypothesis import given, settings
from hypothesis import strategies as st

import daskps
from daskps.graph.divisions import find_divisions

DAYS = st.datetimes(datetime.datetime(1970, 1, 1), datetime.datetime(2200, 1, 1))
VALUES = {
    "int64": st.integers(-(2**63), 2**63 - 1),
    "uint8": st.integers(0, 255),
    "float64": st.floats(allow_nan=False),
    "bool": st.booleans(),
    "datetime64[ns]": DAYS,
    "datetime64[ns, Europe/Vienna]": DAYS.map(lambda t: pd.Timestamp(t, tz="UTC")),
    "timedelta64[ns]": st.timedeltas(
        datetime.timedelta(-9999), datetime.timedelta(9999)
    ),
    "str": st.text(max_size=3),
    "object": st.text(max_size=3),
    "string": st.text(max_size=3),
}


@st.composite
def indexes(draw):
    """Sorted, with and without duplicates, in runs of any length."""
    if draw(st.integers(0, 5)) == 0:
        start, n = draw(st.integers(-9, 9)), draw(st.integers(1, 60))
        return pd.RangeIndex(start, start + n * 3, 3, name="r")
    dtype = draw(st.sampled_from(sorted(VALUES)))
    values = draw(st.lists(VALUES[dtype], min_size=1, max_size=25))
    runs = draw(st.lists(st.integers(1, 6), min_size=len(values), max_size=25))
    if draw(st.booleans()):
        runs = [1] * len(values)
    repeated = [v for v, n in zip(values, runs, strict=False) for _ in range(n)]
    return pd.Index(repeated, dtype=dtype).sort_values()


@settings(deadline=None)
@given(indexes(), st.integers(1, 40), st.booleans())
def test_divisions_are_those_that_dask_finds(index, n, by_size):
    wanted = {"chunksize": n} if by_size else {"npartitions": n}
    divisions, locations = sorted_division_locations(index, **wanted)
    found = find_divisions(index, wanted.get("npartitions"), wanted.get("chunksize"))
    assert found == (divisions, locations)
    assert list(map(type, found[0])) == list(map(type, divisions))
    assert list(map(type, found[1])) == list(map(type, locations))


@pytest.mark.parametrize(
    "index",
    [
        pd.Index([2, 1]),
        pd.Index([1.0, np.nan]),
        pd.Index(["a", None], dtype="str"),
        pd.Index([1, 2], dtype="Int64"),
        pd.Index([1, 2**70], dtype=object),
        pd.CategoricalIndex(["a", "b"]),
        pd.MultiIndex.from_tuples([(1, 2), (1, 3)]),
        pd.period_range("2000", periods=2, freq="D"),
        pd.DatetimeIndex(["2000", None]),
    ],
)
def test_what_only_dask_knows_is_left_to_dask(index):
    assert find_divisions(index, 1, None) is None


@pytest.mark.parametrize(
    ("index", "wanted", "sort"),
    [
        (pd.RangeIndex(1000), {"npartitions": 7}, True),
        (pd.Index(np.arange(1000) // 3), {"chunksize": 90}, False),
        (pd.Index(np.arange(1000)[::-1]), {"npartitions": 7}, True),
        (pd.Index(np.arange(1000)[::-1]), {"npartitions": 7}, False),
        (
            pd.date_range("2000", periods=1000, freq="s", tz="Europe/Vienna"),
            {"chunksize": 90},
            True,
        ),
    ],
)
def test_a_frame_is_split_as_without(client, index, wanted, sort):
    frame = pd.DataFrame({"x": np.random.default_rng(0).random(1000)}, index=index)

    def parts(collection):
        return collection.map_partitions(lambda part: part.iloc[[0, -1]]).compute()

    expected = parts(dd.from_pandas(frame, sort=sort, **wanted))
    with daskps.proxy_graph(threshold=100):
        found = dd.from_pandas(frame, sort=sort, **wanted)
        pd.testing.assert_frame_equal(parts(found), expected)
    plain = dd.from_pandas(frame.copy(), sort=sort, **wanted)
    assert found.divisions == plain.divisions


def test_dask_does_not_walk_over_the_index_of_a_large_frame(client, monkeypatch):
    def walk(*args, **kwargs):
        raise AssertionError("Dask has walked over the whole index")

    frame = pd.DataFrame({"x": np.arange(1000.0)})
    with daskps.proxy_graph(threshold=100):
        monkeypatch.setattr(io, "sorted_division_locations", walk)
        total = dd.from_pandas(frame, npartitions=3).x.sum().compute()
    assert total == frame.x.sum()
