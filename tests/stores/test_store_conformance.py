"""What every store does, whatever is behind it.

The stores are in store_kinds.py. What only some of them do is tested elsewhere.
"""

from __future__ import annotations

import concurrent.futures
import gc
import multiprocessing
import os
import secrets
import site
import sys
import threading

import dask
import numpy as np
import pytest
from daos_pool import DOUBLES
from processes import PATIENCE
from store_kinds import KINDS, LARGE, SEALED, SERVERS, SHARED, SPAWN_ONLY

import daskps
from daskps.stores import opened
from daskps.stores.damaged import DamagedError
from daskps.stores.peer.protocol import RefusedError
from daskps.stores.store import Store
from daskps.testing import StoreTests

MIB = 1 << 20


@pytest.fixture(scope="module", params=KINDS)
def kind(request, tmp_path_factory):
    with KINDS[request.param](tmp_path_factory.mktemp(request.param)) as kind:
        yield kind


@pytest.fixture
def store(kind):
    store = kind.open()
    yield store
    store.close()
    assert not kind.left or not kind.left()


@pytest.fixture
def connector(store):
    return store.connector


def kinds(names):
    """Try only some of them."""
    return pytest.mark.parametrize("kind", names, indirect=True, scope="module")


@pytest.fixture
def overwrite(kind, connector):
    """Replaces the bytes behind a key."""
    return lambda key, data: kind.overwrite(connector, key, data)


@pytest.fixture(scope="module")
def processes():
    """Four processes, which are there from the start."""
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(
        4, context, initializer=begin, initargs=(context.Barrier(4),)
    )
    with pool:
        assert len(set(pool.map(own_pid, range(4)))) == 4
        yield pool


def begin(all_there):
    site.addsitedir(DOUBLES)  # the doubles, which come when a test needs one
    global _all_there
    _all_there = all_there


def own_pid(_):
    _all_there.wait(PATIENCE)  # so that none of them takes two
    return os.getpid()


def again(store):
    """A connector to the same store, as another process has it."""
    return Store.from_config(store.config()).connector


class TestEveryStore(StoreTests):
    @pytest.fixture
    def connector(self, store):
        return store.connector

    @pytest.fixture
    def another(self, request, store):
        if request.node.callspec.params["kind"] not in SHARED:
            pytest.skip("its objects are in one process")
        return lambda: again(store)


class TestObjects:
    @pytest.mark.slow
    @kinds(LARGE)
    @pytest.mark.parametrize(
        "nbytes", [513 * MIB, pytest.param(10**9, marks=pytest.mark.full)]
    )
    def test_it_takes_large_objects(self, connector, nbytes):
        data = np.random.default_rng(0).integers(0, 256, nbytes, "u1")
        head = data[:-1][::-1]  # strided, so that it is copied slab by slab
        key = connector.put_frames([b"head", data, head])
        connector.evict(key)
        key = connector.put_frames([data])
        assert (np.frombuffer(connector.get(key), "u1") == data).all()
        connector.evict(key)

    def test_it_holds_values_for_tasks(self, store):
        opened.add(store)
        key = store.connector.put_frames([np.arange(10)])
        data = opened.read(store.name, key)
        np.testing.assert_array_equal(np.frombuffer(data, int), np.arange(10))
        opened.evict(store.name, key)
        opened.close(store.name)


class TestKeys:
    def test_an_object_of_another_store_is_not_there(self, kind, connector):
        other = kind.open()
        key = other.connector.put(b"another's")
        try:
            assert connector.get(key) is None
            assert not connector.exists(key)
        except DamagedError:
            assert kind.overwrite, "it is there, and not unlocked by our key"
        except RefusedError:
            assert kind.store == "peer://", "its host does not know our key"
        connector.evict(connector.put(b"mine"))
        assert bytes(other.connector.get(key)) == b"another's"
        other.connector.evict(key)
        other.close()


class TestSharing:
    def test_closing_twice_is_no_error(self, kind):
        store = kind.open()
        store.connector.evict(store.connector.put(b"x"))
        store.close()
        store.close()

    def test_closing_while_others_read(self, kind):
        """Each read gives the object, or none, or an error, and never anything else."""
        store, data = kind.open(), secrets.token_bytes(3 * MIB)
        key = store.connector.put(data)
        read, begun = [], threading.Event()

        def work(_):
            try:
                for _ in range(20):
                    read.append(store.connector.get(key))
                    begun.set()
            except Exception as e:
                read.append(e)
                begun.set()

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            working = pool.map(work, range(4))
            begun.wait(PATIENCE)
            store.close()
            list(working)
        found = [x for x in read if x is not None and not isinstance(x, Exception)]
        assert found
        assert all(bytes(x) == data for x in found)

    @kinds(SHARED)
    def test_four_processes(self, store, processes):
        configs = [(store.config(), dict(os.environ))] * 40
        keys = list(processes.map(put_number, configs, range(40)))
        assert list(processes.map(get_number, configs, keys)) == list(range(40))
        for key in keys:
            store.connector.evict(key)
            assert not store.connector.exists(key)

    @kinds([name for name in SHARED if name not in SPAWN_ONLY])
    def test_a_forked_process(self, store):
        """It reads and writes, at the same time as its parent, and deletes nothing."""
        connector = store.connector
        key = connector.put(b"x" * 5000)
        assert bytes(connector.get(key)) == b"x" * 5000
        pid, ok = os.fork(), False
        try:
            for _ in range(50):
                ok = bytes(connector.get(key)) == b"x" * 5000
                mine = b"%d" % os.getpid() * 1000
                own = connector.put(mine)
                ok = ok and bytes(connector.get(own)) == mine
                connector.evict(own)
            if pid == 0:
                store.close()
                gc.collect()
        finally:
            if pid == 0:  # of the child, only the exit code counts
                os._exit(0 if ok and sys.exc_info()[0] is None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert ok
        assert bytes(connector.get(key)) == b"x" * 5000, "the child deleted it"


opened_here: dict[str, Store] = {}


def open_here(config):
    if config.name not in opened_here:
        opened_here[config.name] = Store.from_config(config)
    return opened_here[config.name].connector


def put_number(config_and_environment, number):
    config, environment = config_and_environment
    os.environ.update(environment)
    dask.config.refresh()
    return open_here(config).put(number.to_bytes(4, "little") * 10_000)


def get_number(config_and_environment, key):
    config, _ = config_and_environment
    data = bytes(open_here(config).get(key))
    assert data[:4] * 10_000 == data
    return int.from_bytes(data[:4], "little")


@kinds(SEALED)
class TestDamage:
    """What is not what was stored is refused, before anybody sees a byte of it."""

    @pytest.fixture(params=[100, 3 * MIB])
    def data(self, request):
        return secrets.token_bytes(request.param)

    def test_a_forged_object_is_noticed(self, connector, overwrite, data):
        key = connector.put(data)
        overwrite(key, data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(DamagedError, match="not those that were stored"):
            connector.get(key)
        with pytest.raises(DamagedError):
            connector.get_batch([key])

    @pytest.mark.parametrize("cut", ["one byte", "all"])
    def test_a_truncated_object_is_noticed(self, connector, overwrite, data, cut):
        key = connector.put(data)
        overwrite(key, data[:-1] if cut == "one byte" else b"")
        assert refused(connector, key)

    def test_a_longer_object_is_noticed(self, connector, overwrite, data):
        key = connector.put(data)
        overwrite(key, data + b"more")
        assert refused(connector, key)

    def test_another_object_in_its_place_is_noticed(self, connector, overwrite, data):
        one, two = connector.put(data), connector.put(data[::-1])
        overwrite(one, data[::-1])
        with pytest.raises(DamagedError, match="not those that were stored"):
            connector.get(one)
        assert bytes(connector.get(two)) == data[::-1]

    def test_a_seal_with_the_key_of_another_cluster_is_noticed(
        self, kind, connector, data
    ):
        """What was stored by somebody who has another key, seal included."""
        other = kind.open()
        forged = other.connector.put(data)
        key = connector.put(data)
        kind.overwrite(connector, key, data)
        assert bytes(connector.get(key)) == data, "equal bytes are not damage"
        with pytest.raises(DamagedError):
            connector.get(key._replace(seal=forged.seal))
        other.connector.evict(forged)
        other.close()

    def test_the_error_reaches_tasks_as_one_that_says_what_to_do(
        self, store, overwrite, data
    ):
        key = store.connector.put(data)
        overwrite(key, data[::-1])
        opened.add(store)
        try:
            with pytest.raises(daskps.ObjectMissingError, match=r"damaged.*Submit"):
                opened.read(store.name, key)
        finally:
            opened.close(store.name)


def refused(connector, key):
    """Whether an object counts as missing, or damaged."""
    try:
        return connector.get(key) is None
    except DamagedError:
        return True


@kinds(SERVERS)
class TestRestart:
    def test_it_connects_again(self, kind, connector):
        key = connector.put(bytes(3 * MIB))
        kind.restart()
        assert bytes(connector.get(key)) == bytes(3 * MIB)
        kind.restart()
        connector.evict(key)
        assert not connector.exists(key)
        kind.restart()
        key = connector.put(b"after")
        assert bytes(connector.get(key)) == b"after"

    def test_sixteen_threads_connect_again(self, kind, connector):
        keys = [connector.put(bytes([i]) * 1000) for i in range(16)]

        def read(i):
            return bytes(connector.get(keys[i])) == bytes([i]) * 1000

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            assert all(pool.map(read, range(16)))
            kind.restart()
            assert all(pool.map(read, range(16)))
