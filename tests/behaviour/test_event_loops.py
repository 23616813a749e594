"""Tasks, actors and libraries that submit from the event loop of a worker."""

from __future__ import annotations

import numpy as np
import pytest
from distributed import Client, get_client, get_worker
from processes import ProcessCluster, graph_nbytes, messages_sent, released

import daskps

MIB = 1 << 20
SIZES = [160, 2 * MIB]


class Cluster(ProcessCluster):
    """On which tasks can wait for tasks."""

    threads = 4


@pytest.fixture(scope="module")
def threads():
    """A cluster on which a session was opened."""
    with Cluster() as cluster:
        with cluster.client(), daskps.proxy_graph():
            pass
        yield cluster


@pytest.fixture
def client(threads):
    with threads.client() as client:
        yield client


def array(nbytes):
    # Integers: the last bit of a sum of floats depends on where the array lies.
    return np.random.default_rng(0).integers(1000, size=nbytes // 8)


async def submits(nbytes):
    client = await get_client()
    with messages_sent(client) as messages:
        result = await client.submit(np.sum, array(nbytes), pure=False)
    return int(result), graph_nbytes(messages)


async def maps(nbytes):
    client = await get_client()
    with messages_sent(client) as messages:
        results = await client.gather(client.map(np.sum, [array(nbytes)], pure=False))
    return int(sum(results)), graph_nbytes(messages)


async def scatters(nbytes):
    client = await get_client()
    with messages_sent(client) as messages:
        (future,) = await client.scatter([array(nbytes)], hash=False)
        result = await client.submit(np.sum, future, pure=False)
    return int(result), graph_nbytes(messages)


async def submits_before_it_is_connected(nbytes):
    """As the first use of get_client() in a worker's event loop is."""
    client = Client(get_worker().scheduler, asynchronous=True)
    future = client.submit(np.sum, array(nbytes), pure=False)
    assert client.scheduler_comm is None
    waiting = list(client._pending_msg_buffer)
    async with client:
        return int(await future), graph_nbytes(waiting)


async def submits_with_a_client_by_address(nbytes):
    client = Client(get_worker().scheduler.address, asynchronous=True)
    future = client.submit(np.sum, array(nbytes), pure=False)
    async with client:
        return int(await future), 0


class Submitter:
    async def submits(self, nbytes):
        return await submits(nbytes)

    async def scatters(self, nbytes):
        return await scatters(nbytes)


@pytest.mark.parametrize("nbytes", SIZES)
@pytest.mark.parametrize(
    "coroutine",
    [
        submits,
        maps,
        scatters,
        submits_before_it_is_connected,
        submits_with_a_client_by_address,
    ],
)
@pytest.mark.parametrize("in_a_block", [False, True], ids=["plain", "block"])
def test_a_coroutine_task_submits(client, coroutine, nbytes, in_a_block):
    if in_a_block:
        with daskps.proxy_graph():
            result, sent = client.submit(coroutine, nbytes, pure=False).result()
    else:
        result, sent = client.submit(coroutine, nbytes, pure=False).result()
    assert result == array(nbytes).sum()
    assert sent < MIB


@pytest.mark.parametrize("nbytes", SIZES)
@pytest.mark.parametrize("method", ["submits", "scatters"])
def test_an_asynchronous_method_of_an_actor_submits(client, method, nbytes):
    actor = client.submit(Submitter, actor=True).result()
    result, sent = getattr(actor, method)(nbytes).result(timeout=60)
    assert result == array(nbytes).sum()
    assert sent < MIB


def connects():
    get_client()


@pytest.mark.parametrize("rows", [500, 20_000])
def test_nested_joblib(client, rows):
    # In plain Dask (distributed 2025.4.0 to 2026.8.0), a worker's client that connects
    # while another thread scatters with it fails at once, and hangs whoever uses it next.
    for worker in client.scheduler_info(n_workers=-1)["workers"]:
        client.submit(connects, workers=[worker], pure=False).result()
    joblib = pytest.importorskip("joblib")
    ensemble = pytest.importorskip("sklearn.ensemble")
    model_selection = pytest.importorskip("sklearn.model_selection")
    x = np.random.default_rng(0).random((rows, 20))
    y = (x[:, 0] > 0.5).astype(int)

    def search():
        forest = ensemble.RandomForestClassifier(5, random_state=0)
        grid = model_selection.GridSearchCV(forest, {"max_depth": [2, 3]}, cv=2)
        return grid.fit(x, y).cv_results_["mean_test_score"].tolist()

    with joblib.parallel_config("dask"):
        assert search() == search()
        with daskps.proxy_graph():
            by_reference = search()
    with joblib.parallel_config("threading"):
        assert by_reference == search()


def test_what_was_submitted_in_an_event_loop_goes(client):
    client.submit(submits, SIZES[1], pure=False).result()
    from processes import released

    assert released(client, 30)


class SubmitsEarly:
    async def submits(self, nbytes):
        self.client = Client(get_worker().scheduler, asynchronous=True)
        future = self.client.submit(np.sum, array(nbytes), pure=False)
        assert self.client.scheduler_comm is None
        # The only handle has gone: such a session keeps nothing.
        await self.client
        return int(await future)

    async def closes(self):
        await self.client.close()


def test_what_was_submitted_before_the_client_was_connected_goes(client):
    """Though the client stays, and holds nothing any more."""
    actor = client.submit(SubmitsEarly, actor=True).result()
    result = actor.submits(SIZES[1]).result(timeout=60)
    assert result == array(SIZES[1]).sum()
    assert released(client, 30)
    actor.closes().result(timeout=60)
