"""Only what is needed of a graph is stored, and nothing else changes."""

from __future__ import annotations

import dask
import dask.array as da
import dask.bag as db
import numpy as np
import pytest
from dask._expr import HLGExpr
from dask._task_spec import DataNode, Task, TaskRef, cull
from dask.core import flatten
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from distributed import wait
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import ProcessCluster, eventually, graph_nbytes, messages_sent

import daskps
from daskps.graph.culling import needed_keys

BLOCK = 20_000  # bytes
THRESHOLD = 10_000


def blocks(seed=0, side=4):
    """An array of side x side blocks."""
    x = np.random.default_rng(seed).random((50 * side, 50 * side))
    return x, da.from_array(x, chunks=50, name=False)


def stored(client):
    return daskps.usage(client).objects


def test_a_slice_stores_the_blocks_that_it_is_of(client):
    x, array = blocks()
    with daskps.proxy_graph(threshold=THRESHOLD), messages_sent(client) as messages:
        np.testing.assert_array_equal(array[:10, :60].compute(), x[:10, :60])
        assert stored(client) == 2
        np.testing.assert_array_equal(array[:10, :10].compute(), x[:10, :10])
        assert eventually(lambda: stored(client) == 1)  # the other one is not kept
        assert graph_nbytes(messages) < BLOCK
        np.testing.assert_array_equal(array.sum().compute(), x.sum())
        assert stored(client) == 16


def test_the_scheduler_has_the_tasks_that_it_has_without(client):
    x, _ = blocks(1)

    def keys():
        array = da.from_array(x, chunks=50, name="named")
        kept = (array[:10, :60] + 1).persist()
        wait(kept)
        keys = client.run_on_scheduler(
            lambda dask_scheduler: sorted(map(str, dask_scheduler.tasks))
        )
        del kept
        return keys

    expected = keys()
    with daskps.proxy_graph(threshold=THRESHOLD):
        assert keys() == expected


@pytest.mark.parametrize("optimize_graph", [True, False])
def test_what_one_collection_does_not_need_another_may(client, optimize_graph):
    x, array = blocks(2)
    parts = array[:10, :10], array[60:70, :10], array[:10, :10].sum()
    expected = x[:10, :10], x[60:70, :10], x[:10, :10].sum()
    with daskps.proxy_graph(threshold=THRESHOLD):
        results = dask.compute(*parts, optimize_graph=optimize_graph)
        for result, right in zip(results, expected, strict=True):
            np.testing.assert_allclose(result, right)
        assert stored(client) == 2
        kept = dask.persist(*parts, optimize_graph=optimize_graph)
        for result, right in zip(kept, expected, strict=True):
            np.testing.assert_allclose(result.compute(), right)
        del kept


def test_low_level_graphs(client):
    arrays = [np.full(2000, i, float) for i in range(5)]
    graph = {f"a{i}": DataNode(f"a{i}", x) for i, x in enumerate(arrays)}
    graph |= {
        f"s{i}": Task(f"s{i}", np.sum, node.ref())
        for i, node in enumerate(list(graph.values()))
    }
    with daskps.proxy_graph(threshold=THRESHOLD), messages_sent(client) as messages:
        assert client.get(graph, ["s3", "s1"]) == [6000.0, 2000.0]
        assert stored(client) == 2
    assert graph_nbytes(messages) < arrays[0].nbytes


def test_the_beginning_of_a_bag_stores_its_first_partition(client):
    items = [np.full(2000, i, float) for i in range(6)]
    bag = db.from_sequence(items, npartitions=3)
    with daskps.proxy_graph(threshold=THRESHOLD):
        (first,) = bag.take(1)
        np.testing.assert_array_equal(first, items[0])
        assert stored(client) == 2


class Odd(MaterializedLayer):
    """Somebody's layer, which says that it needs nothing."""

    def cull(self, keys, all_hlg_keys):
        return self, {}


def test_a_layer_of_another_library_has_all_that_it_may_need(client):
    x = np.random.default_rng(3).random(4000)
    layer = Odd({("odd", i): DataNode(("odd", i), x * i) for i in range(3)})
    graph = HighLevelGraph({"odd": layer}, {"odd": set()})
    array = da.Array(graph, "odd", ((4000,) * 3,), dtype=float)
    expected = np.concatenate([x * i for i in range(3)])
    with daskps.proxy_graph(threshold=THRESHOLD):
        # Dask itself would lose all tasks of this layer, were it to cull.
        assert needed_keys(HLGExpr.from_collection(array), []) is None
        result = dask.compute(array, optimize_graph=False)[0]
    np.testing.assert_array_equal(result, expected)


def test_all_calls_of_a_map_are_wanted(client, caplog):
    caplog.set_level("DEBUG", "daskps")
    x = np.random.default_rng(4).random(4000)
    with daskps.proxy_graph(threshold=THRESHOLD):
        sums = client.gather(client.map(np.sum, [x, x + 1]))
    assert sums == [x.sum(), (x + 1).sum()]
    assert "taken for needed" not in caplog.text


CORNERS = st.integers(0, 39)


@settings(deadline=None)
@given(CORNERS, CORNERS, st.sampled_from(["", "sum", "add", "transpose", "rechunk"]))
def test_what_is_needed_is_what_dask_needs(top, left, then):
    array = da.from_array(np.zeros((40, 40)), chunks=10)[top : top + 12, left:]
    if then == "sum":
        array = array.sum(axis=0)
    elif then == "add":
        array = array + array[:1]
    elif then == "transpose":
        array = array.T
    elif then == "rechunk":
        array = array.rechunk(7)
    keys = set(flatten(array.__dask_keys__()))
    culled = dict(array.dask.cull(keys))
    assert needed_keys(HLGExpr.from_collection(array), []) == set(culled)


@pytest.fixture
def own():
    """A client of a cluster of its own.

    Where two graphs have different tasks for a key, Dask's scheduler keeps some of them for
    good (2025.4.0 to 2026.8.0), and with them what they need.
    """
    with ProcessCluster(workers=1) as cluster, cluster.client() as client:
        yield client


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("optimized", [0, 1])
def test_two_graphs_with_different_tasks_for_a_key(optimized):
    """What is behind either task is stored: Dask keeps one, when it merges the graphs."""
    x, array = blocks(4)
    other = da.from_array(x + 0, chunks=50, name="other")
    scaled = da.map_blocks(np.multiply, array, 2.0, name="scaled")[:60, :60]
    # The same keys, with the same values, from other tasks.
    again = da.map_blocks(np.add, other, other, name="scaled")[:60, :60]
    pair = [scaled, again]
    pair[optimized] = dask.optimize(pair[optimized])[0]
    with daskps.proxy_graph(threshold=THRESHOLD):
        for collections in (pair, pair[::-1]):
            for options in ({}, {"optimize_graph": False}):
                for result in dask.compute(*collections, **options):
                    np.testing.assert_array_equal(result, 2 * x[:60, :60])
        summed = dask.compute(pair[0] + 1, pair[1].sum())[0]
    np.testing.assert_array_equal(summed, 2 * x[:60, :60] + 1)


@settings(deadline=None)
@given(st.permutations(range(4)), st.integers(0, 3))
def test_all_that_a_merged_graph_may_need(order, wanted):
    """Layers that share keys, in any order, each with tasks of its own for these."""
    layers = {
        name: MaterializedLayer(
            {key: Task(key, sum, *map(TaskRef, needs)) for key, needs in tasks.items()}
        )
        for name, tasks in [
            ("a", {"x": ["p"], "p": []}),
            ("b", {"x": ["q"], "y": ["x"]}),
            ("c", {"q": ["r"], "r": [], "s": []}),
            ("d", {"r": ["s"], "z": ["y"]}),
        ]
    }
    names = [list(layers)[i] for i in order]
    graph = HighLevelGraph({n: layers[n] for n in names}, {n: set() for n in names})
    key = ["x", "y", "z", "q"][wanted]
    needed = needed_keys(HLGExpr(graph, output_keys=[key]), [])
    merged = graph.to_dict()
    assert needed >= set(cull(merged, {key}))
    assert ("z" in needed) == (key == "z")
