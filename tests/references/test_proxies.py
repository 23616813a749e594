"""Proxies made by hand, in graphs and as results."""

from __future__ import annotations

import os

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from processes import eventually, graph_nbytes, messages_sent
from proxystore.connectors.file import FileConnector
from proxystore.proxy import Proxy, is_resolved
from proxystore.store import Store
from proxystore.store.executor import StoreExecutor
from proxystore.store.utils import get_key

import daskps

MIB = 1 << 20


def array(seed=0, nbytes=2 * MIB):
    return np.random.default_rng(seed).random(nbytes // 8)


def kind_and_sum(x):
    return type(x).__name__, isinstance(x, np.ndarray), float(np.sum(x))


def test_a_proxy_made_by_hand_arrives_as_one(client):
    data = array()
    with daskps.proxy_graph():
        proxy = daskps.proxy(data)
        assert type(proxy) is Proxy
        result = client.submit(kind_and_sum, proxy).result()
        assert result == ("Proxy", True, data.sum())
        assert client.submit(kind_and_sum, x=proxy, pure=False).result() == result
        assert dask.base.tokenize(proxy) == dask.base.tokenize(proxy)
        assert isinstance(proxy, np.ndarray)
        assert dask.sizeof.sizeof(proxy) < 1000
        assert not is_resolved(proxy), "nobody had to read it here"
        assert daskps.usage(client).objects == 1


def add_first(block, proxy):
    assert type(proxy) is Proxy
    return block + float(proxy[0])


def by_delayed(proxy):
    return da.from_delayed(dask.delayed(np.negative)(proxy), (len(array()),), "f8")


ONES = pd.DataFrame({"a": np.ones(4)})

PROXY_IN = {
    "submit": lambda c, p: c.submit(kind_and_sum, p, pure=False).result()[2],
    "map": lambda c, p: c.gather(c.map(kind_and_sum, [p], pure=False))[0][2],
    "delayed": lambda c, p: dask.delayed(kind_and_sum)(p).compute()[2],
    "delayed in a list": lambda c, p: dask.delayed(len)([p]).compute(),
    "delayed value": lambda c, p: c.compute(
        dask.delayed(kind_and_sum)(dask.delayed(p, name="by-hand"))
    ).result()[2],
    "from_delayed": lambda c, p: by_delayed(p).sum().compute(),
    "map_blocks": lambda c, p: (
        da.ones(4, chunks=2)
        .map_blocks(add_first, p, dtype="f8", meta=np.ones(1))
        .compute()[0]
    ),
    "map_partitions": lambda c, p: (
        dd.from_pandas(ONES, npartitions=2)
        .map_partitions(add_first, proxy=p, meta=ONES)
        .a.sum()
        .compute()
    ),
    "bag": lambda c, p: (
        db.from_sequence([p]).map(kind_and_sum).compute(scheduler=c.get)[0][2]
    ),
    "scatter": lambda c, p: c.submit(
        kind_and_sum, c.scatter(p, hash=False), pure=False
    ).result()[2],
    "scatter in a list": lambda c, p: c.submit(
        kind_and_sum, *c.scatter([p], hash=False), pure=False
    ).result()[2],
}


@pytest.mark.parametrize("way", PROXY_IN)
def test_dask_does_not_read_a_proxy(client, way):
    data = array()
    expected = {
        "delayed in a list": 1,
        "from_delayed": -data.sum(),
        "map_blocks": 1 + data[0],
        "map_partitions": 4 * (1 + data[0]),
    }
    with daskps.proxy_graph():
        proxy = daskps.proxy(data)
        result = PROXY_IN[way](client, proxy)
        assert result == pytest.approx(expected.get(way, data.sum()))
        assert not is_resolved(proxy)


def test_the_scheduler_does_not_read_a_proxy(client, tmp_path):
    """Of an object that is gone: whoever reads it, fails."""
    with Store("gone", FileConnector(str(tmp_path)), register=True) as store:
        proxies = [daskps.proxy(array(i), store) for i in range(2)]
        for proxy in proxies:
            store.evict(get_key(proxy))
        with daskps.proxy_graph():
            for proxy in proxies:
                assert client.submit(kind, proxy).result() == "Proxy"
                assert dask.delayed(kind)(proxy).compute() == "Proxy"
                assert client.gather(client.map(kind, [proxy] * 2)) == ["Proxy"] * 2


def kind(x):
    return type(x).__name__


def test_an_array_of_a_proxy(client):
    """Dask asks for its shape, on the client; the blocks are read from the store."""
    data = array()
    with daskps.proxy_graph(), messages_sent(client) as messages:
        x = da.from_array(daskps.proxy(data), chunks=1 << 16)
        np.testing.assert_array_equal((x + 1).compute(), data + 1)
    assert graph_nbytes(messages) < MIB


def test_a_proxy_keeps_its_object_until_it_is_gone(client):
    with daskps.proxy_graph():
        proxy = daskps.proxy(array())
    assert eventually(lambda: daskps.usage(client).objects == 1)
    future = client.submit(kind_and_sum, proxy)
    assert future.result()[2] == array().sum()
    del proxy, future


def test_proxies_in_two_connectors(tmp_path):
    """Each process finds the store of a proxy by its name."""
    connectors = [FileConnector(str(tmp_path / name)) for name in "ab"]
    a, b = (daskps.proxy(array(i), c) for i, c in enumerate(connectors))
    assert (a.sum(), b.sum()) == (array(0).sum(), array(1).sum())
    for connector in connectors:
        assert os.listdir(connector.store_dir)
        connector.close()


def test_a_proxy_returned_by_a_task(client, tmp_path):
    with Store("by-hand", FileConnector(str(tmp_path)), register=True) as store:
        proxy = daskps.proxy(array(), store)
        with daskps.proxy_graph():
            back = client.submit(give_back, proxy).result()
        assert type(back) is Proxy
        np.testing.assert_array_equal(np.asarray(back), array())


def give_back(x):
    return x


def is_large(value):
    return isinstance(value, np.ndarray)


def negative(x):
    return -np.asarray(x)


def first_of(items):
    return items[0]


@pytest.mark.parametrize("ours", [False, True])
def test_store_executor(cluster, client, tmp_path, ours):
    made = daskps.Client(cluster.address) if ours else cluster.client()
    with (
        # Of a name of its own: workers keep stores open, by name.
        Store(tmp_path.name, FileConnector(str(tmp_path)), register=True) as store,
        made as inner,
    ):
        # ownership=True, ProxyStore's default, fails with current Dask: the worker
        # pickles the result twice, and only the first copy of an owned proxy is valid.
        executor = StoreExecutor(
            inner, store, should_proxy=is_large, ownership=False, close_store=False
        )
        with daskps.proxy_graph(client=inner):
            future = executor.submit(negative, array())
            for _ in range(2):
                result = future.result()
                assert type(result) is Proxy
                np.testing.assert_array_equal(np.asarray(result), -array())
            # What the executor leaves alone travels by reference.
            pair = executor.submit(first_of, [array()]).result()
            np.testing.assert_array_equal(np.asarray(pair), array())
            several = executor.map(negative, [array(1), array(2)])
            for seed, result in enumerate(several, start=1):
                np.testing.assert_array_equal(np.asarray(result), -array(seed))
