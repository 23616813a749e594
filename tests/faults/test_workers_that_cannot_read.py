"""Workers that cannot read from a store, for now or for good: no task fails for that.

Faults are injected by what a worker runs first, which wraps a function there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import textwrap
import threading
import time

import dask
import numpy as np
import pytest
from distributed import wait
from processes import ELSEWHERE, ROOT, ProcessCluster, eventually, objects_in, released

import daskps
from daskps.messages import EVENTS
from daskps.versions import VERSION
from daskps.worker.opening import StoreOpening

pytestmark = pytest.mark.slow

X = np.arange(1 << 18, dtype="f8")  # 2 MiB

# The worker's question to the scheduler how to open a store is lost: with an error, or
# without a word.
LOST = """
    import asyncio, os
    from distributed.core import PooledRPCCall

    original = PooledRPCCall.__getattr__
    asked = 0

    def lost(self, name):
        global asked
        call = original(self, name)
        if name != "daskps_store":
            return call

        async def ask(**kwargs):
            global asked
            asked += 1
            if asked <= {times} and not os.path.exists("{mended}"):
                {how}
            return await call(**kwargs)

        return ask

    PooledRPCCall.__getattr__ = lost
"""
HOW = {
    "error": 'raise OSError("Timed out trying to connect")',
    "silence": "await asyncio.sleep(3600)",
}
FOR_EVER = 10**9

# The store is open, but the worker fails to read, as with too many open files.
READS_FAIL = """
    import errno, os
    from daskps.stores.files.connector import SegmentConnector

    original = SegmentConnector.get

    def get(self, key):
        if not os.path.exists("{mended}"):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return original(self, key)

    SegmentConnector.get = get
"""


@pytest.fixture
def mended(tmp_path):
    """A file that, once it exists, mends what was broken."""
    return tmp_path / "mended"


@pytest.fixture
def start(tmp_path, mended):
    """Start a cluster, some of whose workers are broken."""
    with contextlib.ExitStack() as stack:

        def start(*codes, read_timeout="20s", **values):
            cluster = Cluster(tmp_path, {"mended": mended, **values})
            stack.enter_context(cluster)
            # Of the client: workers are told.
            stack.enter_context(dask.config.set({"daskps.read-timeout": read_timeout}))
            for code in codes:
                cluster.add(code)
            return cluster, stack.enter_context(cluster.client())

        yield start


class Cluster(ProcessCluster):
    """Each worker may run something first, in which `values` are put."""

    def __init__(self, tmp_path, values):
        super().__init__(workers=0)
        self._path = tmp_path
        self._values = {"times": FOR_EVER, "how": HOW["error"], **values}

    def add(self, code, options=""):
        """Start a worker that runs some code first."""
        for name, value in self._values.items():
            code = code.replace("{" + name + "}", str(value))
        # Python runs sitecustomize.py when it starts.
        path = self._path / f"worker{len(self.workers)}"
        path.mkdir()
        (path / "sitecustomize.py").write_text(textwrap.dedent(code))
        # What is under test is imported then, not what is installed.
        place = os.pathsep.join([str(path), ROOT])
        self.add_worker({"PYTHONPATH": place}, options)


GOOD = ""


def address(client, name):
    """Of the worker that was started as the n-th one, `name` being "w{n}"."""
    workers = client.scheduler_info(-1)["workers"].items()
    return next(a for a, worker in workers if worker["name"] == name)


def holders(client, futures):
    wait(futures)
    return {a for addresses in client.who_has(futures).values() for a in addresses}


def after(seconds, x):
    time.sleep(seconds)
    return float(x.sum())


def thirty_submits_and_twenty_mapped(client):
    """All right; the workers that have done them."""
    futures = [client.submit(after, 0.01, X + i) for i in range(30)]
    assert client.gather(futures) == [(X + i).sum() for i in range(30)]
    mapped = client.map(after, [0.01] * 20, [X - i for i in range(20)])
    assert client.gather(mapped) == [(X - i).sum() for i in range(20)]
    return holders(client, futures + mapped)


def all_can(client):
    """Whether each worker runs a task that may run nowhere else."""
    for address in client.scheduler_info(-1)["workers"]:
        future = client.submit(after, 0, X, workers=[address], pure=False)
        assert future.result(timeout=60) == X.sum()


class TestTheQuestionIsLost:
    @pytest.mark.parametrize("how", HOW)
    def test_once_by_a_worker_that_joins(self, start, how):
        cluster, client = start(GOOD, how=HOW[how], times=1)
        with daskps.proxy_graph("shm://"):
            cluster.add(LOST)
            client.wait_for_workers(2, timeout=60)
            thirty_submits_and_twenty_mapped(client)
            all_can(client)
        assert released(client, 10)

    @pytest.mark.parametrize("how", HOW)
    def test_once_while_the_session_opens(self, start, how):
        _, client = start(LOST, GOOD, how=HOW[how], times=1)
        with daskps.proxy_graph("shm://"):
            thirty_submits_and_twenty_mapped(client)
            all_can(client)

    def test_for_ever_by_a_worker_that_joins(self, start):
        cluster, client = start(GOOD)
        with daskps.proxy_graph("shm://"):
            cluster.add(LOST)
            client.wait_for_workers(2, timeout=60)
            able = {address(client, "w0")}
            assert thirty_submits_and_twenty_mapped(client) == able

    def test_for_ever_while_the_session_opens(self, start, caplog):
        _, client = start(LOST, GOOD)
        with daskps.proxy_graph("shm://"):
            assert "could not ask the scheduler" in caplog.text
            able = {address(client, "w1")}
            assert thirty_submits_and_twenty_mapped(client) == able

    def test_for_ever_by_all_while_the_session_opens(self, start):
        _, client = start(LOST, LOST)
        with (
            pytest.raises(daskps.ClusterError, match="could not ask the scheduler"),
            daskps.proxy_graph("shm://"),
        ):
            pytest.fail("the block must not be entered")
        # Nobody has asked for a store.
        with daskps.proxy_graph() as session:
            assert "could not ask the scheduler" in repr(session)
            assert client.submit(np.sum, X, pure=False).result() == X.sum()

    def test_for_ever_by_all_that_join(self, start):
        cluster, client = start(read_timeout="2s")
        with daskps.proxy_graph("shm://"):
            for _ in range(2):
                cluster.add(LOST)
            client.wait_for_workers(2, timeout=60)
            futures = client.map(np.sum, [X + i for i in range(20)])
            for future in futures:
                error = future.exception(timeout=60)
                assert isinstance(error, daskps.ObjectMissingError)
                assert "could not ask the scheduler" in str(error)
            del future, futures, error

    def test_until_it_is_mended(self, start, mended):
        """The tasks wait meanwhile, whichever worker is able first."""
        cluster, client = start(read_timeout="60s")
        with daskps.proxy_graph("shm://"):
            for _ in range(2):
                cluster.add(LOST)
            client.wait_for_workers(2, timeout=60)
            futures = client.map(after, [0.01] * 20, [X + i for i in range(20)])
            time.sleep(2)
            assert {future.status for future in futures} == {"pending"}
            mended.touch()
            assert client.gather(futures) == [(X + i).sum() for i in range(20)]
            thirty_submits_and_twenty_mapped(client)
            all_can(client)


class Total:
    """An actor."""

    def __init__(self, x):
        self._x = x

    def total(self):
        return float(self._x.sum())


async def awaited(x):
    await asyncio.sleep(0.01)
    return float(x.sum())


def closure(x):
    return lambda i: float(x.sum()) + i


def refusals(client, worker):
    """Why a worker cannot use a store, as events say."""
    events = [event for _, event in client.get_events(EVENTS)]
    refused = [e for e in events if e["action"] == "store-refused"]
    return [event["why"] for event in refused if event["worker"] == worker]


class TestThisWorkerNever:
    """It is on another host, say: the others do its tasks."""

    def test_tasks_of_all_kinds(self, start):
        cluster, client = start(GOOD)
        with daskps.proxy_graph("shm://"):
            cluster.add(ELSEWHERE)
            client.wait_for_workers(2, timeout=60)
            able, unable = address(client, "w0"), address(client, "w1")
            (why,) = eventually(lambda: refusals(client, unable))
            assert unable in why
            assert thirty_submits_and_twenty_mapped(client) == {able}
            coroutines = client.map(awaited, [X + i for i in range(6)])
            assert client.gather(coroutines) == [(X + i).sum() for i in range(6)]
            functions = [client.submit(closure(X), i) for i in range(6)]
            assert client.gather(functions) == [X.sum() + i for i in range(6)]
            proxies = [daskps.proxy(X + i) for i in range(6)]
            totals = client.map(after, [0.01] * 6, proxies)
            assert client.gather(totals) == [(X + i).sum() for i in range(6)]
            actors = [client.submit(Total, X + i, actor=True) for i in range(4)]
            assert [a.result().total().result() for a in actors] == [
                (X + i).sum() for i in range(4)
            ]
            loose = client.submit(
                after, 0, X, workers=[unable], allow_other_workers=True, pure=False
            )
            assert loose.result(timeout=60) == X.sum()
            # What needs no store runs there.
            assert client.submit(sum, [1, 2], workers=[unable]).result() == 3
            del coroutines, functions, proxies, totals, actors, loose
        assert released(client, 10)

    @pytest.mark.parametrize("function", [after, awaited])
    def test_a_task_that_may_run_nowhere_else(self, start, function):
        """It fails at once, as often as it is told to be tried again, and says why."""
        cluster, client = start(GOOD)
        with daskps.proxy_graph("shm://"):
            cluster.add(ELSEWHERE, "--resources R=1,S=1")
            client.wait_for_workers(2, timeout=60)
            unable = address(client, "w1")
            arguments = (0, X) if function is after else (X,)
            for options in (
                {"workers": [unable]},
                {"resources": {"S": 1}},
                {"workers": [unable], "retries": 2},
            ):
                future = client.submit(function, *arguments, **options, pure=False)
                error = future.exception(timeout=60)
                assert isinstance(error, daskps.ObjectMissingError)
                assert f"Worker {unable} cannot use the cluster's store" in str(error)
                assert 'daskps.proxy_graph(store="peer://")' in str(error)
                del future, error

    def test_the_only_worker_that_can_dies(self, start):
        cluster, client = start(GOOD)
        with daskps.proxy_graph("shm://"):
            cluster.add(ELSEWHERE)
            client.wait_for_workers(2, timeout=60)
            futures = client.map(after, [1.0] * 8, [X + i for i in range(8)])
            wait(futures[:1], timeout=60)
            first = [future for future in futures if future.done()]
            cluster.workers[0].kill()
            for future in set(futures) - set(first):
                error = future.exception(timeout=60)
                assert "cannot use the cluster's store" in str(error)
            del future, error
            # One that can comes, and what failed is told to be tried again.
            cluster.add(GOOD)
            client.wait_for_workers(2, timeout=60)
            client.retry(futures)
            assert client.gather(futures) == [(X + i).sum() for i in range(8)]
            del futures, first


class TestThisWorkerFailsToRead:
    """The store is open, but reading fails: too many open files, say."""

    def test_others_do_its_tasks(self, start):
        _, client = start(READS_FAIL, GOOD, read_timeout="1s")
        with daskps.proxy_graph("shm://"):
            futures = client.map(after, [0.5] * 6, [X + i for i in range(6)])
            assert client.gather(futures) == [(X + i).sum() for i in range(6)]
            coroutines = client.map(awaited, [X - i for i in range(6)])
            assert client.gather(coroutines) == [(X - i).sum() for i in range(6)]
            assert holders(client, futures + coroutines) == {address(client, "w1")}
            del futures, coroutines

    def test_all_do(self, start):
        """Tasks fail after a while."""
        _, client = start(READS_FAIL, READS_FAIL, read_timeout="1s")
        with daskps.proxy_graph("shm://"):
            for function, arguments in ((after, (0, X)), (awaited, (X,))):
                future = client.submit(function, *arguments)
                error = future.exception(timeout=60)
                assert isinstance(error, daskps.ObjectMissingError)
                assert "Too many open files" in str(error)
                del future, error

    def test_coroutines_wait(self, start, mended):
        """As long as other tasks, but not on the event loop."""
        _, client = start(READS_FAIL, read_timeout="60s")
        with daskps.proxy_graph("shm://"):
            future = client.submit(awaited, X)
            time.sleep(2)
            assert client.submit(sum, [1, 2]).result(timeout=10) == 3
            assert future.status == "pending"
            mended.touch()
            assert future.result(timeout=60) == X.sum()
            del future


def test_an_object_that_is_gone_is_missing_everywhere(start):
    """No other worker is asked."""
    cluster, client = start(GOOD, GOOD)
    with daskps.proxy_graph("shm://"):
        gates = client.map(time.sleep, [1.0, 1.01])
        future = client.submit(after_all, gates, X)
        assert eventually(lambda: objects_in(cluster))
        for path in objects_in(cluster):
            os.unlink(path)
        error = future.exception(timeout=60)
        assert "is not in store" in str(error)
        story = client.run_on_scheduler(transitions, key=future.key)
        assert story.count("processing") == 1
        del future, gates, error


def transitions(dask_scheduler, key):
    """The states that a task was in."""
    return [step.finish for step in dask_scheduler.story(key)]


def after_all(gates, x):
    return float(x.sum())


# The worker dies as soon as it is told of a store.
DIES = """
    import os
    from distributed import Worker

    original = Worker.plugin_add

    async def plugin_add(self, plugin, name=None, **options):
        if name is not None and name.startswith("daskps-store"):
            os._exit(1)
        return await original(self, plugin, name, **options)

    Worker.plugin_add = plugin_add
"""


class TestWorkersAreLostWhileASessionOpens:
    def test_killed(self, start):
        cluster, client = start(DIES, GOOD)
        with daskps.proxy_graph("shm://"):
            assert cluster.workers[0].wait(30) == 1
            futures = client.map(after, [0.01] * 20, [X + i for i in range(20)])
            assert client.gather(futures) == [(X + i).sum() for i in range(20)]
            del futures

    @pytest.mark.parametrize("pause", [0.0, 0.1, 0.3])
    def test_restarted(self, pause):
        with (
            ProcessCluster(nanny=True) as cluster,
            cluster.client() as client,
            cluster.client(set_as_default=False) as other,
        ):
            restart = threading.Thread(target=other.restart)
            restart.start()
            time.sleep(pause)
            with daskps.proxy_graph("shm://"):
                restart.join()
                client.wait_for_workers(2, timeout=60)
                futures = client.map(after, [0.01] * 20, [X + i for i in range(20)])
                assert client.gather(futures) == [(X + i).sum() for i in range(20)]
                del futures


def test_the_scheduler_does_not_have_the_store(client):
    """It says so, and the worker asks no more."""

    async def ask(dask_worker):
        opening = StoreOpening("no-such-store", VERSION, 30.0, print)
        try:
            await opening.start(dask_worker)
        except daskps.ClusterError as e:
            return opening.refusal is not None, str(e)
        finally:
            opening.close()

    with daskps.proxy_graph("shm://"):
        for refused, why in client.run(ask).values():
            assert refused
            assert "has no store 'no-such-store'" in why
