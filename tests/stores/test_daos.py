"""``daos://`` over the double of pydaos, or a real pool."""

from __future__ import annotations

import asyncio
import concurrent.futures
import multiprocessing
import os
import pickle
import threading
import time
from urllib.parse import urlsplit

import numpy as np
import pytest
from daos_pool import double_only, pool, pydaos, run, start
from distributed import Client
from processes import PATIENCE
from proxystore.connectors.protocols import Connector

import daskps
from daskps.stores.daos import containers
from daskps.stores.daos.connector import DaosConnector
from daskps.stores.daos.dictionary import Dictionary
from daskps.stores.daos.namespace import CHUNK_NBYTES, SMALL_NBYTES, Namespace
from daskps.stores.daos.scheme import sweep

__all__ = ["pool", "pydaos"]

CLUSTER = "0123456789abcdef"


@pytest.fixture
def connector(pool):
    connector = DaosConnector(*pool.names, CLUSTER, lease=60)
    yield connector
    connector.close()


class TestAUrl:
    def test_names_three_things(self, pool):
        for url in [
            "daos://",
            "daos://pool",
            "daos://pool/kvstore",
            "daos://pool/kvstore/",
            "daos://pool/kvstore/ns/more",
            "daos://po ol/kvstore/ns",
            "daos://user:password@pool/kvstore/ns",
        ]:
            with pytest.raises(daskps.ConfigError, match="daos://pool/container/name"):
                daskps.open_store(url)

    def test_opens_a_store(self, pool):
        with daskps.open_store(pool.url) as store:
            key = store.put(np.arange(5))
            np.testing.assert_array_equal(store.get(key), np.arange(5))
            assert isinstance(store.connector, Connector)
            assert repr(store.connector) == pool.url
        assert pool.everything() == []

    def test_of_a_container_that_is_not_there(self, pool):
        with pytest.raises(
            daskps.StoreError,
            match=rf"DER_NONEXIST.*daos cont create {pool.pool} not-there",
        ):
            daskps.open_store(f"daos://{pool.pool}/not-there/ns")

    @double_only
    def test_without_pydaos(self):
        code = """
            import daskps
            try:
                daskps.open_store("daos://pool/container/namespace")
            except daskps.ConfigError as e:
                print(e)
            """
        status, message = run(code)
        assert status == 0
        assert "comes with DAOS and is not on PyPI" in message


class TestEachFaultOfTheBindings:
    """In the order in which they are known."""

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_values_that_are_not_bytes(self, connector, kind):
        data = kind(b"abc")
        keys = [connector.put(data), *connector.put_batch([data, data])]
        assert [bytes(x) for x in connector.get_batch(keys)] == [b"abc"] * 3

    def test_empty_values(self, connector):
        key = connector.put(b"")
        assert connector.exists(key)
        assert bytes(connector.get(key)) == b""
        connector.evict(key)
        assert not connector.exists(key)
        assert connector.get(key) is None

    def test_processes_that_open_at_once(self, pool, tmp_path):
        code = """
            import os, sys, time
            from daskps.stores.daos.dictionary import Dictionary
            directory, pool, container, namespace = sys.argv[1:]
            warm = Dictionary(pool, container, namespace)
            open(os.path.join(directory, str(os.getpid())), "w").close()
            while len(os.listdir(directory)) < 4:
                time.sleep(0.001)
            for i in range(50):
                Dictionary(pool, container, f"{namespace}.raced-{i}").close()
            warm.close()
            """
        started = tmp_path / "started"
        started.mkdir()
        processes = [start(code, str(started), *pool.names) for _ in range(4)]
        errors = [process.communicate(timeout=PATIENCE)[1] for process in processes]
        assert errors == [""] * 4

    @pytest.mark.parametrize("end", ["connector.close()", "del connector", "pass"])
    def test_handles_are_dropped_before_the_interpreter_ends(self, pool, end):
        code = f"""
            import sys
            from daskps.stores.daos.connector import DaosConnector
            connector = DaosConnector(*sys.argv[1:], "{CLUSTER}")
            connector.put(b"abc")
            {end}
            """
        assert run(code, *pool.names) == (0, "")

    def test_many_small_objects_are_read_at_once(self, connector, pydaos, monkeypatch):
        keys = connector.put_batch([b"%d" % i for i in range(500)])
        calls = []
        bget = pydaos.DDict.bget

        def counting(self, values, *args):
            calls.append(len(values))
            return bget(self, values, *args)

        monkeypatch.setattr(pydaos.DDict, "bget", counting)
        assert [int(bytes(x)) for x in connector.get_batch(keys)] == list(range(500))
        assert calls == [256, 244]

    def test_to_ask_whether_an_object_is_there_reads_it_not(
        self, connector, pydaos, monkeypatch
    ):
        key = connector.put(bytes(10 * CHUNK_NBYTES))
        read = transferred(pydaos, monkeypatch)
        assert connector.exists(key)
        assert sum(read) < 100

    @pytest.mark.parametrize(
        ("nbytes", "most"), [(1, 1), (SMALL_NBYTES, 1), (SMALL_NBYTES + 1, 3)]
    )
    def test_round_trips(self, connector, pydaos, monkeypatch, nbytes, most):
        """A small object is stored, read and deleted in one each."""
        read = transferred(pydaos, monkeypatch)
        key = connector.put(bytes(nbytes))
        assert len(read) <= most
        read.clear()
        assert bytes(connector.get(key)) == bytes(nbytes)
        assert len(read) == 1
        read.clear()
        connector.evict(key)
        assert len(read) <= min(most, 2)

    def test_objects_of_others(self, connector, pool):
        """They are not there for this cluster, which can delete none of them."""
        other = DaosConnector(*pool.names, CLUSTER[::-1], lease=60)
        key = other.put(b"abc")
        assert connector.get(key) is None
        assert connector.get_batch([key, key]) == [None, None]
        assert not connector.exists(key)
        connector.evict(key)
        connector.evict_orphans("", set())
        connector.close()
        assert bytes(other.get(key)) == b"abc"
        other.close()
        assert pool.objects() == []

    def test_what_was_made_from_the_config_deletes_nothing(self, connector):
        key = connector.put(b"abc")
        assert "clear" not in connector.config()
        DaosConnector.from_config(connector.config()).close()
        assert bytes(connector.get(key)) == b"abc"

    def test_handles_are_not_pickled(self, connector, tmp_path):
        key = connector.put(b"abc")
        path = tmp_path / "pickled"
        path.write_bytes(pickle.dumps((connector, key)))
        code = """
            import pickle, sys
            connector, key = pickle.load(open(sys.argv[1], "rb"))
            print(bytes(connector.get(key)))
            """
        assert run(code, str(path)) == (0, "b'abc'")


class TestLargeObjects:
    @pytest.mark.parametrize(
        "nbytes",
        [CHUNK_NBYTES - 1, CHUNK_NBYTES, CHUNK_NBYTES + 1, 5 * CHUNK_NBYTES + 7],
    )
    def test_in_chunks(self, connector, pool, nbytes):
        data = np.random.default_rng(nbytes).bytes(nbytes)
        key = connector.put_frames([data[:1000], data[1000:]])
        assert bytes(connector.get(key)) == data
        assert len(pool.chunks()) == -(-nbytes // CHUNK_NBYTES)
        connector.evict(key)
        assert pool.chunks() == pool.objects() == []

    def test_a_part_is_missing(self, connector, pool):
        key = connector.put(bytes(3 * CHUNK_NBYTES))
        pool.dictionary(pool.namespace).put(pool.chunks()[1], None)
        assert connector.get(key) is None
        connector.evict(key)
        assert pool.chunks() == []

    def test_a_part_is_cut_short(self, connector, pool):
        key = connector.put(bytes(3 * CHUNK_NBYTES))
        pool.dictionary(pool.namespace).put(pool.chunks()[1], bytes(10))
        assert connector.get(key) is None

    def test_arrays_that_are_not_contiguous(self, connector):
        whole = np.arange(300 * 200 * 10).reshape(300, 200, 10)
        for array in (whole[::2], whole.T, whole[:, ::-1, 3]):
            key = connector.put_frames([b"head", array])
            assert bytes(connector.get(key)) == b"head" + array.tobytes()

    @pytest.mark.slow
    def test_more_than_one_value_of_daos_can_hold(self, connector):
        data = np.random.default_rng(0).integers(0, 256, 2**31 + 5, "u1")
        key = connector.put_frames([data])
        assert (np.frombuffer(connector.get(key), "u1") == data).all()

    @double_only
    def test_other_threads_run_meanwhile(self, connector, monkeypatch):
        """DAOS keeps the interpreter's lock during a transfer."""
        key = connector.put(bytes(16 * CHUNK_NBYTES))
        monkeypatch.setenv("PYDAOS_DOUBLE_BANDWIDTH", str(64 * CHUNK_NBYTES))
        ticks = []
        reading = threading.Thread(target=connector.get, args=[key])
        reading.start()
        while reading.is_alive():
            ticks.append(time.monotonic())
            time.sleep(0.001)
        assert len(ticks) > 5, "with one transfer, there would be one"


class TestFailures:
    @double_only
    def test_the_agent_starts_again(self, connector, pydaos):
        key = connector.put(bytes(3 * CHUNK_NBYTES))
        for use in (
            lambda: connector.get(key),
            lambda: connector.exists(key),
            lambda: connector.evict(connector.put(b"x")),
            lambda: connector.evict_orphans("nobody", set()),
        ):
            pydaos.restart_agent()
            use()
        assert bytes(connector.get(key)) == bytes(3 * CHUNK_NBYTES)

    @double_only
    def test_sixteen_threads_while_the_agent_starts_again(self, connector, pydaos):
        keys = [connector.put(bytes([i]) * 1000) for i in range(16)]

        def read(i):
            if i == 7:
                pydaos.restart_agent()
            return bytes(connector.get(keys[i % 16])) == bytes([i % 16]) * 1000

        with concurrent.futures.ThreadPoolExecutor(16) as threads:
            assert all(threads.map(read, range(64)))

    def test_the_pool_is_full(self, connector, pool, pydaos, monkeypatch):
        put, puts = pydaos.DDict.put, []

        def full(self, key, value):
            puts.append(key)
            if len(puts) == 4:
                raise pydaos.PyDError("failed to store KV value", -1007)
            put(self, key, value)

        monkeypatch.setattr(pydaos.DDict, "put", full)
        with pytest.raises(
            daskps.StoreFullError, match=r"DER_NOSPACE.*after some 40 s"
        ):
            connector.put(bytes(5 * CHUNK_NBYTES))
        assert pool.chunks() == pool.objects() == [], "what was written is deleted"

    def test_no_error_refers_to_one_that_follows_itself(
        self, pool, pydaos, monkeypatch
    ):
        def no_room(self, name, v=None):
            raise pydaos.PyDError("failed to create DAOS dict", -1007)

        monkeypatch.setattr(pydaos.DCont, "dict", no_room)
        with pytest.raises(daskps.StoreFullError) as caught:
            Namespace(pool.pool, pool.container, f"{pool.namespace}.new")
        error = caught.value
        assert error.__cause__ is error.__context__ is None
        assert repr(pickle.loads(pickle.dumps(error))) == repr(error)

    def test_a_forked_process(self, connector):
        connector.put(b"abc")
        read, write = os.pipe()
        if not os.fork():
            try:
                connector.put(b"abc")
            except daskps.StoreError as e:
                os.write(write, str(e).encode())
            connector.close()
            os._exit(0)
        os.wait()
        assert b"forked" in os.read(read, 1000)
        connector.put(b"abc")

    @pytest.mark.parametrize("end", ["", "sys.exit()", "store.close()", "del store"])
    def test_a_forked_process_ends(self, pool, end):
        """It says nothing, deletes nothing, and does not harm its parent."""
        code = f"""
            import os, sys, daskps
            store = daskps.open_store(sys.argv[1])
            key = store.put(b"abc")
            pid = os.fork()
            if pid == 0:
                {end or "pass"}
            else:
                assert os.waitpid(pid, 0)[1] == 0
                assert store.get(key) == b"abc"
                store.close()
        """
        assert run(code, pool.url) == (0, "")

    def test_a_forked_process_opens_none(self, connector, pool):
        """Nor does it find out by hanging."""
        read, write = os.pipe()
        if not os.fork():
            try:
                DaosConnector(*pool.names, CLUSTER)
            except daskps.StoreError as e:
                os.write(write, str(e).encode())
            os._exit(0)
        os.wait()
        assert b"was forked" in os.read(read, 1000)
        connector.put(b"abc")

    def test_closed(self, connector):
        key = connector.put(b"abc")
        connector.close()
        connector.close()
        with pytest.raises(daskps.StoreError, match="is closed"):
            connector.get(key)


class TestWhatIsLeft:
    def test_by_a_process_that_died(self, connector, pool):
        """It is known by who stored it; also if it was not all there yet."""
        code = f"""
            import os, signal
            from daskps.stores.daos import dictionary as daos_dictionary
            import sys
            from daskps.stores.daos.connector import DaosConnector
            connector = DaosConnector(*sys.argv[1:], "{CLUSTER}")
            print(connector.put_frames([b"needed"], "dead").name, flush=True)
            connector.put_frames([bytes(3000000)], "dead")
            put, puts = daos_dictionary.Dictionary.put, []
            def die(self, key, value):
                puts.append(key)
                if len(puts) == 3:
                    os.kill(os.getpid(), signal.SIGKILL)
                put(self, key, value)
            daos_dictionary.Dictionary.put = die
            connector.put_frames([bytes(3000000)], "dead")
            """
        process = start(code, *pool.names)
        name = process.communicate(timeout=PATIENCE)[0].strip()
        assert process.returncode == -9
        mine = connector.put_frames([b"mine"], "alive")
        assert len(pool.objects()) == 4
        needed = mine._replace(name=name, nbytes=6)
        connector.evict_orphans("dead", {needed})
        assert len(pool.objects()) == 2
        assert pool.chunks() == []
        assert bytes(connector.get(needed)) == b"needed"
        assert bytes(connector.get(mine)) == b"mine"

    def test_by_a_cluster_that_died(self, pool):
        code = """
            import os, sys, daskps
            store = daskps.open_store(sys.argv[1])
            store.put(bytes(3000000))
            os.kill(os.getpid(), 9)
            """
        assert run(code, pool.url)[0] == -9
        left = len(pool.chunks())
        assert left >= 3
        (lease,) = pool.leases()
        with daskps.open_store(pool.url) as store:
            key = store.put(b"abc")
            assert len(pool.chunks()) == left, "its lease has not run out"
            index = pool.dictionary(f"{pool.namespace}.daskps")
            index.put(lease, str(time.time() - 1))
            (dead,) = sweep(urlsplit(pool.url), dry_run=True)
            assert dead.startswith(f"{pool.url} ")
            assert len(pool.chunks()) == left, "it is only shown"
            daskps.open_store(pool.url).close()
            assert sweep(urlsplit(pool.url), dry_run=False) == []
            assert len(pool.objects()) == 1
            assert store.get(key) == b"abc"
        assert pool.everything() == []

    def test_its_lease_is_renewed(self, pool, monkeypatch):
        monkeypatch.setattr("daskps.stores.leases.HEARTBEAT_SECONDS", 0.1)
        connector = DaosConnector(*pool.names, CLUSTER, lease=60)
        deadline = time.monotonic() + PATIENCE
        others = Namespace(*pool.names)
        until = others._index.get("lease." + CLUSTER)
        while others._index.get("lease." + CLUSTER) == until:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        others.close()
        connector.close()

    def test_what_is_not_ours_is_never_swept(self, pool):
        index = pool.dictionary(f"{pool.namespace}.daskps")
        theirs = {
            "report.2024": b"mine",
            "lease.x": b"y",
            f"{CLUSTER} notes.1": b"too",
        }
        index.bput(dict(theirs))
        daskps.open_store(pool.url).close()
        assert index.dump() == theirs


class TestHandles:
    """To open a container takes a fifth of a second, and more in a new process."""

    def test_a_process_has_one_for_each_container(self, pool, pydaos, monkeypatch):
        opened = opened_containers(pydaos, monkeypatch)
        with daskps.open_store(pool.url) as store:
            key = store.connector.put(bytes(3000000))
            config = store.connector.config()["connector"]
            other = config.make()
            assert bytes(other.get(key)) == store.connector.get(key)
            other.close()
            assert sweep(urlsplit(pool.url), dry_run=True) == []
            assert len(opened) == 1
        with daskps.open_store(pool.url):
            assert len(opened) == 2, "the last one to close has closed it"

    def test_a_cluster_opens_it_in_threads(self, pool, pydaos, monkeypatch):
        """Not where an event loop runs, of the client, the scheduler or a worker."""
        opened = opened_containers(pydaos, monkeypatch)
        with (
            Client(
                n_workers=2,
                threads_per_worker=1,
                processes=False,
                dashboard_address=None,
            ) as client,
            daskps.proxy_graph(store=pool.url),
        ):
            x = np.arange(1 << 17)
            assert client.submit(np.sum, x).result() == x.sum()
        assert opened == [False]

    def test_signals_are_handled_as_before(self, pool):
        """PSM, which libfabric may load with pydaos, has handlers of its own."""
        code = """
            import os, signal, sys, daskps
            signal.signal(signal.SIGTERM, lambda *_: print("handled"))
            with daskps.open_store(sys.argv[1]):
                os.kill(os.getpid(), signal.SIGTERM)
            """
        assert run(code, pool.url) == (0, "handled")

    def test_one_that_is_closed_is_not_opened_again(self, pool):
        dictionary = Dictionary(*pool.names)
        container = dictionary._container
        dictionary.close()
        with pytest.raises(daskps.StoreError, match="is closed"):
            container.dictionary(pool.namespace)

    def test_threads_that_open_and_close(self, pool):
        def work(i):
            dictionary = Dictionary(*pool.names)
            dictionary.put(str(i), b"x")
            found = dictionary.get(str(i))
            dictionary.delete([str(i)])
            dictionary.close()
            return found

        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            assert set(threads.map(work, range(100))) == {b"x"}
        assert containers._containers == {}


def opened_containers(pydaos, monkeypatch):
    """Notes each container that is opened: whether in the thread of an event loop."""
    init, opened = pydaos.DCont.__init__, []

    def noting(self, *args, **kwargs):
        try:
            asyncio.get_running_loop()
            opened.append(True)
        except RuntimeError:
            opened.append(False)
        init(self, *args, **kwargs)

    monkeypatch.setattr(pydaos.DCont, "__init__", noting)
    return opened


def transferred(pydaos, monkeypatch):
    """Notes how many bytes each round trip transfers."""
    bget, bput, noted = pydaos.DDict.bget, pydaos.DDict.bput, []

    def noting_bget(self, values, *args):
        found = bget(self, values, *args)
        noted.append(sum(len(value or b"") for value in values.values()))
        return found

    def noting_bput(self, values):
        noted.append(sum(len(value or b"") for value in values.values()))
        bput(self, values)

    def noting_put(self, key, value):
        self.bput({key: value})

    monkeypatch.setattr(pydaos.DDict, "bget", noting_bget)
    monkeypatch.setattr(pydaos.DDict, "bput", noting_bput)
    monkeypatch.setattr(pydaos.DDict, "put", noting_put)
    return noted


def test_processes_that_are_spawned(connector):
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as processes:
        keys = list(processes.map(put_number, [connector.config()] * 20, range(20)))
    assert [int(bytes(connector.get(key))) for key in keys] == list(range(20))


def put_number(config, number):
    connector = DaosConnector.from_config(config)
    key = connector.put(str(number).encode())
    connector.close()
    return key
