"""Stores that are full, slow, out of reach, or emptied behind our back."""

from __future__ import annotations

import glob
import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import dask
import numpy as np
import pytest
from distributed import Client, wait
from file_systems import tmpfs
from flaky_store import FlakyConnector
from processes import (
    PATH,
    PATIENCE,
    Gate,
    ProcessCluster,
    eventually,
    objects_in,
    released,
)

import daskps

X = np.arange(1 << 18, dtype="f8")  # 2 MiB


class Flaky:
    """A store of the user's own, and what it does wrong."""

    def __init__(self, directory):
        self.directory = str(directory)
        self.connector = FlakyConnector(self.directory)

    def does(self, **faults):
        path = os.path.join(self.directory, "faults")
        with open(path + ".new", "w") as f:
            json.dump(faults, f)
        os.rename(path + ".new", path)

    @property
    def objects(self):
        return glob.glob(os.path.join(self.directory, "object-*"))


@pytest.fixture
def flaky(tmp_path):
    flaky = Flaky(tmp_path)
    yield flaky
    flaky.does()
    assert eventually(lambda: not flaky.objects), "objects are left"


class TestPutting:
    def test_out_of_reach(self, client, flaky):
        flaky.does(put="raise")
        with daskps.proxy_graph(flaky.connector):
            with pytest.warns(UserWarning, match="no route to the store") as caught:
                assert client.submit(np.sum, X).result() == X.sum()
            assert len([w for w in caught if "stored" in str(w.message)]) == 1
            flaky.does()
            assert client.submit(np.max, X).result() == X.max()
            assert len(flaky.objects) == 1, "it is stored again"

    def test_out_of_reach_and_that_is_an_error(self, client, flaky):
        flaky.does(put="raise")
        with (
            dask.config.set({"daskps.on-store-error": "raise"}),
            daskps.proxy_graph(flaky.connector),
            pytest.raises(daskps.StoreError, match=r"no route.*another one"),
        ):
            client.submit(np.sum, X)

    def test_out_of_reach_where_results_are_stored(self, client, flaky):
        with daskps.proxy_graph(flaky.connector):
            future = client.submit(np.add, X, 1)
            wait(future)
            flaky.does(put="raise")
            np.testing.assert_array_equal(future.result(timeout=PATIENCE), X + 1)
            del future

    def test_slow(self, client, flaky):
        flaky.does(put=0.5, get=0.5, evict=0.5, exists=0.5)
        with daskps.proxy_graph(flaky.connector):
            future = client.submit(np.add, X, 1)
            np.testing.assert_array_equal(future.result(timeout=PATIENCE), X + 1)
            del future
        # A store that takes its time to delete holds up nobody else.
        assert client.submit(sum, [1, 2]).result(timeout=PATIENCE) == 3

    def test_while_known_objects_cannot_be_asked_for(self, client, flaky):
        with daskps.proxy_graph(flaky.connector):
            assert client.submit(np.sum, X).result() == X.sum()
            flaky.does(exists="raise")
            with pytest.warns(UserWarning, match="no route to the store"):
                assert client.submit(np.max, X).result() == X.max()


class TestReading:
    def test_out_of_reach_for_a_while(self, client, flaky):
        with daskps.proxy_graph(flaky.connector):
            flaky.does(get="raise")
            future = client.submit(np.sum, X)
            time.sleep(1)
            flaky.does()
            assert future.result(timeout=PATIENCE) == X.sum()

    def test_out_of_reach_for_ever(self, client, flaky):
        settings = {"daskps.read-timeout": "500ms"}
        with dask.config.set(settings), daskps.proxy_graph(flaky.connector):
            flaky.does(get="raise")
            future = client.submit(np.sum, X, key="the-task")
            with pytest.raises(daskps.ObjectMissingError) as caught:
                future.result(timeout=PATIENCE)
            message = str(caught.value)
            for word in ("object-", "store", "the-task", "no route", "submit the"):
                assert word in message, message
            flaky.does()
            future.retry()
            assert future.result(timeout=PATIENCE) == X.sum()
            future.release()  # the error's traceback keeps it otherwise

    def test_out_of_reach_for_the_client_alone(self, client, flaky):
        """Then results come back through the scheduler, as ever."""
        with daskps.proxy_graph(flaky.connector):
            future = client.submit(np.add, X, 1)
            wait(future)
            flaky.does(get="raise")
            np.testing.assert_array_equal(future.result(timeout=PATIENCE), X + 1)
            np.testing.assert_array_equal(future.result(timeout=PATIENCE), X + 1)
            assert client.submit(sum, [1, 2]).result(timeout=PATIENCE) == 3
            del future

    def test_slow_for_the_client(self, client, flaky):
        with daskps.proxy_graph(flaky.connector):
            future = client.submit(np.add, X, 1)
            wait(future)
            flaky.does(get=1.0)
            np.testing.assert_array_equal(future.result(timeout=PATIENCE), X + 1)
            del future


class TestDeleting:
    def test_out_of_reach(self, client, flaky):
        flaky.does(evict="raise")
        with daskps.proxy_graph(flaky.connector):
            future = client.submit(np.sum, X)
            assert future.result() == X.sum()
            del future
        assert released(client)
        time.sleep(0.5)
        assert len(flaky.objects) == 1
        flaky.does()
        assert eventually(lambda: not flaky.objects), "it was not tried again"

    def test_results_go_with_their_worker(self, flaky):
        with (
            ProcessCluster(workers=1) as cluster,
            cluster.client() as client,
            daskps.proxy_graph(flaky.connector),
        ):
            future = client.submit(np.add, X, 1)
            np.testing.assert_array_equal(future.result(), X + 1)
            assert len(flaky.objects) == 2
            cluster.workers[0].terminate()
            cluster.workers[0].wait(PATIENCE)
            assert eventually(lambda: len(flaky.objects) == 1)
            del future

    def test_in_a_cluster_within_one_process(self, flaky):
        with (
            Client(
                processes=False,
                n_workers=1,
                threads_per_worker=1,
                dashboard_address=None,
            ) as client,
            daskps.proxy_graph(flaky.connector),
        ):
            future = client.submit(np.add, X, 1)
            np.testing.assert_array_equal(future.result(timeout=PATIENCE), X + 1)
            assert len(flaky.objects) == 1, "its messages and results are not pickled"
            del future

    def test_results_of_a_killed_worker(self, flaky):
        """In a store that does not know who stored what."""
        with (
            ProcessCluster(workers=1) as cluster,
            cluster.client() as client,
            daskps.proxy_graph(flaky.connector),
        ):
            kept, dropped = client.map(np.add, [X, X], [1, 2])
            np.testing.assert_array_equal(kept.result(), X + 1)
            np.testing.assert_array_equal(dropped.result(), X + 2)
            assert len(flaky.objects) == 3
            del dropped
            assert eventually(lambda: len(flaky.objects) == 2)
            cluster.workers[0].kill()
            cluster.workers[0].wait()
            # Some seconds after it died: a reference may be on its way to a client.
            assert eventually(lambda: len(flaky.objects) == 1)
            cluster.add_worker()
            np.testing.assert_array_equal(kept.result(timeout=PATIENCE), X + 1)
            del kept

    def test_what_a_killed_client_stored_for_a_graph_that_never_came(
        self, cluster, client, flaky
    ):
        code = """
            import sys
            import numpy as np
            from distributed import Client
            from flaky_store import FlakyConnector
            import daskps
            with Client(sys.argv[1]) as client:
                with daskps.proxy_graph(FlakyConnector(sys.argv[2])):
                    client.map(np.sum, [np.full(1 << 18, i, "f8") for i in range(40)])
        """
        flaky.does(put=0.2)
        command = [sys.executable, "-c", textwrap.dedent(code)]
        process = subprocess.Popen(
            [*command, cluster.address, flaky.directory],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(PATH)},
        )
        assert eventually(lambda: len(flaky.objects) > 4)
        assert daskps.usage(client).objects >= 1
        process.kill()
        process.wait()
        # But the one that was being stored, of which nobody can know.
        assert eventually(lambda: len(flaky.objects) <= 4)
        for path in flaky.objects:
            Path(path).unlink(missing_ok=True)  # the scheduler may be at it


class TestBehindOurBack:
    def test_emptied(self, cluster, client):
        with daskps.proxy_graph():
            assert client.submit(np.sum, X).result() == X.sum()
            for path in objects_in(cluster):
                os.unlink(path)
            # The same data again: it is no longer there, and so is stored again.
            assert client.submit(np.max, X).result() == X.max()
            gate = Gate(client)
            future = client.submit(max_after, X, gate.future, key="needs-it")
            for path in objects_in(cluster):
                os.unlink(path)
            gate.open()
            with pytest.raises(daskps.ObjectMissingError, match="'needs-it'") as caught:
                future.result(timeout=PATIENCE)
            assert "Submit the computation again" in str(caught.value)
            future.release()  # the error's traceback keeps it otherwise
            assert client.submit(np.min, X).result(timeout=PATIENCE) == X.min()

    def test_cut_short(self):
        # Not the cluster of others: who is reading what somebody cuts short is ended by
        # the kernel (SIGBUS), and another worker takes its place.
        with ProcessCluster() as cluster, cluster.client() as client:
            self.cut_short(cluster, client)

    def cut_short(self, cluster, client):
        with daskps.proxy_graph():
            assert client.submit(np.sum, X).result() == X.sum()
            (path,) = objects_in(cluster)
            os.truncate(path, 1000)
            assert client.submit(np.max, X).result() == X.max()
            assert eventually(lambda: path not in objects_in(cluster))
            gate = Gate(client)
            future = client.submit(max_after, X, gate.future, key="needs-it-too")
            for path in objects_in(cluster):
                os.truncate(path, 1000)
            gate.open()
            with pytest.raises(daskps.ObjectMissingError, match="not whole"):
                future.result(timeout=PATIENCE)
            future.release()
            assert client.submit(np.min, X).result(timeout=PATIENCE) == X.min()

    @pytest.mark.parametrize("damage", ["changed", "cut short", "another object"])
    def test_damaged_where_others_can_write(self, client, flaky, damage):
        def spoil(path, other):
            with open(path, "rb") as f:
                data = bytearray(f.read())
            if damage == "changed":
                data[-1] ^= 1
            elif damage == "cut short":
                del data[-1]
            else:
                shutil.copy(other, path)
                return
            with open(path, "wb") as f:
                f.write(data)

        with daskps.proxy_graph(flaky.connector):
            gate = Gate(client)
            first = client.submit(max_later, X, gate.future, key="needs-it-whole")
            (one,) = flaky.objects
            assert (
                client.submit(np.sum, X + 1).result(timeout=PATIENCE) == (X + 1).sum()
            )
            (two,) = {*flaky.objects} - {one}
            spoil(one, two)
            gate.open()
            with pytest.raises(
                daskps.ObjectMissingError, match=r"object-.*'needs-it-whole'.*damaged"
            ):
                first.result(timeout=PATIENCE)
            first.release()  # the error's traceback keeps it otherwise

    def test_a_damaged_result_is_fetched_again(self, client, flaky):
        """Through the scheduler: the worker has it still."""
        with daskps.proxy_graph(flaky.connector):
            future = client.submit(np.add, X, 1)
            argument = set(flaky.objects)
            np.testing.assert_array_equal(future.result(), X + 1)
            (result,) = set(flaky.objects) - argument
            with open(result, "r+b") as f:
                f.seek(-1, os.SEEK_END)
                f.write(b"x")
            np.testing.assert_array_equal(future.result(timeout=PATIENCE), X + 1)
            del future

    def test_its_directory_is_gone(self):
        with ProcessCluster(workers=1) as cluster, cluster.client() as client:
            with daskps.proxy_graph():
                assert client.submit(np.sum, X).result() == X.sum()
                for directory in cluster.directories:
                    subprocess.run(["rm", "-r", directory], check=True)
                with pytest.warns(UserWarning, match="sent inside the graph"):
                    future = client.submit(np.add, X, 1)
                np.testing.assert_array_equal(future.result(timeout=PATIENCE), X + 1)
                del future
            assert released(client)


def max_later(x, gate):
    return x.max()


def max_after(x, gate):
    return x.max()


class TestFull:
    @pytest.fixture
    def tiny(self, tmp_path):
        """A shared memory of 12 MiB."""
        with tmpfs(tmp_path, "12m") as path:
            yield path

    @pytest.fixture
    def settings(self, tiny):
        return {"daskps.shm.directory": tiny, "daskps.shm.reserve": 0}

    def test_the_rest_goes_to_files(self, cluster, client, tiny, settings):
        with dask.config.set(settings), daskps.proxy_graph("shm://"):
            with pytest.warns(UserWarning, match="has no room"):
                futures = client.map(np.add, [X + i for i in range(10)], [1] * 10)
            for i, future in enumerate(futures):
                np.testing.assert_array_equal(
                    future.result(timeout=PATIENCE), X + i + 1
                )
            del futures, future
        assert released(client)
        assert eventually(lambda: not in_stores(tiny))

    @pytest.mark.filterwarnings("ignore:Sending large graph")
    def test_nothing_is_left_but_the_graph(self, client, tiny, settings):
        """With files there, too, there is no room at all."""
        settings |= {"temporary-directory": tiny}
        with dask.config.set(settings):
            store = daskps.proxy_graph(f"file://{tiny}")
        with store:
            with pytest.warns(UserWarning, match=r"No room .* Free some"):
                futures = client.map(np.add, [X + i for i in range(9)], [1] * 9)
            for i, future in enumerate(futures):
                np.testing.assert_array_equal(
                    future.result(timeout=PATIENCE), X + i + 1
                )
            del futures, future
        assert released(client)
        assert eventually(lambda: not in_stores(tiny))

    def test_a_full_store_is_an_error_if_errors_are_to_be_raised(self, client, tiny):
        with (
            dask.config.set({"daskps.on-store-error": "raise"}),
            daskps.proxy_graph(f"file://{tiny}"),
        ):
            with pytest.raises(daskps.StoreFullError, match=r"No room .* Free some"):
                client.map(np.add, [X + i for i in range(10)], [1] * 10)
            # What was stored before is not kept for a graph that never came, but for
            # what the session's cache may have: a quarter of the store's room.
            assert eventually(lambda: len(in_stores(tiny)) <= 1)
            assert client.submit(np.sum, X).result() == X.sum()
        assert released(client)
        assert eventually(lambda: not in_stores(tiny))


def in_stores(parent):
    return [
        path
        for path in glob.glob(os.path.join(parent, "daskps-*", "*"))
        if not os.path.basename(path).startswith(("free.", "owner.lock"))
    ]


class TestSegmentsWrittenAnew:
    """Evicted segments are written anew while processes map, read and drop others."""

    # Each object holds one number throughout, which is in its name's place in the list.
    WORKER = """
        import mmap, os, pickle, random, sys, time
        import numpy as np
        from daskps.stores.files.connector import SegmentConnector
        directory, role, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
        connector = SegmentConnector([directory], keep=64 << 20)
        listed = os.path.join(directory, "keys")
        deadline = time.monotonic() + seconds
        rng = random.Random(os.getpid())
        held, done = [], 0
        while time.monotonic() < deadline:
            if role == "writer":
                value = rng.randrange(1 << 30)
                n = rng.choice([1 << 17, 3 << 16, 1 << 18])  # 1 to 2 MiB
                key = connector.put_frames([np.full(n, value, "i8")], "w")
                path = os.path.join(listed, f"{value}-{os.getpid()}-{done}")
                with open(path + ".new", "wb") as f:
                    pickle.dump((key, value), f)
                os.rename(path + ".new", path)
                held.append((key, path))
                if len(held) > 4:
                    key, path = held.pop(rng.randrange(len(held)))
                    if rng.random() < 0.8:  # or else it goes while it may be opened
                        os.unlink(path)
                    connector.evict(key)
                    if os.path.exists(path):
                        os.unlink(path)
                done += 1
            else:
                names = [n for n in os.listdir(listed) if not n.endswith(".new")]
                for name in rng.sample(names, min(2, len(names))):
                    try:
                        with open(os.path.join(listed, name), "rb") as f:
                            key, value = pickle.load(f)
                    except FileNotFoundError:
                        continue
                    data = connector.get(key)
                    if data is None:
                        gone = not os.path.exists(os.path.join(listed, name))
                        there = connector.exists(key)
                        assert gone or not there, "it is there, and was not read"
                    else:
                        array = np.frombuffer(data, "i8")
                        if rng.random() < 0.3:
                            array = np.frombuffer(connector.get(key) or data, "i8")
                        held.append((array, value))
                while len(held) > 12:
                    array, value = held.pop(rng.randrange(len(held)))
                    assert (array == value).all(), "somebody else's data"
                    done += 1
        for array, value in held if role == "reader" else []:
            assert (array == value).all(), "somebody else's data"
        print(done)
    """

    @pytest.mark.parametrize(
        "seconds", [1, pytest.param(20, marks=pytest.mark.slow)], ids=["short", "long"]
    )
    def test_readers_never_see_other_data(self, tmp_path_factory, seconds):
        directory = os.path.join(
            os.environ["DASK_DASKPS__SHM__DIRECTORY"], f"stress-{os.getpid()}"
        )
        os.makedirs(os.path.join(directory, "keys"), mode=0o700)
        os.chmod(directory, 0o700)
        try:
            processes = [
                subprocess.Popen(
                    [
                        *(sys.executable, "-c", textwrap.dedent(self.WORKER)),
                        *(directory, role, str(seconds)),
                    ],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
                for role in ["writer", "writer", "reader", "reader"]
            ]
            done = []
            for process in processes:
                out, err = process.communicate(timeout=PATIENCE + seconds)
                assert process.returncode == 0, err
                done.append(int(out))
            assert sum(done) > 40, done  # on a slow machine, one may come late
        finally:
            subprocess.run(["rm", "-r", directory], check=True)
