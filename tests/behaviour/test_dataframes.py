"""Dataframes: what is stored, and that every result is what it is without."""

from __future__ import annotations

import contextlib

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from distributed import wait
from processes import (
    PATIENCE,
    ProcessCluster,
    eventually,
    graph_nbytes,
    messages_sent,
)

import daskps
import daskps.testing

ROWS = 4000
THRESHOLD = 4000


def frame(**columns):
    data = {
        "i": np.arange(ROWS),
        "x": np.random.default_rng(0).random(ROWS),
        "s": pd.Series([f"word-{i % 37}" for i in range(ROWS)]),
        "o": pd.Series([None if i % 7 == 0 else b"%d" % i for i in range(ROWS)]),
        "c": pd.Categorical([f"c{i % 5}" for i in range(ROWS)]),
        "t": pd.date_range("2024", periods=ROWS, freq="min", tz="Europe/Vienna"),
        "a": pd.array(np.arange(ROWS) % 11, dtype="Int64"),
        "p": pd.array([f"{i}" for i in range(ROWS)], dtype="string[pyarrow]"),
    }
    made = pd.DataFrame({**data, **columns})
    made.attrs["origin"] = "made here"
    return made


class Model:
    def __init__(self, weights):
        self.weights = weights


def with_weight(part, model):
    assert type(part) is pd.DataFrame
    assert type(model) is Model
    assert type(model.weights) is np.ndarray
    return part.assign(w=model.weights[0])


def load(i, model):
    return pd.DataFrame({"i": [i], "m": [model[i]]})


def origin(part):
    return pd.Series([part.attrs.get("origin")])


WEIGHTS = np.random.default_rng(1).random(ROWS)

WAYS = {
    "whole": lambda f: dd.from_pandas(f, npartitions=4),
    "one partition": lambda f: dd.from_pandas(f, npartitions=1),
    "unsorted": lambda f: dd.from_pandas(f.sample(frac=1, random_state=0), sort=False),
    "sorted here": lambda f: dd.from_pandas(f.sample(frac=1, random_state=0), 3),
    "column": lambda f: dd.from_pandas(f, npartitions=4).x,
    "columns": lambda f: dd.from_pandas(f, npartitions=4)[["s", "x"]],
    "filter": lambda f: dd.from_pandas(f, npartitions=4).query("x > 0.5"),
    "filter and column": lambda f: (d := dd.from_pandas(f, npartitions=4))[d.i > 9].x,
    "partitions": lambda f: dd.from_pandas(f, npartitions=8).partitions[2:5],
    "repartition": lambda f: dd.from_pandas(f, npartitions=8).repartition(
        npartitions=3
    ),
    "sum": lambda f: dd.from_pandas(f, npartitions=4).x.sum(),
    "groupby": lambda f: dd.from_pandas(f, npartitions=4).groupby("s").x.sum(),
    "value_counts": lambda f: dd.from_pandas(f, npartitions=4).c.value_counts(),
    "merge with a frame": lambda f: dd.from_pandas(f, npartitions=4).merge(
        f[["i", "x"]].iloc[:2000], on="i"
    ),
    "merge of two": lambda f: dd.from_pandas(f[["i", "x"]], npartitions=4).merge(
        dd.from_pandas(f[["i", "s"]], npartitions=3), on="i"
    ),
    "shuffle": lambda f: dd.from_pandas(f, npartitions=4).shuffle("s"),
    "set_index": lambda f: dd.from_pandas(f, npartitions=4).set_index("x"),
    "isin": lambda f: (d := dd.from_pandas(f, npartitions=4))[d.i.isin(range(3000))],
    "assign": lambda f: dd.from_pandas(f, npartitions=4).assign(
        y=dask.array.from_array(WEIGHTS, chunks=ROWS // 4)
    ),
    "map_partitions": lambda f: dd.from_pandas(f, npartitions=4).map_partitions(
        with_weight, Model(WEIGHTS)
    ),
    "from_dict": lambda f: dd.from_dict({"a": list(range(ROWS))}, npartitions=2),
    "from_array": lambda f: dd.from_array(WEIGHTS, chunksize=1000),
    "from_dask_array": lambda f: dd.from_dask_array(
        dask.array.from_array(WEIGHTS, chunks=1000)
    ),
    "from_delayed": lambda f: dd.from_delayed(
        [dask.delayed(f.iloc[:2000]), dask.delayed(f.iloc[2000:])]
    ),
    "from_map": lambda f: dd.from_map(load, range(3), args=(WEIGHTS,)),
    "index": lambda f: dd.from_pandas(f.set_index("t"), npartitions=4).index,
    "attrs": lambda f: dd.from_pandas(f, npartitions=2).map_partitions(
        origin, meta=("o", object)
    ),
    "empty partitions": lambda f: (d := dd.from_pandas(f, npartitions=4))[d.i < 10],
    "empty frame": lambda f: dd.from_pandas(f.iloc[:0], npartitions=2),
    "to_delayed": lambda f: dd.from_pandas(f, npartitions=2).to_delayed()[1],
}


def comparable(result):
    if isinstance(result, (pd.DataFrame, pd.Series)):
        # Neither Dask nor pandas orders the rows of a shuffle.
        order = ["i"] if isinstance(result, pd.DataFrame) and "i" in result else None
        if order:
            return result.sort_values(order, ignore_index=result.index.name is None)
        return result.sort_index()
    return result


@pytest.mark.parametrize("convert", [True, False], ids=["arrow", "object"])
@pytest.mark.parametrize("way", WAYS)
def test_results_are_what_they_are_without(client, way, convert):
    f = frame()
    with dask.config.set({"dataframe.convert-string": convert}):
        plain = comparable(WAYS[way](f).compute())
        collection = WAYS[way](f)
        with daskps.proxy_graph(threshold=THRESHOLD):
            proxied = comparable(collection.compute())
    assert type(proxied) is type(plain)
    if isinstance(plain, pd.DataFrame):
        pd.testing.assert_frame_equal(proxied, plain)
    elif isinstance(plain, pd.Series):
        pd.testing.assert_series_equal(proxied, plain)
    elif isinstance(plain, pd.Index):
        pd.testing.assert_index_equal(proxied, plain)
    else:
        assert proxied == plain


def test_the_frame_does_not_travel(client):
    f = pd.DataFrame(
        np.random.default_rng(0).random((1 << 18, 4)), columns=list("abcd")
    )
    with daskps.proxy_graph(), messages_sent(client) as messages:
        total = dd.from_pandas(f, npartitions=4).sum().compute()
        held = daskps.usage(client)
    assert graph_nbytes(messages) < 100_000
    pd.testing.assert_series_equal(total, f.sum())
    assert held.objects == 4


def test_small_partitions_of_a_large_frame_are_packed(client):
    data = pd.DataFrame({"x": np.random.default_rng(2).random(50_000)})
    limit = {"distributed.admin.large-graph-warning-threshold": "100 kB"}
    with dask.config.set(limit), daskps.proxy_graph(threshold=20_000):
        mean = dd.from_pandas(data, npartitions=100).x.mean()
        with messages_sent(client) as messages:
            assert mean.compute() == pytest.approx(data.x.mean())
        assert 0 < daskps.usage(client).objects < 10
    assert graph_nbytes(messages) < 100_000


def test_only_the_columns_that_are_needed_are_stored(client):
    f = pd.DataFrame({c: np.random.default_rng(0).random(1 << 18) for c in "abcd"})
    with daskps.proxy_graph():
        assert dd.from_pandas(f, npartitions=4).b.sum().compute() == f.b.sum()
        assert daskps.usage(client).nbytes < 1.1 * f.b.nbytes


def test_the_scheduler_has_the_tasks_that_it_has_without():
    """By kind: Dask gives a frame another name each time that it is submitted."""
    # Of its own: on that of other tests are tasks of theirs, too.
    with ProcessCluster() as cluster, cluster.client() as client:
        check_tasks(client)


def check_tasks(client):
    def kinds(dask_scheduler):
        return sorted(dask.utils.key_split(key) for key in dask_scheduler.tasks)

    f = frame()
    seen = []
    for context in (contextlib.nullcontext(), daskps.proxy_graph(threshold=THRESHOLD)):
        with context:
            grouped = dd.from_pandas(f, npartitions=3).groupby("s").x.sum()
            persisted = client.persist(grouped)
            wait(persisted)  # the graph has arrived
            keys = persisted.__dask_keys__()
            seen.append((client.run_on_scheduler(kinds), len(keys)))
            del persisted
        assert eventually(lambda: not client.run_on_scheduler(kinds))
    assert seen[0] == seen[1]


DUPLICATED = {
    "whole": lambda d: d,
    "filter": lambda d: d[d.b > 0.5],
    "column": lambda d: d[["a"]],
    "columns": lambda d: d[["b", "a"]],
    "partitions": lambda d: d.partitions[1:],
    "repartition": lambda d: d.repartition(npartitions=2),
    "map_partitions": lambda d: d.map_partitions(unchanged),
}


@pytest.mark.parametrize("way", DUPLICATED)
def test_duplicate_column_names(client, way):
    values = np.random.default_rng(0).random((ROWS, 3))
    f = pd.DataFrame(values, columns=["a", "b", "a"])
    make = DUPLICATED[way]
    plain = make(dd.from_pandas(f, npartitions=3)).compute()
    with daskps.proxy_graph(threshold=THRESHOLD):
        proxied = make(dd.from_pandas(f, npartitions=3)).compute()
    pd.testing.assert_frame_equal(proxied, plain)


def unchanged(part):
    return part


def test_attrs_come_back(client):
    f = frame()
    with dask.config.set({"dataframe.convert-string": False}):
        for make in (
            lambda: dd.from_pandas(f, npartitions=1),
            lambda: dd.from_pandas(f, npartitions=3).partitions[1],
            lambda: dd.from_pandas(f, npartitions=3)[["x", "t"]],
            lambda: dask.delayed(f),
        ):
            plain = make().compute().attrs
            with daskps.proxy_graph(threshold=THRESHOLD):
                assert make().compute().attrs == plain
            assert plain in ({"origin": "made here"}, {})


def test_partitions_that_are_empty(client):
    """Behind a filter, each kind of column of an empty partition keeps its type."""
    f = frame()

    def make():
        d = dd.from_pandas(f, npartitions=4)
        return [d[d.i < 10].partitions[i] for i in range(4)]

    plain = dask.compute(*make())
    with daskps.proxy_graph(threshold=THRESHOLD):
        proxied = dask.compute(*make())
    assert [len(part) for part in proxied] == [10, 0, 0, 0]
    for ours, theirs in zip(proxied, plain, strict=True):
        pd.testing.assert_frame_equal(ours, theirs)


def test_partitions_within_fused_tasks_are_stored(client):
    f = frame()

    def make():
        d = dd.from_pandas(f, npartitions=4)
        return (d[d.i > 9].x + 1).fillna(0)

    optimized = make().optimize().expr
    assert "Fused" in type(optimized).__name__
    with daskps.proxy_graph(threshold=THRESHOLD), messages_sent(client) as messages:
        result = make().compute()
        assert daskps.usage(client).objects
    assert graph_nbytes(messages) < f.x.nbytes
    pd.testing.assert_series_equal(result, f.x[f.i > 9] + 1)


def test_a_slice_of_arrow_data_weighs_what_it_is(client):
    table = pa.table({"a": ["x" * 100] * 100_000})
    slices = [table.slice(i * 1000, 1000) for i in range(4)]
    with daskps.proxy_graph(threshold=50_000):
        lengths = client.gather(client.map(len, slices, pure=False))
        assert daskps.usage(client).nbytes < 4 * 150_000
    assert lengths == [1000] * 4


def test_a_frame_below_the_threshold_stays_symbolic(client):
    collection = dd.from_pandas(frame(), npartitions=4)
    assert not daskps.explain(collection, threshold="1 MiB").values
    daskps.testing.assert_proxied(collection, threshold=THRESHOLD)


def test_arrays_as_expressions(client, tmp_path):
    """``array.query-planning``, which is read when dask.array is imported."""
    import subprocess
    import sys

    program = f"""
import dask, numpy as np
dask.config.set({{"array.query-planning": True}})
import dask.array as da, daskps
from distributed import Client
a = np.random.default_rng(0).random((512, 512))
with Client({client.scheduler.address!r}):
    with daskps.proxy_graph(threshold=100_000):
        x = da.from_array(a, chunks=256)
        assert np.allclose((x + 1).sum(axis=0).compute(), (a + 1).sum(axis=0))
        assert daskps.usage().objects == 4, daskps.usage()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=PATIENCE)
