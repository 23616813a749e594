"""Processes that die, leave, join and come back: nothing lost, nothing left.

Processes are killed with SIGKILL, so that none of them can clean up.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import psutil
import pytest
from distributed import Client, LocalCluster, wait
from processes import (
    PATIENCE,
    ROOT,
    ProcessCluster,
    catch_storing,
    children,
    eventually,
    live,
    objects_in,
    released,
    store_directories,
    until_gone,
)

import daskps
from daskps.stores.keys import creator_name

pytestmark = pytest.mark.slow

X = np.arange(1 << 18, dtype="f8")  # 2 MiB
HUGE = 64 << 20  # elements: 512 MiB, long enough to be caught while it is stored


@pytest.fixture(autouse=True)
def no_leaks():
    """As for all tests; but clusters that go on may have started workers again."""

    def processes():
        return {p for p in children() if not _belongs_to_a_live_cluster(p)}

    directories, before = store_directories(), processes()

    def left():
        gc.collect()
        owned = {d for cluster in live for d in cluster.owned}
        return store_directories() - directories - owned

    yield
    eventually(lambda: not left())
    assert not left()
    eventually(lambda: processes() <= before)
    assert processes() <= before


def _belongs_to_a_live_cluster(process):
    roots = {p.pid for c in live for p in [c.scheduler, *c.workers]}
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(roots & {process.pid, *(p.pid for p in process.parents())})
    return False


@pytest.fixture(scope="module")
def nannies():
    """Two workers that come back when they are killed."""
    with ProcessCluster(nanny=True) as cluster:
        yield cluster


@pytest.fixture
def nanny_client(nannies):
    with nannies.client() as client:
        client.wait_for_workers(2, timeout=PATIENCE)
        yield client
        assert released(client), f"not released: {daskps.usage(client)}"
        assert eventually(lambda: not objects_in(nannies)), "files are left"


def kill_workers(client, *addresses):
    """Kill these workers; all, if none is given."""
    pids = client.run(os.getpid, workers=list(addresses) or None).values()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        assert eventually(lambda pid=pid: not running(pid))


def running(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def holder(client, future):
    """The worker that has a result."""
    (addresses,) = client.who_has([future]).values()
    return addresses[0]


def mark_and_sum(x, path):
    """The sum; the first time, tells that it runs, and does not finish."""
    if not os.path.exists(path):
        with open(path, "w"):
            time.sleep(60)
    return x.sum()


def pause_and_sum(x, path):
    """The sum; the first time, tells that it runs, and takes a while. Writes down each."""
    if not os.path.exists(path):
        with open(path, "w"):
            time.sleep(1)
    with open(path + ".sums", "a") as f:
        f.write(f"{x.sum()}\n")
    return x.sum()


def after(gate, x):
    return x.sum()


class TestAWorkerIsKilled:
    def test_before_its_task(self, nanny_client):
        with daskps.proxy_graph():
            gates = nanny_client.map(time.sleep, [1.0, 1.01])
            future = nanny_client.submit(after, gates, X)
            time.sleep(0.2)
            kill_workers(nanny_client)
            assert future.result(timeout=PATIENCE) == X.sum()

    def test_during_its_task(self, nanny_client, tmp_path):
        path = str(tmp_path / "runs")
        with daskps.proxy_graph():
            future = nanny_client.submit(mark_and_sum, X, path)
            assert eventually(lambda: os.path.exists(path))
            kill_workers(nanny_client)
            assert future.result(timeout=PATIENCE) == X.sum()

    def test_that_alone_holds_a_result(self, nanny_client):
        with daskps.proxy_graph():
            first = nanny_client.submit(np.add, X, 1)
            wait(first)
            kill_workers(nanny_client, holder(nanny_client, first))
            second = nanny_client.submit(np.add, first, 1)
            np.testing.assert_array_equal(second.result(timeout=PATIENCE), X + 2)
            np.testing.assert_array_equal(first.result(timeout=PATIENCE), X + 1)

    def test_after_its_result_was_read(self, nanny_client):
        with daskps.proxy_graph():
            future = nanny_client.submit(np.add, X, 1)
            read = future.result()
            kill_workers(nanny_client, holder(nanny_client, future))
            # Its results are deleted some seconds after it died; what was read stays.
            np.testing.assert_array_equal(future.result(timeout=PATIENCE), X + 1)
            time.sleep(6)
            np.testing.assert_array_equal(future.result(timeout=PATIENCE), X + 1)
            np.testing.assert_array_equal(read, X + 1)

    def test_while_it_stores_a_result(self, nannies, nanny_client):
        address, pid = next(iter(nanny_client.run(os.getpid).items()))
        with daskps.proxy_graph():
            future = nanny_client.submit(
                np.ones, HUGE, workers=[address], allow_other_workers=True
            )
            wait(future)
            got = []

            def read(future):
                got.append(future.result(timeout=PATIENCE))

            reader = threading.Thread(target=read, args=[future])
            reader.start()
            assert catch_storing(nannies, pid), "it was too fast to be caught"
            os.kill(pid, signal.SIGKILL)
            reader.join(PATIENCE)
            assert got
            assert got[0].shape == (HUGE,)
            assert got[0].min() == got[0].max() == 1
            del future

    @pytest.mark.full
    def test_a_killed_worker_again_and_again(self, nanny_client):
        with daskps.proxy_graph():
            for i in range(4):
                futures = nanny_client.map(
                    slow_sum, [X + i * 10 + j for j in range(8)], pure=False, retries=9
                )
                time.sleep(0.3)
                kill_workers(nanny_client)
                assert nanny_client.gather(futures) == [
                    (X + i * 10 + j).sum() for j in range(8)
                ]
                nanny_client.wait_for_workers(2, timeout=PATIENCE)


def slow_sum(x):
    time.sleep(0.1)
    return x.sum()


def sum_when_gone(x, path):
    until_gone(path)
    return x.sum()


class TestWorkersComeAndGo:
    def test_a_nanny_is_killed(self):
        with ProcessCluster(nanny=True) as cluster, cluster.client() as client:
            with daskps.proxy_graph():
                futures = client.map(np.add, [X, X + 1, X + 2], [1, 1, 1])
                wait(futures)
                nanny = cluster.workers[0]
                pids = set(client.run(os.getpid).values())
                family = psutil.Process(nanny.pid).children(recursive=True)
                (worker,) = [p for p in family if p.pid in pids]
                nanny.kill()
                nanny.wait()
                for i, result in enumerate(client.gather(futures)):
                    np.testing.assert_array_equal(result, X + i + 1)
                assert eventually(lambda: not running(worker.pid))
                for i, result in enumerate(client.gather(futures)):
                    np.testing.assert_array_equal(result, X + i + 1)
            del futures
            assert released(client)

    def test_a_worker_joins_late_and_the_first_one_leaves(self):
        with ProcessCluster(workers=1) as cluster, cluster.client() as client:
            with daskps.proxy_graph():
                future = client.submit(np.add, X, 1)
                wait(future)
                first = holder(client, future)
                cluster.add_worker()
                client.wait_for_workers(2, timeout=PATIENCE)
                (late,) = set(client.scheduler_info(-1)["workers"]) - {first}
                total = client.submit(np.sum, X, workers=[late])
                assert total.result(timeout=PATIENCE) == X.sum()
                copy = client.submit(np.add, X, 2, workers=[late])
                np.testing.assert_array_equal(copy.result(timeout=PATIENCE), X + 2)
                client.retire_workers([first])
                np.testing.assert_array_equal(future.result(timeout=PATIENCE), X + 1)
            del future, total, copy
            assert released(client)

    def test_tasks_are_stolen(self, tmp_path):
        environment = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION": "inf"}
        with (
            ProcessCluster(workers=1, scheduler=environment) as cluster,
            cluster.client() as client,
        ):
            with daskps.proxy_graph():
                gate = tmp_path / "gate"
                gate.touch()
                arrays = [X + i for i in range(60)]
                futures = client.map(sum_when_gone, arrays, path=str(gate))
                cluster.add_worker()
                assert eventually(lambda: client.get_events("stealing"))
                gate.unlink()
                assert client.gather(futures) == [(X + i).sum() for i in range(60)]
                assert len({holder(client, future) for future in futures}) == 2
            del futures
            assert released(client)

    @pytest.mark.full
    def test_a_task_runs_on_two_workers_at_once(self, tmp_path):
        """The scheduler takes a worker for dead that has only been stopped."""
        environment = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "8s"}
        with (
            ProcessCluster(workers=2, scheduler=environment) as cluster,
            cluster.client() as client,
            daskps.proxy_graph(),
        ):
            path = str(tmp_path / "runs")
            pids = client.run(os.getpid)
            future = client.submit(pause_and_sum, X, path)
            assert eventually(lambda: os.path.exists(path))
            (first,) = [pids[a] for a, keys in client.processing().items() if keys]
            os.kill(first, signal.SIGSTOP)
            try:
                assert future.result(timeout=PATIENCE) == X.sum()
                del future
                # Written where what the other one still reads was, if anything could be.
                for i in range(4):
                    total = client.submit(np.sum, X + i, pure=False)
                    assert total.result(timeout=PATIENCE) == (X + i).sum()
                    del total
            finally:
                os.kill(first, signal.SIGCONT)
            sums = Path(path + ".sums")
            assert eventually(lambda: len(sums.read_text().split()) == 2)
            assert set(sums.read_text().split()) == {str(X.sum())}
            assert daskps.usage(client).objects
        assert eventually(lambda: not running(first))

    def test_adaptive_scaling_to_zero_and_back(self):
        with (
            LocalCluster(
                n_workers=0, threads_per_worker=1, dashboard_address=None
            ) as cluster,
            Client(cluster) as client,
        ):
            cluster.adapt(minimum=0, maximum=2, interval="100ms", wait_count=2)
            with daskps.proxy_graph():
                for i in range(2):
                    future = client.submit(np.add, X, i)
                    np.testing.assert_array_equal(
                        future.result(timeout=PATIENCE), X + i
                    )
                    del future
                    assert eventually(lambda: not cluster.scheduler.workers)
                assert daskps.usage(client).objects == 1, "the session keeps it"
            assert released(client)

    def test_restart_with_work_of_all_kinds(self, nannies, nanny_client):
        with daskps.proxy_graph():
            x = da.from_array(X, chunks=len(X) // 4).persist()
            future = nanny_client.submit(np.add, X, 1)
            read = future.result()
            running = nanny_client.map(slow_sum, [X + i for i in range(8)])
            # Dask itself loses track of a graph that arrives during a restart.
            wait(running[:1])
            nanny_client.restart()
            nanny_client.wait_for_workers(2, timeout=PATIENCE)
            np.testing.assert_array_equal(read, X + 1)
            for dead in [future, *running]:
                assert dead.status == "cancelled"
            again = da.from_array(X, chunks=len(X) // 4)
            assert again.sum().compute() == X.sum()
            assert nanny_client.submit(np.sum, X).result() == X.sum()
            del x


class Program:
    """A program of its own that uses a cluster."""

    def __init__(self, cluster, code):
        head = """
            import os, signal, sys, time
            import dask.array as da
            import numpy as np
            from distributed import Client, wait
            import daskps
            X = np.arange(1 << 18, dtype="f8")
        """
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c"),
                textwrap.dedent(head) + textwrap.dedent(code),
                cluster.address,
            ],
            stdout=subprocess.PIPE,
            text=True,
        )

    def says(self, line):
        said = self.process.stdout.readline().rstrip("\n")
        assert said == line
        return True

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.kill()
        self.process.stdout.close()


IDLE = """
    client = Client(sys.argv[1])
    with daskps.proxy_graph():
        assert client.submit(np.sum, X).result() == X.sum()
        print("idle", flush=True)
        time.sleep(60)
"""


class TestAClientIsKilled:
    def test_an_idle_client(self, cluster, client):
        with Program(cluster, IDLE) as program:
            assert program.says("idle")
            assert daskps.usage(client).objects == 1
            program.kill()
            assert released(client)
        assert eventually(lambda: not objects_in(cluster))

    def test_while_it_stores(self, cluster, client):
        code = f"""
            client = Client(sys.argv[1])
            with daskps.proxy_graph():
                x = np.ones({HUGE})
                print("stores", flush=True)
                client.submit(np.sum, x).result()
                time.sleep(60)
        """
        with daskps.proxy_graph(), Program(cluster, code) as program:
            mine = client.submit(np.sum, X)
            assert mine.result() == X.sum()
            assert program.says("stores")
            assert catch_storing(cluster, program.process.pid), "it was too fast"
            program.kill()
            assert eventually(lambda: len(objects_in(cluster)) == 1)
            assert client.submit(np.sum, X, pure=False).result() == X.sum()
            del mine
        assert released(client)
        assert eventually(lambda: not objects_in(cluster))

    def test_with_persisted_work(self, cluster, client):
        code = """
            client = Client(sys.argv[1])
            with daskps.proxy_graph():
                x = (da.from_array(X, chunks=len(X) // 4) + 1).persist()
                slow = client.submit(lambda x: time.sleep(1) or x.sum(), X)
                wait(x)
                print("persisted", flush=True)
                time.sleep(60)
        """
        with Program(cluster, code) as program:
            assert program.says("persisted")
            assert daskps.usage(client).objects == 5
            program.kill()
            assert released(client)
        assert eventually(lambda: not objects_in(cluster))

    def test_with_a_published_dataset(self, nannies, nanny_client):
        code = """
            client = Client(sys.argv[1])
            with daskps.proxy_graph():
                x = (da.from_array(X, chunks=len(X) // 4) + 1).persist()
                wait(x)
                client.publish_dataset(x, name="left")
                print("published", flush=True)
                time.sleep(60)
        """
        with Program(nannies, code) as program:
            assert program.says("published")
            program.kill()
            time.sleep(0.5)
            assert daskps.usage(nanny_client).objects == 4
            kill_workers(nanny_client)  # so that all is computed again
            x = nanny_client.get_dataset("left")
            assert x.sum().compute() == (X + 1).sum()
            del x
            nanny_client.unpublish_dataset("left")

    def test_interrupted_while_it_stores(self, cluster, client):
        code = f"""
            client = Client(sys.argv[1])
            with daskps.proxy_graph():
                x = np.ones({HUGE})
                print("stores", flush=True)
                try:
                    client.submit(np.sum, x)
                except KeyboardInterrupt:
                    print("interrupted", flush=True)
                assert client.submit(np.sum, X).result() == X.sum()
                print("goes on", flush=True)
                time.sleep(60)
        """
        with Program(cluster, code) as program:
            assert program.says("stores")
            assert catch_storing(cluster, program.process.pid), "it was too fast"
            program.process.send_signal(signal.SIGINT)
            program.process.send_signal(signal.SIGCONT)
            assert program.says("interrupted")
            assert program.says("goes on")
            assert eventually(lambda: len(objects_in(cluster)) == 1)
            assert daskps.usage(client).objects == 1
            program.kill()
            assert released(client)
        assert eventually(lambda: not objects_in(cluster))

    def test_has_not_ended_when_its_connection_does(self, cluster, client):
        """What it was writing is locked, for as long as its process lives."""
        with cluster.client(set_as_default=False) as other:
            with daskps.proxy_graph(client=other):
                future = other.submit(np.sum, X)
                assert future.result() == X.sum()
                (path,) = objects_in(cluster)
            creator = creator_name(other.id)
            assert os.path.basename(path).startswith(creator)
            part = os.path.join(os.path.dirname(path), f"{creator}.unfinished.part")
            with open(part, "wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                other.close()
                assert eventually(lambda: objects_in(cluster) == [part])
                time.sleep(0.5)
                assert objects_in(cluster) == [part]
        assert eventually(lambda: not objects_in(cluster))

    def test_ends_without_closing_anything(self, cluster, client):
        code = """
            client = Client(sys.argv[1])
            daskps.proxy_graph().__enter__()
            futures = client.map(np.add, [X, X + 1], [1, 1])
            results = client.gather(futures)
            everything = [client, futures, results]
            everything.append(everything)
        """
        with Program(cluster, code) as program:
            program.process.stderr = None
            assert program.process.wait(PATIENCE) == 0
        assert released(client)
        assert eventually(lambda: not objects_in(cluster))


class TestTheSchedulerIsKilled:
    def test_a_new_one_sweeps_and_clients_go_on(self):
        with ProcessCluster(workers=1) as cluster, cluster.client() as client:
            with daskps.proxy_graph():
                future = client.submit(np.add, X, 1)
                np.testing.assert_array_equal(future.result(), X + 1)
                kept = cluster.directories
                port = cluster.address.rpartition(":")[2]
                cluster.scheduler.kill()
                cluster.scheduler.wait()
                cluster.workers.pop().wait(PATIENCE)
                cluster.scheduler = cluster._start(
                    f"scheduler --port {port} --no-dashboard --no-show", {}
                )
                cluster.add_worker()
                client.wait_for_workers(1, timeout=PATIENCE)
                assert future.status == "cancelled"
                # The same data as before: what was stored is gone.
                again = client.submit(np.add, X, 1)
                np.testing.assert_array_equal(again.result(timeout=PATIENCE), X + 1)
                assert daskps.usage(client).objects == 1
                assert not kept & store_directories(), "swept"
                other = client.submit(np.add, X, 2)
                np.testing.assert_array_equal(other.result(timeout=PATIENCE), X + 2)
            del future, again, other
            assert released(client)
            assert client.submit(sum, [1, 2]).result(timeout=PATIENCE) == 3

    def test_a_client_that_has_left_its_session(self):
        """What it still held must not trouble a scheduler that does not know daskps."""
        with ProcessCluster(workers=1) as cluster, cluster.client() as client:
            session = daskps.proxy_graph()
            session.__enter__()
            client.submit(np.add, X, 1).result()
            port = cluster.address.rpartition(":")[2]
            cluster.scheduler.kill()
            cluster.scheduler.wait()
            cluster.workers.pop().wait(PATIENCE)
            cluster.scheduler = cluster._start(
                f"scheduler --port {port} --no-dashboard --no-show", {}
            )
            cluster.add_worker()
            client.wait_for_workers(1, timeout=PATIENCE)
            future = client.submit(np.ones, 1 << 18)
            session.__exit__(None, None, None)
            time.sleep(0.3)
            assert future.result(timeout=PATIENCE).sum() == 1 << 18
            assert future.status == "finished", "the connection was not lost again"


class TestEverythingIsKilled:
    def test_everything_that_was_killed_is_swept_by_hand(self):
        before = store_directories()
        with ProcessCluster(workers=1) as cluster:
            with Program(cluster, IDLE) as program:
                assert program.says("idle")
                left = store_directories() - before
                assert len(left) == 2
                assert not left & sweep("--dry-run"), "their owner lives"
                # The scheduler last: those that are left would sweep.
                for process in [program.process, *cluster.workers, cluster.scheduler]:
                    process.kill()
                    process.wait()
            assert left <= store_directories()
            assert left <= sweep("--dry-run")
            assert left <= store_directories()
            assert left <= sweep()
            assert not left & store_directories()


def sweep(*options):
    """The directories that the command shows."""
    command = [sys.executable, "-m", "dask", "daskps", "sweep", *options]
    swept = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return set(swept.splitlines()[:-1])


class TestTheConnectionIsLost:
    def test_a_connection_that_comes_back(self, cluster, client):
        """The scheduler has dropped what the client held meanwhile."""
        with daskps.proxy_graph():
            assert client.submit(np.sum, X).result() == X.sum()
            disconnect(client)
            assert eventually(lambda: client.status == "running")
            assert released(client)
            assert client.submit(np.sum, X).result(timeout=PATIENCE) == X.sum()
            big = client.submit(np.add, X, 1)
            np.testing.assert_array_equal(big.result(timeout=PATIENCE), X + 1)
            del big
        assert released(client)

    def test_while_a_client_submits(self, cluster, client):
        with daskps.proxy_graph():
            stop = time.monotonic() + 3
            disconnected = 0
            while time.monotonic() < stop:
                if disconnected < 3:
                    disconnect(client, wait=False)
                    disconnected += 1
                # Either the answer, or a word about the connection.
                try:
                    future = client.submit(np.add, X, disconnected, pure=False)
                    result = future.result(timeout=PATIENCE)
                except Exception as e:
                    if "connection" not in str(e):
                        raise
                else:
                    np.testing.assert_array_equal(result, X + disconnected)
            future = client.submit(np.add, X, 5)
            np.testing.assert_array_equal(future.result(timeout=PATIENCE), X + 5)
            del future
        assert released(client)

    def test_a_connection_that_comes_back_before_the_rest_is_deleted(self):
        """A scheduler that deletes slowly takes nothing that the client stored since."""
        with ProcessCluster() as cluster, cluster.client() as client:
            with daskps.proxy_graph():
                assert client.submit(np.sum, X).result() == X.sum()
                client.run_on_scheduler(keep_deleting, 2)
                disconnect(client)
                assert eventually(lambda: client.status == "running")
                later = client.submit(time.sleep, 4)
                total = client.submit(lambda x, later: x.sum(), X, later)
                assert total.result(timeout=PATIENCE) == X.sum()
                del total
            assert released(client)


def keep_deleting(seconds, dask_scheduler):
    evictor = dask_scheduler.plugins["daskps"]._evictor
    for thread in evictor._threads.values():
        thread.submit(time.sleep, seconds)


def disconnect(client, wait=True):
    comm = client.scheduler_comm

    def abort():
        if comm is not None and comm.comm is not None:
            comm.comm.abort()

    client.loop.add_callback(abort)
    if wait:
        assert eventually(lambda: client.scheduler_comm is not comm)


class TestSeveralClients:
    def test_a_future_is_released_while_another_client_reads_it(
        self, cluster, client, other_client
    ):
        """The worker may drop a result between storing it and its being read."""
        with daskps.proxy_graph():
            for i in range(20):
                mine = client.submit(np.add, X, i, key=f"shared-{i}")
                wait(mine)
                theirs = other_client.submit(np.add, X, i, key=f"shared-{i}")
                reader = threading.Thread(target=mine.release)
                reader.start()
                np.testing.assert_array_equal(theirs.result(timeout=PATIENCE), X + i)
                reader.join()
                theirs.release()
        assert released(client)

    def test_a_result_that_is_gone_is_asked_for_again(self, cluster, client):
        """As when the worker dropped it while the reference was on its way."""
        with daskps.proxy_graph():
            future = client.submit(np.add, X, 1)
            np.testing.assert_array_equal(future.result(), X + 1)
            before = set(objects_in(cluster))
            for path in before:
                os.unlink(path)
            np.testing.assert_array_equal(future.result(timeout=PATIENCE), X + 1)
            np.testing.assert_array_equal(future.result(timeout=PATIENCE), X + 1)
            assert client.gather([future, future], direct=True)[1][0] == 1
            del future
        assert released(client)

    def test_what_one_reader_writes_no_other_sees(self, cluster, client, other_client):
        with daskps.proxy_graph():
            future = client.submit(np.add, X, 1)
            with daskps.proxy_graph(client=other_client):
                theirs = other_client.submit(np.add, X, 1, key=future.key)
                for reader in (future, theirs, future, theirs):
                    result = reader.result()
                    np.testing.assert_array_equal(result, X + 1)
                    result[:] = -1
                total = client.submit(np.sum, future)
                assert total.result() == (X + 1).sum()
            del future, theirs, reader, total

    def test_what_a_task_changes_the_next_one_does_not_see(self, client):
        def zero(x):
            total = x.sum()
            x[:] = 0
            return total

        with daskps.proxy_graph():
            x = X.copy()
            futures = client.map(zero, [x] * 6, pure=False)
            assert client.gather(futures) == [X.sum()] * 6
            np.testing.assert_array_equal(x, X)
            del futures


class TestDataThatChanges:
    def test_an_array_between_two_submissions(self, client):
        x = X.copy()
        with daskps.proxy_graph():
            for i in range(5):
                x[::1000] = i
                assert client.submit(np.sum, x, pure=False).result() == x.sum()

    def test_a_result_on_its_worker_between_two_readings(self, client):
        with daskps.proxy_graph():
            future = client.submit(np.add, X, 1)
            np.testing.assert_array_equal(future.result(), X + 1)

            def change(key, dask_worker):
                dask_worker.data[key][0] = 77

            client.run(change, future.key, workers=[holder(client, future)])
            assert future.result()[0] == 77
            del future

    def test_in_place_between_persist_and_compute(self, client):
        x = X.copy()
        with daskps.proxy_graph(), dask.config.set({"daskps.cache-size": 0}):
            y = da.from_array(x, chunks=len(x) // 2, name=False)
            first = (y + 1).persist()
            wait(first)
            x[:] = 0
            second = da.from_array(x, chunks=len(x) // 2, name=False)
            assert second.sum().compute() == 0
            assert first.sum().compute() == (X + 1).sum()
            del first


class TestOutsideSessions:
    """What was stored within a session is used after it."""

    def test_a_graph_is_submitted_twice(self, nanny_client):
        x = da.from_array(X, chunks=len(X) // 2)
        with daskps.proxy_graph():
            graph = daskps.optimize(x.dask, [])
        keys = list(x.__dask_keys__())
        wait(nanny_client.get(graph, keys, sync=False))
        assert eventually(lambda: not nanny_client.who_has()), "tasks are forgotten"
        futures = nanny_client.get(graph, keys, sync=False)
        wait(futures)
        del graph
        gc.collect()
        time.sleep(0.3)
        assert daskps.usage(nanny_client).objects == 2
        kill_workers(nanny_client)
        blocks = nanny_client.gather(futures)
        np.testing.assert_array_equal(np.concatenate(blocks), X)
        del futures, blocks

    def test_a_proxy_is_passed_and_dropped(self, nanny_client):
        with daskps.proxy_graph():
            proxy = daskps.proxy(X)
        gate = nanny_client.submit(time.sleep, 0.5)
        future = nanny_client.submit(after, gate, proxy)
        del proxy
        gc.collect()
        assert future.result(timeout=PATIENCE) == X.sum()
        kill_workers(nanny_client)
        assert future.result(timeout=PATIENCE) == X.sum()
        del future


@pytest.mark.full
def test_a_short_soak_leaves_nothing():
    """``python -m benchmarks.soak``, for a moment."""
    command = [sys.executable, "-m", "benchmarks.soak", "--minutes", "0.6"]
    done = subprocess.run(
        [*command, "--kill-every", "5"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=3 * PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 wrong answers, 0 errors, 0 things left" in done.stdout
