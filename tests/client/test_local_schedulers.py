"""Dask's local schedulers, with a store that is given."""

from __future__ import annotations

import operator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import dask
import dask.array as da
import dask.bag as db
import dask.multiprocessing
import dask.threaded
import numpy as np
import pytest

import daskps
from daskps.objects.encoder import Encoder

SMALL = np.arange(100.0)


@pytest.fixture
def stored(monkeypatch):
    """Values that left a graph."""
    values = []
    encode = Encoder.encode

    def recording(self, value):
        values.append(value)
        return encode(self, value)

    monkeypatch.setattr(Encoder, "encode", recording)
    return values


@pytest.fixture(autouse=True)
def everything():
    with daskps.proxy_graph(store="shm://", threshold=1):
        yield


def describe(value):
    return type(value), value.flags.writeable, value.sum()


HERE = (np.ndarray, True, SMALL.sum())


@pytest.mark.parametrize("scheduler", ["threads", "sync", "processes"])
def test_tasks_get_the_value(scheduler, stored):
    assert dask.delayed(describe)(SMALL).compute(scheduler=scheduler) == HERE
    assert any(value is SMALL for value in stored)


@pytest.mark.parametrize("executor", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_an_executor_lives_longer_than_a_store(executor, stored):
    task = dask.delayed(operator.itemgetter(1))(SMALL)
    with executor(1) as pool:
        for _ in range(2):
            with daskps.proxy_graph(store="shm://", threshold=1):
                assert task.compute(scheduler=pool) == 1.0
                if executor is ProcessPoolExecutor:
                    with dask.config.set(pool=pool):
                        assert task.compute(scheduler="processes") == 1.0
    assert stored


def test_ones_own_way_to_load_is_kept():
    loads = dask.multiprocessing._loads
    loaded = []

    def mine(data):
        loaded.append(data)
        return loads(data)

    task = dask.delayed(operator.itemgetter(1))(SMALL)
    with ThreadPoolExecutor(1) as pool, dask.config.set(func_loads=mine, pool=pool):
        assert task.compute(scheduler="processes") == 1.0
    assert loaded


def test_an_unknown_scheduler_gets_the_graph_as_it_is(stored):
    def mine(dsk, keys, **kwargs):
        return dask.threaded.get(dsk, keys, **kwargs)

    assert dask.delayed(describe)(SMALL).compute(scheduler=mine) == HERE
    assert not stored


def test_schedulers_can_be_compared():
    """Dask and xarray do, to choose a lock that works across processes."""
    get = dask.base.get_scheduler(scheduler="processes")
    assert get is dask.multiprocessing.get


@pytest.mark.parametrize("scheduler", ["threads", "sync"])
def test_dask_array_store_writes_to_the_array_that_it_was_given(scheduler, stored):
    target = np.zeros(100)
    x = da.from_array(SMALL, chunks=10) + 1
    x.store(target, lock=False, scheduler=scheduler)
    np.testing.assert_array_equal(target, SMALL + 1)
    assert stored, "the source"


def test_keys_that_are_tuples_of_tuples():
    first, second = ("x", (1.5, "a", (3,))), ("x", "b")
    graph = {first: 1, second: (operator.add, first, 1)}
    with dask.config.set(scheduler="sync"):
        result = dask.base.compute(Keys(graph, [first, second]))
    assert result == ([1, 2],)


class Keys:
    """A collection of values by key."""

    __dask_optimize__ = None
    __dask_scheduler__ = staticmethod(dask.threaded.get)

    def __init__(self, graph, keys):
        self._graph, self._keys = graph, keys

    def __dask_graph__(self):
        return self._graph

    def __dask_keys__(self):
        return self._keys

    def __dask_postcompute__(self):
        return list, ()


def test_bags_look_into_fused_tasks():
    bag = db.from_sequence(["a", "bb"], npartitions=1).map(len).map(operator.add, 1)
    assert bag.compute(scheduler="sync") == [2, 3]


def test_what_client_run_returns_is_kept_nowhere(client):
    with daskps.proxy_graph(threshold=1):
        assert client.submit(np.arange, 5).result().sum() == 10
        for result in client.run(set, ["a"]).values():
            assert result == {"a"}
        assert client.run_on_scheduler(np.arange, 5).sum() == 10
