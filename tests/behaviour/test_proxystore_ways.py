"""ProxyStore's three ways into Dask, on daskps's stores, and what its own client takes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import warnings
import weakref
from functools import partial

import numpy as np
import pytest
from daos_pool import pool
from processes import PATIENCE, ROOT, eventually, graph_nbytes, messages_sent
from proxystore.connectors.file import FileConnector
from proxystore.proxy import Proxy
from proxystore.serialize import serialize
from proxystore.store import Store
from proxystore.store.executor import StoreExecutor

import daskps

__all__ = ["pool"]

MIB = 1 << 20
EXAMPLES = ["by_hand", "drop_in_client", "wrapping_executor"]


def array(seed=0, nbytes=2 * MIB):
    return np.random.default_rng(seed).random(nbytes // 8)


def negative(x):
    return -np.asarray(x)


def add(x, y):
    return np.asarray(x) + np.asarray(y)


def kinds(*args):
    return [type(x).__name__ for x in args]


def is_large(value):
    return isinstance(value, np.ndarray)


def run_example(name, url):
    done = subprocess.run(
        [sys.executable, os.path.join(ROOT, "examples", f"{name}.py"), url],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "DASK_DISTRIBUTED__DASHBOARD__LINK": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"Quartiles: -0\.6. -?0\.00 0\.6.\n", done.stdout), done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES)
def test_examples(example):
    run_example(example, "shm://")


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_on_files(example, tmp_path):
    run_example(example, tmp_path.as_uri())


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_on_daos(example, pool):
    run_example(example, pool.url)
    assert pool.everything() == []


class TestByHand:
    def test_a_proxy_that_evicts_is_read_by_its_task(self, client):
        """Not on the way, by who asks what it is."""
        with daskps.open_store("shm://") as store:
            several = store.proxy_batch([array(), array()], evict=True)
            for proxy in [store.proxy(array(), evict=True), *several]:
                result = client.submit(negative, proxy, pure=False).result()
                np.testing.assert_array_equal(result, -array())
                assert not store.exists(proxy.__proxy_factory__.key)

    def test_a_proxy_knows_its_type(self):
        with daskps.open_store("shm://") as store:
            for proxy in [store.proxy(array()), *store.proxy_batch([array()])]:
                assert isinstance(proxy, np.ndarray)
                assert not proxy.__proxy_resolved__
                np.testing.assert_array_equal(np.asarray(proxy), array())
            assert store.proxy(None, skip_nonproxiable=True) is None
            assert store.proxy(array(), populate_target=True).__proxy_resolved__

    def test_a_proxy_does_not_keep_its_object(self, client):
        """Nor the frames in which it was made, by the error that it cannot be hashed."""
        with daskps.open_store("shm://") as store:
            for make in (
                store.proxy,
                lambda x: store.proxy_batch([x])[0],
                daskps.proxy,
            ):
                x = array()
                kept = weakref.ref(x)
                proxy = make(x)
                del x
                assert kept() is None
                np.testing.assert_array_equal(np.asarray(proxy), array())

    def test_a_store_that_was_opened_can_be_given(self, client):
        with daskps.open_store("shm://") as store:
            proxy = daskps.proxy(array(), store)
            assert client.submit(kinds, proxy).result() == ["Proxy"]
            with daskps.proxy_graph(store=store):
                np.testing.assert_array_equal(
                    client.submit(negative, array()).result(), -array()
                )

    def test_it_reads_what_proxystore_has_serialised(self):
        with daskps.open_store("shm://") as store:
            for value in (array(), "text", b"bytes", {"a": [1, None]}):
                key = store.put(serialize(value), serializer=lambda data: data)
                np.testing.assert_equal(store.get(key), value)


@pytest.mark.parametrize("session", [False, True])
class TestStoreExecutorThatOwns:
    """``ownership=True`` is its default."""

    @pytest.fixture
    def executor(self, cluster, client, session, tmp_path):
        made = daskps.Client(cluster.address) if session else cluster.client()
        with (
            # Of a name of its own: workers keep stores open, by name.
            Store(tmp_path.name, FileConnector(str(tmp_path)), register=True) as store,
            made as inner,
        ):
            yield StoreExecutor(inner, store, is_large, close_store=False)

    def test_results(self, executor, tmp_path):
        future = executor.submit(negative, array())
        for _ in range(2):
            result = future.result(timeout=PATIENCE)
            assert isinstance(result, Proxy)
            assert isinstance(result, np.ndarray)
            np.testing.assert_array_equal(np.asarray(result), -array())
        del future
        assert eventually(lambda: not os.listdir(tmp_path)), (
            "it has gone with the result"
        )
        np.testing.assert_array_equal(np.asarray(result), -array())
        # What was received is an argument like the object itself.
        again = executor.submit(negative, result).result(timeout=PATIENCE)
        np.testing.assert_array_equal(np.asarray(again), array())

    def test_results_that_tasks_pass_on(self, executor):
        one, two = (
            executor.submit(negative, array(1)),
            executor.submit(negative, array()),
        )
        result = executor.submit(add, one, two).result(timeout=PATIENCE)
        np.testing.assert_array_equal(np.asarray(result), -array() - array(1))

    def test_map(self, executor):
        results = executor.map(negative, [array(1), array(2)])
        for seed, result in enumerate(results, start=1):
            np.testing.assert_array_equal(np.asarray(result), -array(seed))


class TestMovingFromProxyStoresClient:
    """What is written for ``proxystore_ex.plugins.distributed.Client``."""

    def test_its_documented_example(self, cluster):
        with (
            tempfile.TemporaryDirectory() as directory,
            Store("default", FileConnector(directory), register=True) as store,
        ):
            client = daskps.Client(cluster.address, ps_store=store, ps_threshold=100)

            x = list(range(100))
            p = store.proxy(x)
            y = client.submit(sum, p)

            assert y.result() == sum(x)

            client.close()

    @pytest.fixture
    def moved(self, cluster, tmp_path):
        with (
            Store(tmp_path.name, FileConnector(str(tmp_path)), register=True) as store,
            daskps.Client(cluster.address, ps_store=store, ps_threshold=1000) as client,
        ):
            yield client
        assert not os.path.exists(tmp_path), "the store has deleted its directory"

    def test_the_threshold_counts(self, moved):
        small, large = b"x" * 900, b"y" * 5000
        with messages_sent(moved) as messages:
            assert moved.submit(len, large).result() == 5000
            assert moved.submit(len, small).result() == 900
        assert graph_nbytes(messages) < 10_000
        graphs = [m for m in messages if m["op"] == "update-graph"]
        assert large not in b"".join(map(bytes, graphs[0]["expr_ser"].frames))
        assert small in b"".join(map(bytes, graphs[1]["expr_ser"].frames))

    def test_functions_and_callers_get_real_objects(self, moved):
        x = array()
        assert moved.submit(kinds, x, x).result() == ["ndarray"] * 2
        assert moved.gather(moved.map(kinds, [x, x])) == [["ndarray"]] * 2
        future = moved.submit(negative, x)
        for _ in range(2):
            assert type(future.result()) is np.ndarray
        # An argument that is the result, too.
        back = moved.submit(np.asarray, x)
        np.testing.assert_array_equal(back.result(), x)

    def test_a_large_keyword_of_map(self, moved):
        for _ in range(2):
            futures = moved.map(add, [1.0, 2.0], y=array(), pure=False)
            np.testing.assert_array_equal(futures[1].result(), array() + 2)

    @pytest.mark.parametrize("name", ["proxy_args", "proxy_result"])
    def test_options_of_a_call(self, moved, name):
        assert moved.submit(kinds, array(), **{name: True}).result() == ["ndarray"]
        assert moved.map(kinds, [1], **{name: True})[0].result() == ["int"]
        for call in (moved.submit, partial(moved.map, key="k")):
            with pytest.raises(daskps.ConfigError, match=f"{name}=False.*left out"):
                call(kinds, [array()], **{name: False})
        assert moved.submit(takes, **{name: False}).result() == {name: False}

    def test_two_names_for_one_setting(self):
        with pytest.raises(daskps.ConfigError, match="ps_threshold"):
            daskps.Client(threshold=1, ps_threshold=1)
        with pytest.raises(daskps.ConfigError, match="ps_store"):
            daskps.Client(store="shm://", ps_store="shm://")


def takes(**options):
    return options


class TestProxyStoresClientItself:
    def test_on_a_store_of_daskps(self, cluster):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from proxystore_ex.plugins.distributed import Client
        with (
            daskps.open_store("shm://") as store,
            Client(cluster.address, ps_store=store, ps_threshold=1000) as client,
        ):
            for value in (array(), b"z" * 5000, list(range(5000))):
                result = client.submit(len, value, pure=False).result(timeout=PATIENCE)
                assert result == len(value)
            result = client.submit(negative, array()).result(timeout=PATIENCE)
            np.testing.assert_array_equal(np.asarray(result), -array())
            first, second = client.map(negative, [array(1), array(2)])
            np.testing.assert_array_equal(np.asarray(second.result()), -array(2))
            np.testing.assert_array_equal(np.asarray(first.result()), -array(1))
