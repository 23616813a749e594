"""What stores in a Redis server do besides what every store does."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import dask
import numpy as np
import pytest
from click.testing import CliRunner
from distributed import wait
from processes import PATIENCE, Gate, ProcessCluster, eventually, released
from redis_server import redis_server

import daskps
from benchmarks.cluster import free_port
from daskps.cli import sweep_command
from daskps.stores import leases
from daskps.stores.redis.connector import OWNER, RedisConnector
from daskps.stores.redis.server import RedisAddress
from daskps.stores.redis.wire import SEND_NBYTES, WINDOW_NBYTES, set_command
from daskps.stores.secret import Secret

MIB = 1 << 20
X = np.arange(1 << 18, dtype="f8")  # 2 MiB


@pytest.fixture(scope="module")
def server():
    with redis_server() as server:
        yield server


@pytest.fixture
def address(server):
    return RedisAddress("127.0.0.1", server.port, 0, password=Secret(server.password))


@pytest.fixture
def connector(address):
    connector = RedisConnector(address, "of-tests", lease=60.0, owner=True)
    yield connector
    connector.close()


def objects(server):
    """Names of the keys of objects."""
    names = server.admin.keys("daskps:*")
    return [name for name in names if not name.endswith(b":" + OWNER.encode())]


class TestLargeObjects:
    """An object that is larger than a key may be is in several."""

    @pytest.fixture
    def connector(self, address):
        connector = RedisConnector(address, "p", 60.0, part_nbytes=2 * MIB, owner=True)
        yield connector
        connector.close()

    @pytest.mark.parametrize(
        "nbytes", [2 * MIB - 1, 2 * MIB, 2 * MIB + 1, 4 * MIB, 7 * MIB + 5]
    )
    def test_are_put_together_again(self, connector, server, nbytes):
        data = np.random.default_rng(nbytes).integers(0, 256, nbytes, "u1")
        frames = [b"head", data[: nbytes // 3], data[nbytes // 3 :]]
        key = connector.put_frames(frames)
        assert bytes(connector.get(key)) == b"head" + data.tobytes()
        assert len(objects(server)) == -(-(nbytes + 4) // (2 * MIB))
        assert connector.exists(key)
        connector.evict(key)
        assert not objects(server)

    def test_are_not_there_if_a_part_is_missing(self, connector, server):
        key = connector.put(bytes(5 * MIB))
        server.admin.delete(objects(server)[1])
        assert connector.get(key) is None
        assert not connector.exists(key)

    def test_are_not_there_if_a_part_has_another_size(self, connector, server):
        key = connector.put(bytes(5 * MIB))
        server.admin.append(sorted(objects(server))[0], b"more")
        assert connector.get(key) is None
        assert not connector.exists(key)

    def test_connections_are_good_after_a_failure(self, connector, server):
        keys = [connector.put(bytes([i]) * 5 * WINDOW_NBYTES) for i in range(3)]
        server.admin.delete(*[k for k in objects(server) if keys[1].name.encode() in k])
        for _ in range(3):
            assert connector.get(keys[1]) is None
            assert bytes(connector.get(keys[0])) == bytes(5 * WINDOW_NBYTES)
            assert bytes(connector.get(keys[2])) == b"\2" * 5 * WINDOW_NBYTES


class TestAHalfWrittenObject:
    def test_leaves_nothing(self, connector, server):
        class Lying(bytes):
            def __len__(self):
                return 5

        with pytest.raises(RuntimeError):
            connector.put_frames([b"x" * 100_000, Lying(b"abc")])
        assert not objects(server)
        assert bytes(connector.get(connector.put(b"next"))) == b"next"


class TestNoRoom:
    def test_is_an_error_that_says_so(self):
        with redis_server(options=("--maxmemory", "64mb")) as server:
            address = RedisAddress(
                "127.0.0.1", server.port, 0, password=Secret(server.password)
            )
            connector = RedisConnector(address, "full", lease=60.0, owner=True)
            assert connector.capacity() == 64 * MIB
            keys = [connector.put(bytes(MIB)) for _ in range(3)]
            with pytest.raises(
                daskps.StoreFullError, match=r"maxmemory.*another store"
            ):
                connector.put(bytes(80 * MIB))
            assert len(objects(server)) == 3
            for key in keys:
                connector.evict(key)
            assert bytes(connector.get(connector.put(b"x"))) == b"x"
            connector.close()


class TestLeases:
    @pytest.fixture
    def settings(self):
        """So short that a test can wait for their end."""
        with dask.config.set({"daskps.lease": "5s"}):
            yield

    def test_objects_go_by_themselves(self, address, server):
        connector = RedisConnector(address, "short", lease=0.3, owner=True)
        key = connector.put(bytes(MIB))
        assert eventually(lambda: not objects(server))
        assert connector.get(key) is None
        connector.close()

    def test_what_is_renewed_or_asked_for_stays(self, address, server):
        connector = RedisConnector(address, "short", lease=5, owner=True)
        renewed, asked, forgotten = (connector.put(b"x") for _ in range(3))

        def one_has_gone():
            connector.renew([renewed])
            assert connector.exists(asked)
            return len(objects(server)) == 2

        assert eventually(one_has_gone)
        assert connector.exists(renewed)
        assert not connector.exists(forgotten)
        connector.close()

    def test_by_hand_all_are_kept_until_the_store_is_closed(self, settings, server):
        with daskps.open_store(server.url) as store:
            key = store.put(np.arange(5))
            time.sleep(7)
            assert store.get(key).sum() == 10
        assert not server.admin.keys()

    def test_threads_end_with_their_store(self, settings, server):
        def running():
            return [t for t in threading.enumerate() if t.name == "daskps-leases"]

        before = running()
        store = daskps.open_store(server.url)
        assert len(running()) == len(before) + 2
        store.close()
        assert eventually(lambda: running() == before)

    def test_what_tasks_need_is_kept_and_what_a_client_holds(
        self, settings, server, client
    ):
        with daskps.proxy_graph(server.url) as session:
            gate = client.submit(time.sleep, 7)
            future = client.submit(sum_later, X, gate)
            held = session.catalog(client).put([b"held" * 1000])
            session.cache.clear()
            assert future.result(timeout=PATIENCE) == X.sum()
            assert session.catalog(client).store.connector.exists(held.id.key)
            del held, future, gate
        assert released(client)
        assert eventually(lambda: not objects(server))

    def test_after_kill_of_everything_objects_go_by_themselves(self, server):
        with ProcessCluster(workers=1) as cluster:
            pids = [str(p.pid) for p in (cluster.scheduler, *cluster.workers)]
            subprocess.run(
                [
                    *(sys.executable, "-c", SUBMIT_AND_KILL),
                    *(cluster.address, server.url, *pids),
                ],
                env={**os.environ, "DASK_DASKPS__LEASE": "5s"},
                check=False,
            )
            assert objects(server)
        assert eventually(lambda: not objects(server))
        # The host's copies do not expire: the next store that is opened here deletes them.
        with daskps.open_store(server.url) as store:
            assert store.connector.get(store.connector.put(bytes(1 << 20))) is not None


SUBMIT_AND_KILL = """
import os, signal, sys
import numpy as np
from distributed import Client
import daskps
client = Client(sys.argv[1])
with daskps.proxy_graph(sys.argv[2]):
    x = np.arange(1 << 18)
    client.submit(np.sum, x).result()
    for pid in [*map(int, sys.argv[3:]), os.getpid()]:
        os.kill(pid, signal.SIGKILL)
"""


def sum_later(x, gate):
    return x.sum()


class TestOrphans:
    def test_go_unless_somebody_needs_them(self, connector):
        needed = connector.put_frames([b"needed"], "me")
        not_needed = connector.put_frames([b"not needed"], "me")
        others = connector.put_frames([b"another's"], "you")
        connector.evict_orphans("me", {needed})
        assert [connector.exists(k) for k in (needed, not_needed, others)] == [1, 0, 1]

    def test_of_a_client_that_died_before_it_announced_them(self, server, cluster):
        with cluster.client(set_as_default=False) as client:
            subprocess.run(
                [sys.executable, "-c", PUT_AND_DIE, cluster.address, server.url],
                check=False,
            )
            assert eventually(lambda: not objects(server))
            assert released(client)


PUT_AND_DIE = """
import os, signal, sys
from distributed import Client
import daskps
client = Client(sys.argv[1])
with daskps.proxy_graph(sys.argv[2]) as session:
    session.catalog(client).put([b"x" * 100_000])
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_time_limit_is_for_a_piece_not_for_a_value():
    value = bytes(range(256)) * (5 * SEND_NBYTES // 512)
    sent = list(set_command("key", len(value), [memoryview(value)], 1000))
    assert max(map(len, sent)) == SEND_NBYTES
    assert value in b"".join(sent)


class TestSweep:
    def sweep(self, *arguments):
        return CliRunner().invoke(sweep_command, arguments)

    def test_deletes_what_has_no_living_owner(self, server, connector, address):
        alive = connector.put(b"alive")
        dead = RedisConnector(address, "dead", lease=60.0)
        dead.put(b"left")
        server.admin.set("other", "not ours")
        done = self.sweep("--dry-run", server.url)
        assert done.output == "daskps:dead:\n1 found\n", done.output
        assert len(objects(server)) == 2
        assert self.sweep(server.url).output == "daskps:dead:\n1 deleted\n"
        assert connector.exists(alive)
        assert server.admin.get("other") == b"not ours"
        assert len(objects(server)) == 1
        server.admin.delete("other")

    def test_says_what_is_wrong(self, server):
        for url in (server.url.replace("s3cret", "wr0ng"), "s4://bucket", "nowhere"):
            done = self.sweep(url)
            assert done.exit_code
            assert "Error" in done.output
            assert isinstance(done.exception, SystemExit)
            assert "wr0ng" not in done.output


class TestWhenTheServer:
    def test_is_not_there_the_session_says_so(self, client):
        url = f"redis://127.0.0.1:{free_port()}"
        with (
            pytest.raises(daskps.ConfigError, match=r"127\.0\.0\.1.*refused.*runs"),
            daskps.proxy_graph(url),
        ):
            pass

    def test_has_no_such_database_the_session_says_which_it_has(self, client, server):
        url = server.url.removesuffix("/0") + "/99"
        with (
            pytest.raises(
                daskps.ConfigError, match=r"no database 99: .* one of 0 to 15"
            ) as error,
            daskps.proxy_graph(url),
        ):
            pass
        assert server.password not in str(error.value)
        with pytest.raises(daskps.ConfigError, match="no database 99"):
            daskps.open_store(url)

    def test_goes_away_values_are_sent_in_the_graph(self, client):
        with redis_server() as server, daskps.proxy_graph(server.url):
            assert client.submit(np.sum, X).result() == X.sum()
            server.stop()
            with pytest.warns(UserWarning, match="sent inside the graph"):
                future = client.submit(np.add, X, 1)
            np.testing.assert_array_equal(future.result(timeout=PATIENCE), X + 1)
            server.start()
            assert client.submit(np.max, X).result(timeout=PATIENCE) == X.max()
            del future
            assert eventually(lambda: len(objects(server)) <= 1)

    def test_comes_back_tasks_go_on(self, client):
        with redis_server() as server, daskps.proxy_graph(server.url):
            gate = Gate(client)
            future = client.submit(sum_later, X, gate.future)
            server.stop(save=True)
            gate.open()
            time.sleep(1)
            server.start()
            assert future.result(timeout=PATIENCE) == X.sum()
            del future, gate

    def test_lost_everything_the_error_says_what_to_do(self, client):
        with redis_server() as server, daskps.proxy_graph(server.url):
            gate = Gate(client)
            future = client.submit(sum_later, X, gate.future, key="needs-it")
            server.admin.flushall()
            gate.open()
            with pytest.raises(daskps.ObjectMissingError, match=r"needs-it.*Submit"):
                future.result(timeout=PATIENCE)
            future.release()
            del gate
            assert client.submit(np.min, X).result(timeout=PATIENCE) == X.min()


def test_computations_leave_nothing(server, client):
    with daskps.proxy_graph(server.url):
        future = client.submit(np.add, X, 1)
        wait(future)
        np.testing.assert_array_equal(future.result(), X + 1)
        assert len(objects(server)) == 2, "what went in, and the result"
        del future
    assert released(client)
    assert eventually(lambda: not objects(server))


def test_with_tls_and_a_server_that_cannot_prove_who_it_is(client):
    with redis_server(tls=True) as server:
        url, _, _ = server.url.partition("?")
        with (
            pytest.raises(daskps.ConfigError, match="certificate verify failed"),
            daskps.proxy_graph(url),
        ):
            pass
        with daskps.proxy_graph(url + "?ssl_cert_reqs=none"):
            assert client.submit(np.sum, X).result() == X.sum()


def test_local_schedulers(server):
    with dask.config.set({"daskps.lease": "2s"}), daskps.proxy_graph(server.url):
        value = dask.delayed(np.sum)(X)
        assert value.compute(scheduler="threads") == X.sum()


def test_heartbeats_are_more_frequent_than_leases():
    from daskps.stores.redis.connector import OWNER_LEASE_SECONDS

    assert leases.HEARTBEAT_SECONDS * 3 < OWNER_LEASE_SECONDS
