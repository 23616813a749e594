"""An object lives as long as a task that needs it could run, and no longer."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time

import dask
import dask.array as da
import dask.bag as db
import numpy as np
import pytest
from distributed import Client, Queue, Variable, wait
from processes import (
    ProcessCluster,
    eventually,
    objects_in,
    store_directories,
)

import daskps
from daskps.objects.catalog import Catalog

pytestmark = pytest.mark.core

X = np.arange(1 << 18, dtype="f8")  # 2 MiB


def objects(client):
    return daskps.usage(client).objects


def files():
    """Objects in all stores of this run."""
    found = []
    for directory in store_directories():
        with os.scandir(directory) as entries:
            for entry in entries:
                # It may go at any moment.
                with contextlib.suppress(FileNotFoundError):
                    if entry.name != "owner.lock" and entry.stat().st_size:
                        found.append(entry.path)
    return sorted(found)


def from_array(n=4):
    return da.from_array(X, chunks=len(X) // n, name=False)


def slow_sum(x):
    time.sleep(0.3)
    return x.sum()


class TestAfterTheBlock:
    def test_nothing_is_left(self, client):
        with daskps.proxy_graph():
            assert from_array().sum().compute() == X.sum()
            assert objects(client) == 4, "the session keeps them for the next graph"
        assert eventually(lambda: objects(client) == 0)

    def test_nothing_is_left_in_the_block_without_a_cache(self, client):
        with dask.config.set({"daskps.cache-size": 0}), daskps.proxy_graph():
            assert from_array().sum().compute() == X.sum()
            assert eventually(lambda: objects(client) == 0)

    def test_futures_keep_what_they_need(self, client):
        with daskps.proxy_graph():
            future = client.submit(slow_sum, X, pure=False)
            other = client.submit(np.max, X[:-1], pure=False)
            wait([future, other])
        assert objects(client) == 2
        del other
        assert eventually(lambda: objects(client) == 1)
        assert future.result() == X.sum()
        future.release()
        assert eventually(lambda: objects(client) == 0)

    def test_tasks_that_still_run_keep_what_they_need(self, client):
        with daskps.proxy_graph():
            futures = client.map(slow_sum, [X[i:] for i in range(4)], pure=False)
        assert client.gather(futures) == [X[i:].sum() for i in range(4)]

    def test_persisted_collections_keep_what_they_need(self, client):
        with daskps.proxy_graph():
            x = (from_array() + 1).persist()
            wait(x)
        for _ in range(2):
            assert objects(client) == 4
            assert x.sum().compute() == (X + 1).sum()
        part = x[: len(X) // 4].persist()
        wait(part)
        del x
        # Tasks that were not needed any more are forgotten, and so are their objects.
        assert eventually(lambda: objects(client) == 1)
        np.testing.assert_array_equal(part.compute(), X[: len(X) // 4] + 1)

    def test_files_are_gone_too(self, client):
        before = set(files())
        with daskps.proxy_graph():
            assert from_array().sum().compute() == X.sum()
            stored = set(files()) - before
            assert len(stored) >= 4
        assert eventually(lambda: not stored & set(files()))


class TestTheRule:
    def test_an_object_is_gone_soon(self, client):
        """After the last task that needs it is forgotten: no clock is waited for."""
        seconds = []
        for i in range(5):  # a busy machine may hold up one, but not each
            with dask.config.set({"daskps.cache-size": 0}), daskps.proxy_graph():
                before = set(files())
                future = client.submit(np.sum, X + i, pure=False)
                assert future.result() == (X + i).sum()
                assert set(files()) - before
            time.sleep(0.1)
            assert objects(client) == 1, "the future could be computed again"
            future.release()
            start = time.monotonic()
            assert eventually(lambda before=before: not names(files()) - names(before))
            seconds.append(time.monotonic() - start)
        assert min(seconds) < 5

    def test_tasks_are_those_of_the_final_graph(self, client):
        """The scheduler fuses and renames what the client has sent."""
        with daskps.proxy_graph():
            # Partitions of bags are fused there; blocks of arrays are made to be fused here.
            x = db.from_sequence([X + i for i in range(4)], npartitions=4).map(np.sum)
            assert len(x.dask.to_dict()) == 8
            y = x.persist()
            wait(y)
            needing, known = client.run_on_scheduler(tasks_that_need)
        assert len(needing) == objects(client) == 4
        assert needing <= known
        assert needing.isdisjoint(x.dask.to_dict())
        del y

    def test_graphs_that_wait_for_a_busy_event_loop(self, client):
        """What the first one lets go is not taken for what the others still have."""
        with dask.config.set({"daskps.cache-size": 0}), daskps.proxy_graph():
            for _ in range(3):
                client.loop.add_callback(time.sleep, 0.2)
                futures = [client.submit(np.sum, X + i, pure=False) for i in range(4)]
                assert client.gather(futures) == [(X + i).sum() for i in range(4)]
                del futures

    def test_a_task_that_failed_is_retried_after_the_session(self, client, tmp_path):
        flag = str(tmp_path / "flag")
        with daskps.proxy_graph():
            future = client.submit(fail_unless, X, flag)
            assert isinstance(future.exception(), ValueError)
        with open(flag, "w"):
            future.retry()
            assert future.result() == X.sum()
        future.release()
        assert eventually(lambda: objects(client) == 0)

    @pytest.mark.parametrize("kind", [Queue, Variable])
    def test_what_only_a_queue_or_a_variable_holds(self, cluster, client, kind):
        """The client that put it there is gone, and so is what the worker had of it."""
        name = f"the-only-one-{kind.__name__}"
        with cluster.client(set_as_default=False) as first:
            with daskps.proxy_graph(client=first):
                future = first.submit(np.add, X, 1, key=f"in-{name}")
                wait(future)
                holder = kind(name, client=first)
                put = getattr(holder, "put", None) or holder.set
                put(future)
            del future
        gc.collect()
        time.sleep(0.2)
        assert objects(client) == 1
        future = kind(name, client=client).get()
        np.testing.assert_array_equal(future.result(), X + 1)
        if kind is Variable:
            kind(name, client=client).delete()
        future.release()
        assert eventually(lambda: objects(client) == 0)


def names(paths):
    """Of objects; evicted ones that are kept are none."""
    return {p for p in paths if not os.path.basename(p).startswith("free.")}


def tasks_that_need(dask_scheduler):
    plugin = dask_scheduler.plugins["daskps"]
    return set(plugin._by_task), set(dask_scheduler.tasks)


def fail_unless(x, flag):
    if not os.path.exists(flag):
        raise ValueError("not yet")
    return x.sum()


class TestTheCache:
    def test_objects_are_found_again(self, client):
        with daskps.proxy_graph():
            for _ in range(3):
                assert from_array().sum().compute() == X.sum()
            usage = daskps.usage(client)
        assert usage.objects == 4
        assert usage.hits >= 8

    def test_is_bounded(self, client):
        with dask.config.set({"daskps.cache-size": "1 MiB"}), daskps.proxy_graph():
            for i in range(4):
                x = X + i
                assert (
                    client.submit(np.sum, x[: 1 << 16]).result() == x[: 1 << 16].sum()
                )
            assert eventually(lambda: 0 < daskps.usage(client).nbytes <= 1 << 20)

    def test_of_a_client_goes_with_the_client(self, cluster, client):
        with daskps.Client(cluster.address, set_as_default=False) as own:
            assert own.submit(np.sum, X).result() == X.sum()
            assert objects(client) == 1
        assert eventually(lambda: objects(client) == 0)

    def test_two_sessions_share_what_both_hold(self, client):
        with daskps.proxy_graph():
            assert client.submit(np.sum, X, pure=False).result() == X.sum()
            with daskps.proxy_graph():
                assert client.submit(np.sum, X, pure=False).result() == X.sum()
                assert objects(client) == 1
            assert client.submit(np.sum, X, pure=False).result() == X.sum()
            assert objects(client) == 1


class TestSeveralClients:
    def test_a_future_of_another_client_keeps_its_objects(
        self, cluster, client, other_client
    ):
        with cluster.client(set_as_default=False) as first:
            with daskps.proxy_graph(client=first):
                future = first.submit(np.add, X, 1)
                Variable("shared", client=first).set(future)
                shared = Variable("shared", client=other_client).get()
                np.testing.assert_array_equal(shared.result(), X + 1)
                Variable("shared", client=first).delete()
            del future
            gc.collect()
            time.sleep(0.2)
            assert objects(client) == 1
        np.testing.assert_array_equal(shared.result(), X + 1)
        assert objects(client) == 1, "its first client is gone"
        shared.release()
        assert eventually(lambda: objects(client) == 0)

    def test_one_clients_release_does_not_take_what_another_holds(
        self, client, other_client
    ):
        with daskps.proxy_graph(client=client):
            assert client.submit(np.sum, X, pure=False).result() == X.sum()
            with daskps.proxy_graph(client=other_client):
                assert other_client.submit(np.sum, X, pure=False).result() == X.sum()
            eventually(lambda: objects(client) == 1)
            assert client.submit(np.sum, X, pure=False).result() == X.sum()

    def test_published_data_sets(self, client, other_client):
        with daskps.proxy_graph(client=client):
            x = client.persist(from_array() + 1)
            wait(x)
        client.publish_dataset(x, name="published")
        del x
        gc.collect()
        time.sleep(0.2)
        assert objects(client) == 4
        x = other_client.get_dataset("published")
        assert other_client.compute(x.sum()).result() == (X + 1).sum()
        del x
        client.unpublish_dataset("published")
        assert eventually(lambda: objects(client) == 0)


class Unloadable:
    """Pickles here, and cannot be unpickled on the scheduler."""

    def __reduce__(self):
        return explode, (os.getpid(),)


def explode(pid):
    if os.getpid() != pid:
        raise RuntimeError("cannot be loaded")


@pytest.fixture
def interrupted(cluster, monkeypatch):
    """An array, storing which is interrupted when something else is stored."""
    array = X + 1
    put = Catalog.put

    def put_or_interrupt(self, frames):
        if any(np.shares_memory(np.asarray(frame), array) for frame in frames):
            # Another thread stores the other value.
            assert eventually(lambda: objects_in(cluster))
            raise KeyboardInterrupt
        return put(self, frames)

    monkeypatch.setattr(Catalog, "put", put_or_interrupt)
    return array


class TestRefusedGraphs:
    def test_a_graph_that_the_scheduler_cannot_unpickle(self, client):
        with daskps.proxy_graph():
            future = client.submit(np.add, X, Unloadable())
            with pytest.raises(Exception, match="deserialization of the task graph"):
                future.result()
            future.release()
            assert client.submit(np.sum, X).result() == X.sum(), "all goes on"
        del future
        assert eventually(lambda: objects(client) == 0)

    def test_a_graph_that_the_client_cannot_pickle(self, client, monkeypatch):
        # Dask logs the error, and the log would keep its frames, and with them the graph.
        monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
        with (
            daskps.proxy_graph(),
            pytest.raises(Exception, match=r"pickle|serialize"),
        ):
            client.submit(np.add, X, (i for i in range(3)))
        gc.collect()
        assert eventually(lambda: objects(client) == 0)

    def test_an_interrupt_between_two_values(self, cluster, client, interrupted):
        """As by Ctrl-C, when the first value is stored and the second is not."""
        with daskps.proxy_graph():
            with pytest.raises(KeyboardInterrupt):
                client.submit(np.add, X, interrupted)
            assert len(objects_in(cluster)) == 1, "the session keeps it"
            assert client.submit(np.sum, X).result() == X.sum()
            assert len(objects_in(cluster)) == 1
            with pytest.raises(KeyboardInterrupt):
                client.submit(np.add, X + 2, interrupted)
        assert eventually(lambda: not objects_in(cluster))

    def test_a_cancelled_future(self, client):
        with daskps.proxy_graph():
            future = client.submit(slow_sum, X, pure=False)
            future.cancel()
        assert eventually(lambda: objects(client) == 0)

    def test_a_task_that_fails(self, client):
        with daskps.proxy_graph():
            future = client.submit(divide_by_zero, X)
            assert isinstance(future.exception(), ZeroDivisionError)
        assert objects(client) == 1, "it could be retried"
        future.release()
        assert eventually(lambda: objects(client) == 0)


def divide_by_zero(x):
    return len(x) // 0


class TestAWorkerThatDies:
    def test_its_results_are_computed_again(self):
        with ProcessCluster(workers=1) as cluster, cluster.client() as client:
            with daskps.proxy_graph():
                x = (from_array() + 1).persist()
                future = client.submit(np.add, X, 2)
                wait([x, future])
            (worker,) = cluster.workers
            worker.send_signal(signal.SIGKILL)
            worker.wait()
            assert objects(client) == 5
            cluster.add_worker()
            np.testing.assert_array_equal(future.result(), X + 2)
            np.testing.assert_array_equal(x.compute(), X + 1)
            del x, future
            assert eventually(lambda: objects(client) == 0)


class TestRestart:
    def test_forgets_tasks_and_keeps_what_sessions_hold(self):
        with (
            ProcessCluster(workers=1, nanny=True) as cluster,
            cluster.client() as client,
        ):
            with daskps.proxy_graph():
                kept = client.submit(np.sum, X[:-1])
                wait(kept)
            with daskps.proxy_graph():
                wait(client.submit(np.sum, X))
                assert objects(client) == 2
                client.restart()
                assert eventually(lambda: objects(client) == 1)
                assert client.submit(np.sum, X, pure=False).result() == X.sum()
                assert client.submit(np.max, X + 1).result() == X.max() + 1
            assert eventually(lambda: objects(client) == 0)


class TestTheEnd:
    def test_a_closed_cluster_leaves_no_directory(self):
        before = store_directories()
        with ProcessCluster(workers=1) as cluster, cluster.client() as client:
            with daskps.proxy_graph():
                future = client.submit(np.sum, X)
                assert future.result() == X.sum()
            assert len(store_directories() - before) == 2
        assert store_directories() <= before

    def test_of_a_killed_scheduler_the_workers_remove_it(self):
        before = store_directories()
        with ProcessCluster(workers=1) as cluster, cluster.client() as client:
            with daskps.proxy_graph():
                assert client.submit(np.sum, X).result() == X.sum()
            client.close()
            cluster.scheduler.kill()
            cluster.scheduler.wait()
            assert eventually(lambda: store_directories() <= before)

    def test_of_a_killed_cluster_the_next_start_removes_it(self):
        before = store_directories()
        with ProcessCluster(workers=1) as cluster, cluster.client() as client:
            with daskps.proxy_graph():
                assert client.submit(np.sum, X).result() == X.sum()
            client.close()
            for process in (*cluster.workers, cluster.scheduler):
                process.kill()
                process.wait()
            left = store_directories() - before
            assert left
            with daskps.open_store("shm://"):
                assert not left & store_directories()

    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
    def test_objects_of_a_killed_client_are_gone(self, cluster, client, how):
        code = """
            import sys, time
            import numpy as np
            from distributed import Client, Queue, Variable, wait
            import daskps
            with Client(sys.argv[1]) as client, daskps.proxy_graph():
                future = client.submit(np.sum, np.ones(1 << 18))
                wait(future)
                print("stored", flush=True)
                time.sleep(60)
        """
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), cluster.address],
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdout.readline() == "stored\n"
            assert objects(client) == 1
            process.send_signal(how)
        assert eventually(lambda: objects(client) == 0)

    def test_a_cluster_in_this_process(self):
        before = store_directories()
        with Client(
            processes=False, n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as client:
            with daskps.proxy_graph():
                assert from_array().sum().compute() == X.sum()
                assert objects(client) == 4
            assert eventually(lambda: objects(client) == 0)
        assert eventually(lambda: store_directories() <= before)

    def test_a_local_cluster(self):
        before = store_directories()
        with Client(
            n_workers=1, threads_per_worker=1, dashboard_address=None
        ) as client:
            with daskps.proxy_graph():
                assert from_array().sum().compute() == X.sum()
            assert eventually(lambda: objects(client) == 0)
        assert eventually(lambda: store_directories() <= before)
