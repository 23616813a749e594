"""The other ways into Dask: what functions carry, futures, scatter, tasks that submit."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import fractions
import functools
import itertools
import os
import queue
import subprocess
import sys
import threading
import traceback

import dask
import dask.array as da
import dask.bag as db
import dask.graph_manipulation
import numpy as np
import pandas as pd
import psutil
import pytest
from distributed import (
    Client,
    Future,
    LocalCluster,
    Queue,
    Variable,
    as_completed,
    fire_and_forget,
    get_client,
    secede,
    wait,
    worker_client,
)
from processes import (
    PATIENCE,
    Gate,
    ProcessCluster,
    eventually,
    graph_nbytes,
    messages_sent,
)

import daskps

MIB = 1 << 20


def array(seed=0, nbytes=2 * MIB):
    return np.random.default_rng(seed).random(nbytes // 8)


class Instance:
    def __init__(self, data):
        self.data = data

    def get(self, i):
        assert type(self.data) is np.ndarray
        return float(self.data[i])


class Reduced:
    """Pickles itself in its own way, so that nobody sees what is in it."""

    __slots__ = ("data",)

    def __init__(self, data):
        self.data = data

    def __reduce__(self):
        return Reduced, (self.data,)


def pick(i, w=None):
    assert type(w) is np.ndarray
    return float(w[i])


def total(x, *others):
    assert type(x) is np.ndarray
    return float(x.sum())


def of_reduced(i, reduced):
    return float(reduced.data[i])


def carrying_functions(data):
    def closure(i):
        return float(data[i])

    def default(i, data=data):
        return float(data[i])

    def keyword(i, *, data=data):
        return float(data[i])

    return {
        "partial": functools.partial(pick, w=data),
        "nested partial": functools.partial(functools.partial(pick, w=data)),
        "closure": closure,
        "closure in a closure": lambda i: closure(i) * 1.0,
        "default": default,
        "keyword default": keyword,
        "lambda default": lambda i, data=data: float(data[i]),
        "method": Instance(data).get,
        "partial of a method": functools.partial(Instance(data).get),
    }


FUNCTIONS = list(carrying_functions(np.zeros(1)))


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_what_functions_carry(client, kind):
    data = array()
    function = carrying_functions(data)[kind]
    with daskps.proxy_graph(), messages_sent(client) as messages:
        assert client.gather(client.map(function, [0, 1, 2])) == list(data[:3])
        assert client.submit(function, 3, pure=False).result() == data[3]
        assert dask.delayed(function)(4).compute() == data[4]
        blocks = da.ones(4, chunks=2).map_blocks(lambda b: b * function(5), dtype="f8")
        np.testing.assert_array_equal(blocks.compute(), np.full(4, data[5]))
        assert daskps.usage(client).objects
    assert graph_nbytes(messages) < MIB


def test_a_global_variable_that_a_function_of_main_uses(client):
    program = f"""
import numpy as np, daskps
from distributed import Client
big = np.random.default_rng(0).random(1 << 18)
def pick(i):
    return float(big[i])
with Client({client.scheduler.address!r}) as client, daskps.proxy_graph():
    assert client.gather(client.map(pick, range(4))) == list(big[:4])
    assert daskps.usage().objects
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=PATIENCE)


def test_instances_that_pickle_in_their_own_way(client):
    data = array()
    with daskps.proxy_graph(), messages_sent(client) as messages:
        futures = client.map(of_reduced, range(3), [Reduced(data)] * 3)
        assert client.gather(futures) == list(data[:3])
    assert graph_nbytes(messages) < MIB


class _Draws:
    """An iterator of one's own, over data that it keeps."""

    def __init__(self, data):
        self.data = data
        self.generator = np.random.default_rng(0)

    def __iter__(self):
        for _ in range(2):
            yield self.data * self.generator.random()


SOURCES = {
    "list iterator": lambda x: iter([x, x]),
    "map": lambda x: map(np.negative, [x, x]),
    "zip": lambda x: zip([x, x], [1, 2], strict=False),
    "chain": lambda x: itertools.chain([x], [x]),
    "islice": lambda x: itertools.islice(iter([x, x]), 2),
    "of one's own": _Draws,
}


def consumed(source):
    return [np.asarray(item[0] if type(item) is tuple else item) for item in source]


@pytest.mark.parametrize("kind", SOURCES)
def test_what_iterators_read_from(client, kind):
    """A generator itself cannot be pickled; what it is made from, or like, can be."""
    data = array()
    with daskps.proxy_graph(), messages_sent(client) as messages:
        result = client.submit(consumed, SOURCES[kind](data), pure=False).result()
        assert daskps.usage(client).objects
    expected = consumed(SOURCES[kind](data))
    np.testing.assert_array_equal(np.stack(result), np.stack(expected))
    assert graph_nbytes(messages) < MIB


def test_a_generator_of_items_of_a_bag(client):
    data = [array(i) for i in range(4)]
    bag = db.from_sequence((x for x in data), npartitions=2)
    with daskps.proxy_graph(), messages_sent(client) as messages:
        assert bag.map(total).compute() == [x.sum() for x in data]
    assert graph_nbytes(messages) < MIB


def test_a_scikit_learn_model(client):
    ensemble = pytest.importorskip("sklearn.ensemble")
    x = array().reshape(-1, 8)[:2000]
    y = (x[:, 0] > 0.5).astype(int)
    model = ensemble.RandomForestClassifier(n_estimators=30, random_state=0).fit(x, y)
    with daskps.proxy_graph(), messages_sent(client) as messages:
        predicted = da.from_array(x, chunks=(500, 8)).map_blocks(
            model.predict, drop_axis=1, dtype=int
        )
        np.testing.assert_array_equal(predicted.compute(), model.predict(x))
    assert graph_nbytes(messages) < MIB


def test_two_maps_with_the_same_keyword(client):
    data = array()
    with daskps.proxy_graph():
        first = client.map(pick, range(3), w=data, pure=False)
        second = client.map(pick, range(3), w=data, pure=False)
        assert client.gather(first + second) == 2 * list(data[:3])


def test_a_map_keyword_of_which_dask_would_make_a_task(client):
    """Above 100 kB, and below the threshold: the second one fails in plain Dask."""
    small = array(nbytes=150_000)
    with daskps.proxy_graph():
        for _ in range(2):
            futures = client.map(pick, range(3), w=small, pure=False)
            assert client.gather(futures) == list(small[:3])


def test_map_in_batches(client):
    data = [array(i) for i in range(6)]
    with daskps.proxy_graph(), messages_sent(client) as messages:
        futures = client.map(total, data, batch_size=2)
        assert client.gather(futures) == [x.sum() for x in data]
    assert graph_nbytes(messages) < MIB


def test_executor(client):
    data = array()
    with daskps.proxy_graph(), client.get_executor() as executor:
        assert executor.submit(total, data).result() == data.sum()
        assert list(executor.map(total, [data, data])) == [data.sum()] * 2
        futures = [executor.submit(total, data, i) for i in range(3)]
        done, not_done = concurrent.futures.wait(futures, timeout=PATIENCE)
        assert [future.result() for future in done] == [data.sum()] * 3
        assert not not_done


def test_futures_in_variables_and_queues_and_published(client, other_client):
    data = array()
    with daskps.proxy_graph():
        future = client.submit(np.negative, data)
        Variable("v", client=client).set(future)
        Queue("q", client=client).put(future)
        client.publish_dataset(d=future)
        wait(future)
        del future
    got = [
        Variable("v", client=other_client).get(),
        Queue("q", client=other_client).get(),
        other_client.get_dataset("d"),
    ]
    for future in got:
        assert isinstance(future, Future)
        np.testing.assert_array_equal(future.result(), -data)
    del got, future
    client.unpublish_dataset("d")
    Variable("v", client=client).delete()
    Queue("q", client=client).close()


def test_a_published_collection_outlives_its_client(cluster, client):
    """Its blocks are needed for as long as it is published, whoever made it."""
    data = array()
    with cluster.client(set_as_default=False) as first:
        x = da.from_array(data, chunks=1 << 16)
        with daskps.proxy_graph(client=first):
            first.publish_dataset(x=first.persist(x))
        del x
    np.testing.assert_array_equal(client.get_dataset("x").compute(), data)
    client.unpublish_dataset("x")


def test_a_future_of_one_client_in_a_graph_of_another(client, other_client):
    data = array()
    with daskps.proxy_graph():
        future = client.submit(np.negative, data)
        wait(future)  # else the scheduler does not know the key yet
        shared = Future(future.key, other_client)
        assert other_client.submit(total, shared, data).result() == -data.sum()
        # Before `future` is released: Dask does not take the other for another owner.
        np.testing.assert_array_equal(shared.result(), -data)


def test_names_that_are_bound_again(client):
    """The same key, or name, for other data, once the earlier is released."""
    first, second = array(), array(1)
    with daskps.proxy_graph():
        for data in first, second:
            future = client.submit(total, data, key="bound-again")
            assert future.result() == data.sum()
            (future,) = client.scatter({"scattered-again": data}).values()
            assert client.submit(total, future, pure=False).result() == data.sum()
            variable = Variable("again", client=client)
            variable.set(client.submit(np.negative, data))
            np.testing.assert_array_equal(variable.get().result(), -data)
            x = da.from_array(data, chunks=1 << 16, name="x-again").persist()
            np.testing.assert_array_equal((x + 1).compute(), data + 1)
            for published in x.sum(), x.max():
                client.publish_dataset(published, name="published-again", override=True)
            assert client.get_dataset("published-again").compute() == data.max()
            client.unpublish_dataset("published-again")
            variable.delete()
            del future, x, published
            assert eventually(lambda: not client.run_on_scheduler(tasks_named_again))


def tasks_named_again(dask_scheduler):
    return [key for key in dask_scheduler.tasks if "again" in str(key)]


def test_a_collection_that_takes_the_place_of_itself(client):
    data = array()
    x = da.from_array(data, chunks=1 << 16)
    with daskps.proxy_graph():
        for _ in range(3):
            x = (x + 1).persist()
        np.testing.assert_array_equal(x.compute(), data + 3)


def test_retry_and_cancel(client):
    data = array()
    with daskps.proxy_graph():
        flag = Variable("fails", client=client)
        flag.set(True)
        future = client.submit(fails_at_first, data)
        assert isinstance(future.exception(), ZeroDivisionError)
        flag.set(False)
        future.retry()
        assert future.result() == data.sum()
        other = client.submit(total, data, pure=False)
        other.cancel()
        flag.delete()


def fails_at_first(x):
    return float(x.sum()) if not Variable("fails").get() else 1 / 0


def test_as_completed_and_fire_and_forget(client):
    data = [array(i) for i in range(3)]
    with daskps.proxy_graph():
        futures = client.map(np.negative, data)
        done = {f.key: r for f, r in as_completed(futures, with_results=True)}
        for future, x in zip(futures, data, strict=True):
            np.testing.assert_array_equal(done[future.key], -x)
        flag = Variable("done", client=client)
        gate = Gate(client)
        fire_and_forget(client.submit(set_flag, data[0], gate.future))
        # A task that ends before the scheduler is told that nobody will ask for it is kept
        # for ever (distributed 2026.8.0).
        client.run_on_scheduler(os.getpid)
        gate.open()
        assert flag.get(timeout=PATIENCE) == data[0].sum()
        flag.delete()
        del gate


def set_flag(x, gate):
    Variable("done").set(float(x.sum()))


def test_drawing_a_graph(client):
    pytest.importorskip("graphviz", reason="only needed to draw")
    from dask.dot import to_graphviz

    x = da.from_array(array(), chunks=1 << 16) + 1
    plain = to_graphviz(x.dask).source
    with daskps.proxy_graph():
        assert to_graphviz(x.dask).source == plain
        proxied = daskps.optimize(x.dask, [])
        assert proxied is not x.dask
        # What is read from a store is drawn like a task, with the same result.
        assert to_graphviz(proxied).source.count("=box") == plain.count("=box")


def test_optimized_collections(client):
    data = array()
    (x,) = dask.optimize(da.from_array(data, chunks=1 << 16) + 1)
    with daskps.proxy_graph():
        np.testing.assert_array_equal(x.compute(), data + 1)


def test_graph_manipulation(client):
    data = array()
    x = da.from_array(data, chunks=1 << 16)
    y = dask.graph_manipulation.bind(x + 1, x.sum())
    with daskps.proxy_graph():
        np.testing.assert_array_equal(y.compute(), data + 1)
        np.testing.assert_array_equal(dask.graph_manipulation.clone(x).compute(), data)
        z = dask.graph_manipulation.wait_on(x)
        np.testing.assert_array_equal(z.compute(), data)
        assert dask.graph_manipulation.checkpoint(x).compute() is None


def test_pure_delayed_values(client):
    data = array()
    pure = [dask.delayed(total, pure=True)(data) for _ in range(2)]
    assert pure[0].key == pure[1].key
    with daskps.proxy_graph():
        future = client.compute(pure[0])
        assert future.key == pure[0].key
        assert dask.compute(*pure) == (data.sum(), data.sum())
        assert daskps.usage(client).objects == 1


class Counter:
    def __init__(self, data):
        self.data = data

    def first(self):
        return float(self.data[0])


def test_actors(client):
    data = array()
    with daskps.proxy_graph(), messages_sent(client) as messages:
        actor = client.submit(Counter, data, actor=True).result()
        assert actor.first().result() == data[0]
    assert graph_nbytes(messages) < MIB


# Scatter


@pytest.fixture
def copies_stay(client):
    """Dask's memory manager drops copies that no task waits for, every two seconds."""
    client.amm.stop()
    yield
    client.amm.start()


@pytest.mark.usefixtures("copies_stay")
@pytest.mark.parametrize("broadcast", [False, True])
@pytest.mark.parametrize("hash", [False, True])
def test_scatter_gives_what_it_gives_without(client, hash, broadcast):
    big, small = array(seed=2 * hash + broadcast), array(1, nbytes=80)
    options = {"hash": hash, "broadcast": broadcast}
    with daskps.proxy_graph():
        one = client.scatter(big, **options)
        several = client.scatter([big, small], **options)
        keys = f"big-{hash}-{broadcast}", f"small-{hash}-{broadcast}"
        named = client.scatter(dict(zip(keys, (big, small), strict=True)), **options)
    assert isinstance(one, Future)
    assert type(several) is list
    assert list(named) == list(keys)
    for future in (one, several[0], named[keys[0]]):
        wait(future)  # a busy machine
        assert future.status == "finished"
        np.testing.assert_array_equal(future.result(), big)
    for future in (several[1], named[keys[1]]):
        np.testing.assert_array_equal(future.result(), small)
    if hash:
        assert one.key == several[0].key
    if broadcast:
        assert len(client.who_has(one)[one.key]) == 2


def test_scatter_takes_derived_containers_as_plain_dask_does(client):
    big = array(seed=77)
    for data in (collections.OrderedDict(a=big), collections.defaultdict(int, b=big)):
        plain = client.scatter(data)
        with daskps.proxy_graph():
            assert type(client.scatter(data)) is type(plain)


def queue_of(values):
    filled = queue.Queue()
    for value in values:
        filled.put(value)
    return filled


@pytest.mark.parametrize("make", [iter, lambda xs: (x for x in xs), queue_of])
def test_scatter_refuses_what_plain_dask_refuses(client, make):
    with pytest.raises(TypeError) as plain:
        client.scatter(make([array(), 1]))
    with daskps.proxy_graph(), pytest.raises(TypeError) as ours:
        client.scatter(make([array(), 1]))
    assert str(ours.value) == str(plain.value)


@pytest.mark.parametrize("status", ["closing", "running"])
def test_a_client_that_closes_after_scattering_says_nothing(
    own_cluster, caplog, monkeypatch, status
):
    """What is submitted a moment later is lost then, as all else; other errors are said."""
    tried = threading.Event()

    def submit(client, *args):
        client.status = status
        tried.set()
        raise daskps.ClusterError("the client was closed")

    monkeypatch.setattr("daskps.client.scatter._submit", submit)
    with own_cluster.client() as another, daskps.proxy_graph(client=another):
        future = another.scatter(array(), hash=False)
        assert tried.wait(60)
        another.status = "running"
        del future
    said = [r for r in caplog.records if "ClusterError" in str(r.exc_info)]
    assert bool(said) == (status == "running")


def test_scattered_data_does_not_pass_through_the_scheduler(client):
    with daskps.proxy_graph(), messages_sent(client) as messages:
        future = client.scatter(array())
        assert eventually(lambda: daskps.usage(client).objects == 1)
    assert graph_nbytes(messages) < MIB
    del future


def test_scattered_data_survives_its_worker():
    data = array()
    with ProcessCluster() as cluster, daskps.Client(cluster.address) as client:
        workers = sorted(client.scheduler_info(n_workers=-1)["workers"])
        future = client.scatter(data, workers=[workers[0]])
        assert client.who_has(future)[future.key] == (workers[0],)
        client.run(os._exit, 1, workers=[workers[0]], on_error="ignore")
        assert eventually(lambda: client.ncores().keys() == {workers[1]})
        assert client.submit(total, future).result(timeout=PATIENCE) == data.sum()


def test_scatter_of_a_client_that_is_not_the_default(client, other_client):
    data = array()
    with daskps.proxy_graph(client=other_client):
        futures = other_client.scatter([data, data + 1], hash=False)
        assert [future.status for future in futures] == ["finished"] * 2
        assert {future.type for future in futures} == {np.ndarray}
        where = other_client.who_has(futures)
        # In turn, as plain Dask has it.
        assert len({worker for workers in where.values() for worker in workers}) == 2
        np.testing.assert_array_equal(futures[1].result(), data + 1)
        del futures


def test_scattered_data_that_a_worker_cannot_read_comes_by_a_task(client, monkeypatch):
    """A worker that was lost meanwhile, say: the scheduler chooses another one."""

    def break_once(broken, dask_worker):
        dask_worker.handlers["daskps_read_kept"] = dask_worker.handlers["daskps_read"]
        dask_worker.handlers["daskps_read"] = broken

    def mend(dask_worker):
        dask_worker.handlers["daskps_read"] = dask_worker.handlers["daskps_read_kept"]

    with daskps.proxy_graph():
        client.run(break_once, broken=cannot_read)
        try:
            data = array()
            future = client.scatter(data)
            assert wait(future, timeout=30).done == {future}
            np.testing.assert_array_equal(future.result(), data)
        finally:
            client.run(mend)
        del future


async def cannot_read(nodes):
    raise OSError("not here")


# Tasks that submit tasks


def submits_with_worker_client(seed):
    x = array(seed)
    with worker_client() as client:
        return client.gather([client.submit(total, x, i) for i in range(3)])


def submits_with_get_client(seed):
    x = array(seed)
    client = get_client()
    futures = [client.submit(total, x, i) for i in range(3)]
    secede()
    return client.gather(futures)


@pytest.mark.parametrize(
    "submits", [submits_with_worker_client, submits_with_get_client]
)
def test_tasks_that_submit_tasks(submits):
    """On a cluster of their own: tasks have the settings of the session opened last."""
    with ProcessCluster() as cluster, cluster.client() as client:
        with daskps.proxy_graph():
            client.submit(submits, 6, pure=False).result()  # imports what it needs
            before = peak(cluster.scheduler.pid, reset=True)
            future = client.submit(submits, 7, pure=False)
            assert future.result() == [array(7).sum()] * 3
        assert peak(cluster.scheduler.pid) - before < 5 * MIB


def peak(pid, reset=False):
    if reset:
        with open(f"/proc/{pid}/clear_refs", "w") as f:
            f.write("5")
    with open(f"/proc/{pid}/status") as f:
        line = next(line for line in f if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def test_the_store_of_a_client_that_is_not_the_current_one(cluster, caplog):
    """Nobody waits for it, and nothing is wrong if the client is closed meanwhile."""

    async def main(**named):
        async with Client(
            cluster.address, asynchronous=True, set_as_default=False
        ) as other:
            named = {"client": other} if named else {}
            async with daskps.proxy_graph(threshold=1, **named):
                return await other.submit(len, array(), pure=False)

    assert asyncio.run(main(client=True)) == len(array())
    assert not caplog.text
    assert asyncio.run(main()) == len(array())
    [warning] = [r.getMessage() for r in caplog.records]
    assert "with client=... if" in warning


def test_an_asynchronous_client_scatters(cluster):
    async def main():
        async with daskps.Client(cluster.address, asynchronous=True) as client:
            future = await client.scatter(array())
            assert await client.submit(total, future) == array().sum()

    asyncio.run(main())


# Memory


def all_but_the_first(x):
    return x[1:]


def unshared_nbytes():
    return psutil.Process().memory_full_info().uss


def test_tasks_that_keep_one_value_share_its_memory(client):
    model = array(nbytes=32 * MIB)
    with daskps.proxy_graph():
        before = client.run(unshared_nbytes)
        kept = dask.persist(
            *(dask.delayed(all_but_the_first, pure=False)(model) for _ in range(8))
        )
        wait(kept)
        sums = [dask.delayed(np.sum)(x) for x in kept]
        assert set(dask.compute(*sums)) == {model[1:].sum()}
        after = client.run(unshared_nbytes)
        assert daskps.usage(client).objects == 1
    # Each of eight copies would be 32 MiB.
    assert sum(after.values()) - sum(before.values()) < 32 * MIB


def test_a_client_that_allows_no_pickle_gets_none(cluster):
    """As in plain Dask: such results and such data are errors."""
    allowed = {"serializers": ["dask", "msgpack"], "set_as_default": False}
    for kind in (Client, daskps.Client):
        with kind(cluster.address, **allowed) as own:
            large = own.submit(np.add, np.ones(MIB), 1)
            np.testing.assert_array_equal(large.result(), np.full(MIB, 2.0))
            with pytest.raises(TypeError, match="serialize"):
                own.submit(fractions.Fraction, 1, 3).result()
            with pytest.raises(TypeError, match="serialize"):
                own.submit(pd.Series, range(1 << 17)).result()
            with pytest.raises(TypeError, match="serialize"):
                own.scatter(fractions.Fraction(1, 3))
            del large


def first_and_sum(items):
    return items[0] + items[1].sum()


@pytest.mark.parametrize("container", [list, tuple])
def test_futures_beside_large_values_in_items_of_a_map(client, container):
    data = array()
    with daskps.proxy_graph(), messages_sent(client) as messages:
        future = client.submit(int, 41)
        items = [container([future, data]) for _ in range(2)]
        futures = client.map(first_and_sum, items, pure=False)
        assert client.gather(futures) == [41 + data.sum()] * 2
    assert graph_nbytes(messages) < MIB


def scatters(seed):
    return get_client().scatter(array(seed)).key


def test_scatter_in_a_task_that_occupies_its_worker(client):
    with daskps.proxy_graph():
        workers = list(client.scheduler_info()["workers"])
        busy = [client.submit(scatters, i, workers=w) for i, w in enumerate(workers)]
        assert len(set(client.gather(busy))) == len(workers)


def test_scatter_without_workers():
    with (
        LocalCluster(n_workers=0, dashboard_address=None) as cluster,
        Client(cluster) as client,
        daskps.proxy_graph(store="shm://"),
        pytest.raises(TimeoutError, match="No valid workers"),
    ):
        client.scatter(array(), timeout="500 ms")


def broadcast():
    return np.broadcast_to(array(nbytes=MIB), (100, MIB // 8))


def test_broadcast_results_travel_as_the_memory_that_there_is(client):
    plain = client.submit(broadcast, pure=False).result()
    with daskps.proxy_graph(), messages_sent(client):
        result = client.submit(broadcast, pure=False).result()
        scattered = client.scatter(broadcast()).result()
    for array_ in result, scattered:
        assert array_.strides == plain.strides
        assert array_.flags.writeable == plain.flags.writeable
        np.testing.assert_array_equal(array_, plain)


def is_same(a, b):
    return a is b


def doubled_into(x, out):
    np.multiply(x, 2, out=out)
    return float(x.sum())


@pytest.mark.parametrize(
    "way",
    [
        lambda c, f, x: c.submit(f, x, x, pure=False).result(),
        lambda c, f, x: c.submit(f, x, **{NAMES[f]: x}, pure=False).result(),
        lambda c, f, x: dask.delayed(f)(x, x).compute(),
        lambda c, f, x: c.get({"key": (f, x, x)}, "key"),
    ],
    ids=["submit", "submit keyword", "delayed", "legacy graph"],
)
@pytest.mark.parametrize("function", [is_same, doubled_into])
def test_an_object_that_is_several_arguments_is_one(client, way, function):
    data = np.arange(MIB // 8)
    plain = way(client, function, data)
    with daskps.proxy_graph(), messages_sent(client) as messages:
        assert way(client, function, data) == plain
    assert graph_nbytes(messages) < MIB


NAMES = {is_same: "b", doubled_into: "out"}


def is_within(a, b):
    return a is b[0]


def written_within(x, out):
    np.multiply(x, 2, out=out[0])
    return float(x.sum())


def is_weights(instance, weights):
    return instance.data is weights


def is_carried(carried, given):
    return carried is given


def times_within(block, a, b):
    return block * (a.data is b[0])


async def is_same_later(a, b):
    return a is b


def same_key(item, data, more):
    return item is data, more is data, item is more


SHARING = {
    "map": lambda c, x: c.gather(c.map(is_same, [x, x.copy()], [x, x], pure=False)),
    "map keyword": lambda c, x: c.gather(
        c.map(same_key, [x, x.copy(), 1], data=x, more=x, pure=False)
    ),
    "coroutine": lambda c, x: c.submit(is_same_later, x, x, pure=False).result(),
    "coroutines of a map": lambda c, x: c.gather(
        c.map(is_same_later, [x, x.copy()], b=x, pure=False)
    ),
    "in a list": lambda c, x: c.submit(is_within, x, [x], pure=False).result(),
    "in a list of a map": lambda c, x: c.gather(
        c.map(is_within, [x, x.copy()], [[x], [x]], pure=False)
    ),
    "in a list with a future": lambda c, x: c.submit(
        is_within, x, [x, c.submit(int, 1)], pure=False
    ).result(),
    "a list in a list": lambda c, x: c.submit(
        is_within, (s := list(range(400_000))), [s], pure=False
    ).result(),
    "written": lambda c, x: c.submit(written_within, x, [x], pure=False).result(),
    "in an instance": lambda c, x: c.submit(
        is_weights, Instance(x), x, pure=False
    ).result(),
    "in an instance of a map": lambda c, x: c.gather(
        c.map(is_weights, [Instance(x), Instance(x)], weights=x, pure=False)
    ),
    "carried": lambda c, x: c.submit(
        functools.partial(is_carried, x), x, pure=False
    ).result(),
    "carried by a function of a map": lambda c, x: c.gather(
        c.map(functools.partial(is_carried, x), [x, x.copy()], pure=False)
    ),
    "delayed": lambda c, x: dask.delayed(is_within)(x, [x]).compute(),
    "legacy graph": lambda c, x: c.get({"key": (is_within, x, [x])}, "key"),
    "fused": lambda c, x: dask.delayed(int)(dask.delayed(is_within)(x, [x])).compute(),
    "symbolic layer": lambda c, x: (
        da.ones((4, 1), chunks=1)
        .map_blocks(times_within, a=Instance(x), b=[x], dtype=float)
        .compute()
        .tolist()
    ),
}


EXPECTED = {
    "map keyword": [(True, True, True), (False, True, False), (False, True, False)],
    "coroutines of a map": [True, False],
    "in an instance of a map": [True, True],
}


@pytest.mark.parametrize("way", SHARING)
def test_an_object_that_occurs_several_times_in_a_task_is_one(client, way):
    data = np.arange(MIB // 8)
    # Dask alone fails with large keyword arguments of maps.
    plain = EXPECTED[way] if way in EXPECTED else SHARING[way](client, data)
    with daskps.proxy_graph(), messages_sent(client) as messages:
        assert SHARING[way](client, data) == plain
    assert graph_nbytes(messages) < MIB // 4


def test_values_that_share_nothing_are_stored_apart(client):
    many = [{f"{i}": [i, n] for i in range(50_000)} for n in range(3)]
    with daskps.proxy_graph():
        futures = [
            client.submit(is_same, a, b, pure=False)
            for a, b in itertools.permutations(many, 2)
        ]
        assert not any(client.gather(futures))
        del futures  # which keep their tasks
        assert eventually(lambda: daskps.usage(client).objects == len(many))


def fails_with(data, *args):
    raise LookupError(f"{data.nbytes} bytes")


class Failing:
    def __init__(self, data):
        self.data = data

    def fail(self, *args):
        fails_with(self.data)


FAILING = {
    "partial": lambda x: functools.partial(fails_with, x),
    "method": lambda x: Failing(x).fail,
    "closure": lambda x: lambda *args: fails_with(x, *args),
}
SUBMITTING = {
    "submit": lambda c, f: c.submit(f, 1, pure=False),
    "map": lambda c, f: c.map(f, [1], pure=False)[0],
    "with what it carries": lambda c, f: c.submit(f, f, pure=False),
    "delayed": lambda c, f: c.compute(dask.delayed(f, pure=False)(1)),
    "legacy graph": lambda c, f: c.get({"failing": (f, 1)}, "failing", sync=False),
}


def raised_by(future):
    """The error of a future, and the frames that a user is shown."""
    try:
        future.result()
    except LookupError as e:
        shown = [
            (f.filename, f.name, f.line) for f in traceback.extract_tb(e.__traceback__)
        ]
        e.__traceback__ = None  # Dask keeps the error, and its frames the future
        return repr(e), shown[1:]


@pytest.mark.parametrize("way", SUBMITTING)
@pytest.mark.parametrize("kind", FAILING)
def test_errors_of_stored_functions_have_the_frames_of_plain_dask(client, kind, way):
    def run():
        future = SUBMITTING[way](client, FAILING[kind](array()))
        told = traceback.extract_tb(future.traceback())
        return [(f.name, f.line) for f in told], raised_by(future)

    plain = run()
    assert plain[0]
    with daskps.proxy_graph(), messages_sent(client) as messages:
        assert run() == plain
    assert graph_nbytes(messages) < MIB


def log_of_failures(dask_worker):
    return [text for _, text in dask_worker.get_logs() if "Compute Failed" in text]


def test_the_log_of_a_stored_function_that_fails(client):
    def run(key):
        wait(client.submit(FAILING["partial"](array()), 1, key=key))
        of_workers = client.run(log_of_failures).values()
        (log,) = (text for text in itertools.chain(*of_workers) if key in text)
        return log[log.index("Exception:") :]

    plain = run("fails-in-plain-dask")
    assert "fails_with" in plain
    with daskps.proxy_graph():
        assert run("fails-in-a-session") == plain


class Pair(collections.namedtuple("Pair", ["data", "number"])):
    """Makes something of what it is given."""

    def __new__(cls, data):
        return super().__new__(cls, np.asarray(data), 2)

    def __getnewargs__(self):
        return (self.data,)


def pair_sum(pair):
    return float(pair.data.sum()) + pair.number


def test_derived_tuples_in_bags_and_legacy_graphs(client):
    pair = Pair(array())
    with daskps.proxy_graph(), messages_sent(client) as messages:
        bag = db.from_sequence([pair, pair], npartitions=1).map(pair_sum)
        assert bag.compute() == [pair_sum(pair)] * 2
        assert client.get({"key": (pair_sum, pair)}, "key") == pair_sum(pair)
    assert graph_nbytes(messages) < MIB


class TestChangedInPlace:
    """No task sees what an array was before."""

    def test_a_read_only_array_that_is_made_writable_again(self, client):
        data = np.zeros(MIB // 8)
        sums = []
        with daskps.proxy_graph():
            for _ in range(2):
                data.flags.writeable = False
                sums.append(client.submit(np.sum, data, pure=False).result())
                data.flags.writeable = True
                data += 1
        assert sums == [0, MIB // 8]

    def test_a_read_only_array_through_an_older_view(self, client):
        data = np.zeros(MIB // 8)
        view = data[:]
        data.flags.writeable = False
        with daskps.proxy_graph():
            assert client.submit(np.sum, data, pure=False).result() == 0
            view += 1
            assert client.submit(np.sum, data, pure=False).result() == MIB // 8
