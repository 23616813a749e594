"""What is stored of results goes when their keys go, and not before."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import pickle
import threading
import time
from concurrent.futures import CancelledError

import dask
import dask.bag as db
import numpy as np
import pytest
from distributed import wait, worker_client
from processes import PATIENCE, ProcessCluster, eventually
from relayed import Received

import daskps
from benchmarks.cluster import objects_in
from daskps.messages import family
from daskps.stores import opened
from daskps.worker import results
from daskps.worker.plugin import WorkerStorePlugin

NBYTES = 8 << 20


@dataclasses.dataclass
class TaskResult:
    value: np.ndarray
    info: dict


def data(i=0, nbytes=NBYTES):
    return np.full(nbytes, 48 + i, "u1")


def text(i=0):
    return data(i).tobytes()


def box(i=0):
    return TaskResult(data(i), {"i": i})


def entries(dask_worker):
    """How many keys have something stored."""
    return sum(
        len(plugin._writer._by_key)
        for plugin in dask_worker.plugins.values()
        if isinstance(plugin, WorkerStorePlugin) and plugin._writer is not None
    )


@pytest.fixture
def own(own_cluster):
    with own_cluster.client() as client, daskps.proxy_graph():
        yield client
        assert eventually(lambda: not objects_in(own_cluster)), objects_in(own_cluster)


@pytest.fixture
def soon(own):
    """Workers forget soon whom they have answered."""
    seconds = results.ANSWERED_SECONDS
    own.run(setattr, results, "ANSWERED_SECONDS", 1.0)
    yield
    own.run(setattr, results, "ANSWERED_SECONDS", seconds)


@pytest.mark.parametrize("make", [data, text, box])
def test_a_result_that_is_read_often_is_stored_once(own, own_cluster, make):
    future = own.submit(make, pure=False)
    for _ in range(200):
        future.result()
    assert sum(own.run(entries).values()) == 1
    assert len(objects_in(own_cluster)) == 1


@pytest.mark.parametrize("make", [data, text, box])
def test_it_goes_with_its_key(own, own_cluster, make):
    future = own.submit(make, pure=False)
    other = own.submit(make, 1, pure=False)
    own.gather([future, other])
    assert len(objects_in(own_cluster)) == 2
    future.release()
    assert eventually(lambda: len(objects_in(own_cluster)) == 1)
    other.cancel()
    assert eventually(lambda: not objects_in(own_cluster))
    assert sum(own.run(entries).values()) == 0


def changed(dask_worker, key):
    dask_worker.data[key].value[:] = 99


def test_what_was_changed_is_stored_anew(own, soon, own_cluster):
    future = own.submit(box, pure=False)
    assert future.result().value[0] == 48
    holder = own.who_has(future)[future.key]
    own.run(changed, key=future.key, workers=holder)
    assert future.result().value[0] == 99
    assert eventually(lambda: len(objects_in(own_cluster)) == 1)


def test_a_key_that_moves_to_another_worker():
    with ProcessCluster() as cluster, cluster.client() as client, daskps.proxy_graph():
        future = client.submit(text, pure=False)
        assert future.result() == text()
        client.retire_workers(list(client.who_has(future)[future.key]))
        assert future.result(timeout=PATIENCE) == text()
        assert eventually(lambda: len(objects_in(cluster)) == 1)
        del future
        assert eventually(lambda: not objects_in(cluster))


def spill(dask_worker):
    while dask_worker.data.fast:
        assert dask_worker.data.evict() > 0


@pytest.mark.parametrize("make", [data, text, box])
def test_what_is_spilled_stays(make):
    class Spilling(ProcessCluster):
        options = "--memory-limit 2GiB"

    with Spilling(1) as cluster, cluster.client() as client, daskps.proxy_graph():
        future = client.submit(make, pure=False)
        future.result()
        before = objects_in(cluster)
        client.run(spill)
        time.sleep(0.5)
        assert objects_in(cluster) == before
        future.result()
        assert objects_in(cluster) == before
        del future
        assert eventually(lambda: not objects_in(cluster))


def test_what_a_killed_worker_has_stored_goes():
    with ProcessCluster() as cluster, cluster.client() as client, daskps.proxy_graph():
        future = client.submit(text, pure=False, workers=["w0"])
        assert future.result() == text()
        cluster.workers[0].kill()
        assert eventually(lambda: not objects_in(cluster))
        assert client.status == "running"


def slow_store(dask_worker, path):
    """Have the worker's store wait as long as a file is there."""
    for plugin in dask_worker.plugins.values():
        if isinstance(plugin, WorkerStorePlugin):
            connector = opened.get(plugin.store).connector
            put = connector.put_frames

            def waits(*args, put=put, **kwargs):
                with open(f"{path}.seen", "w"):
                    pass
                eventually(lambda: not os.path.exists(path))
                return put(*args, **kwargs)

            connector.put_frames = waits


def test_a_key_that_goes_while_it_is_stored(tmp_path):
    path = tmp_path / "gate"
    path.touch()
    with (
        ProcessCluster(1) as cluster,
        cluster.client() as client,
        cluster.client(set_as_default=False) as reader,
        daskps.proxy_graph(),
        daskps.proxy_graph(client=reader),
    ):
        future = client.submit(text, key="goes", pure=False)
        wait(future)
        client.run(slow_store, path=str(path))
        theirs = reader.submit(text, key="goes", pure=False)

        def read():
            with contextlib.suppress(CancelledError):
                theirs.result(PATIENCE)

        reading = threading.Thread(target=read)
        reading.start()
        assert eventually(lambda: os.path.exists(f"{path}.seen"))
        future.cancel(force=True)
        assert eventually(lambda: not client.who_has().get("goes"))
        path.unlink()
        reading.join()
        assert eventually(lambda: not objects_in(cluster))
        assert sum(client.run(entries).values()) == 0


# Ways to fetch results


def test_task_results_fetched_at_once(own):
    """As task servers do, whose every result is an instance."""
    with Received(own) as by_reference:
        for i in range(8):
            assert own.submit(box, i, pure=False).result().value[0] == 48 + i
    assert by_reference.nbytes < 0.01 * 8 * NBYTES


def test_collections(own):
    bag = db.from_sequence(range(4), npartitions=4).map(text)
    a, b = dask.delayed(text)(1), dask.delayed(box)(2)
    with Received(own) as by_reference:
        assert bag.compute() == list(map(text, range(4)))
        first, second = dask.compute(a, b)
    assert first == text(1)
    assert second.value[0] == 50
    assert by_reference.nbytes < 0.02 * 6 * NBYTES


def gathers():
    with worker_client() as client:
        futures = client.map(text, range(2))
        return [len(x) for x in client.gather(futures)]


def test_what_a_task_gathers(own):
    with Received(own) as by_reference:
        assert own.submit(gathers, pure=False).result(PATIENCE) == [NBYTES] * 2
    assert by_reference.nbytes < 0.05 * 2 * NBYTES


# Actors


class Maker:
    # Dask looks for attributes of actors in the class.
    last = None
    calls = 0

    def __init__(self):
        self.last = box(7)
        self.calls = 0

    def make(self, i):
        self.calls += 1
        return [box(i), text(i)]

    async def soon(self, i):
        return text(i)

    def fails(self):
        raise ValueError("as it is")


def test_results_of_actors(own, own_cluster):
    actor = own.submit(Maker, actor=True).result()
    with Received(own) as by_reference:
        for i in (1, 1, 2):
            first, second = actor.make(i).result()
            assert first.value[0] == 48 + i
            assert second == text(i)
        assert actor.soon(3).result() == text(3)
        assert actor.last.info == {"i": 7}
    assert by_reference.nbytes < 0.01 * 8 * NBYTES
    assert eventually(lambda: not objects_in(own_cluster)), "they were read"
    with pytest.raises(ValueError, match="as it is"):
        actor.fails().result()
    del actor


def test_results_of_actors_that_the_client_cannot_read(own, monkeypatch):
    actor = own.submit(Maker, actor=True).result()

    def read(name, key):
        raise daskps.ObjectMissingError("broken for this test")

    monkeypatch.setattr(opened, "read", read)
    first, second = actor.make(1).result()
    assert first.value[0] == 49
    assert second == text(1)
    assert actor.calls == 1, "it was not called again"
    monkeypatch.undo()
    del actor


def test_results_of_other_clients(own_cluster):
    """Plain clients get plain results of actors and tasks."""
    with own_cluster.client() as client, daskps.proxy_graph():
        assert client.submit(text, 1).result() == text(1)
    assert eventually(lambda: not objects_in(own_cluster))
    # The default one, since that is by which actors are called.
    with own_cluster.client() as plain, Received(plain) as by_value:
        actor = plain.submit(Maker, actor=True).result()
        assert actor.make(1).result()[1] == text(1)
        assert plain.submit(text, 2).result() == text(2)
        assert not objects_in(own_cluster)
        del actor
    assert by_value.nbytes > 2 * NBYTES


class ReadSlowly:
    """Whoever reads it makes a file, and waits for another one."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return read_slowly, (self.path,)


def read_slowly(path):
    with open(f"{path}-reading", "a"):
        pass
    deadline = time.monotonic() + PATIENCE
    while not os.path.exists(f"{path}-dropped") and time.monotonic() < deadline:
        time.sleep(0.01)
    return path


def drop_while_it_is_read(key, path, dask_scheduler):
    """As if another worker had the key as well, and Dask did not want it twice."""

    async def drop():
        while not os.path.exists(f"{path}-reading"):
            await asyncio.sleep(0.01)
        (worker,) = dask_scheduler.tasks[key].who_has
        message = {"op": "remove-replicas", "keys": [key], "stimulus_id": "test"}
        dask_scheduler.stream_comms[worker.address].send(message)
        # There is no other worker: it is computed again.
        while ("memory", "released") not in {t[1:3] for t in dask_scheduler.story(key)}:
            await asyncio.sleep(0.01)
        with open(f"{path}-dropped", "x"):
            pass

    dask_scheduler.loop.add_callback(drop)


def test_what_a_client_is_about_to_read_stays_when_another_worker_has_it(
    own, tmp_path, caplog
):
    path = str(tmp_path / "file")
    # From one worker, in this order.
    first = own.submit(ReadSlowly, path, workers="w0", pure=False)
    second = own.submit(data, 1, workers="w0", pure=False)
    wait([first, second])
    own.run_on_scheduler(drop_while_it_is_read, second.key, path)
    read, array = own.gather([first, second])
    assert os.path.exists(f"{path}-dropped"), "it was read too early"
    assert read == path
    np.testing.assert_array_equal(array, data(1))
    assert "fetched again" not in caplog.text
    del first, second


class Different:
    """Whose pickle is another one each time."""

    def __reduce__(self):
        return bytes, (os.urandom(NBYTES),)


async def read_after_others(dask_worker, key):
    """Read what readers of a key were given, when another one was given it, too."""
    (writer,) = {
        plugin._writer
        for plugin in dask_worker.plugins.values()
        if isinstance(plugin, WorkerStorePlugin) and plugin._writer is not None
    }
    references = []
    for _ in range(3):
        answer, _ = await writer.answer(
            family(writer.store_name),
            key,
            dask_worker.data[key],
            pickle.DEFAULT_PROTOCOL,
        )
        references += answer.frames
        del answer, _
    assert len(set(references)) == len(references), "each is another object"
    await asyncio.sleep(0.5)  # until what nothing holds is evicted
    return [len(pickle.loads(reference).resolve()) for reference in references]


def test_what_is_about_to_be_read_stays_when_it_is_stored_anew(own, own_cluster):
    future = own.submit(Different, pure=False)
    wait(future)
    (holder,) = own.who_has(future)[future.key]
    read = own.run(read_after_others, key=future.key, workers=[holder])
    assert len(set(read[holder])) == 1
    assert read[holder][0] >= NBYTES
    assert eventually(lambda: len(objects_in(own_cluster)) == 1), "the others go"


class ReadLate:
    """Whoever reads it waits a little."""

    def __reduce__(self):
        return time.sleep, (0.5,)


def test_an_actor_that_is_read_late(caplog):
    """Dask keeps it beside the other results."""
    with (
        ProcessCluster(1) as cluster,
        cluster.client() as client,
        daskps.proxy_graph(threshold=1),
    ):
        # From one worker, in this order.
        first = client.submit(ReadLate)
        second = client.submit(Maker, actor=True)
        wait([first, second])
        _, actor = client.gather([first, second])
        assert actor.make(1).result()[1] == text(1)
        assert "fetched again" not in caplog.text
        del first, second, actor
