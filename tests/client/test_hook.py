"""The one place through which every graph goes on its way out."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import dask
import dask.array as da
import dask.bag as db
import dask.base
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask.highlevelgraph import HighLevelGraph
from distributed import Client, LocalCluster
from processes import PATIENCE, eventually, graph_nbytes, messages_sent

import daskps
from daskps.client import submission
from daskps.client.session import current_session
from daskps.objects.encoder import THREADS, Encoder

pytestmark = pytest.mark.core

VALUE = np.arange(1 << 17, dtype="f8")  # 1 MiB
TOTAL = VALUE.sum()

WAYS = {
    "dask.compute": lambda c: dask.compute(dask.delayed(np.sum)(VALUE))[0],
    "dask.compute of several": lambda c: dask.compute(
        dask.delayed(np.sum)(VALUE), da.from_array(VALUE, chunks=1 << 15).sum()
    )[1],
    "delayed.compute": lambda c: dask.delayed(np.sum)(VALUE).compute(),
    "array.compute": lambda c: da.from_array(VALUE, chunks=-1).sum().compute(),
    "bag.compute": lambda c: db.from_sequence([VALUE], 1).map(np.sum).compute()[0],
    "dask.persist": lambda c: dask.persist(dask.delayed(np.sum)(VALUE))[0].compute(),
    "array.persist": lambda c: (
        da.from_array(VALUE, chunks=-1).sum().persist().compute()
    ),
    "client.compute": lambda c: c.compute(dask.delayed(np.sum)(VALUE)).result(),
    "client.compute of several": lambda c: c.gather(
        c.compute([dask.delayed(np.sum)(VALUE), da.from_array(VALUE).max()])
    )[0],
    "client.persist": lambda c: c.persist(
        da.from_array(VALUE, chunks=-1).sum()
    ).compute(),
    "client.get": lambda c: c.get({"x": VALUE, "s": (np.sum, "x")}, "s"),
    "client.submit": lambda c: c.submit(np.sum, VALUE).result(),
    "client.map": lambda c: c.gather(c.map(np.sum, [VALUE]))[0],
}
CLIENTLESS = [
    "dask.compute",
    "dask.compute of several",
    "delayed.compute",
    "array.compute",
    "bag.compute",
    "dask.persist",
    "array.persist",
]


class Recorder:
    """A pass that changes nothing and notes what it was given."""

    def __init__(self):
        self.calls = []

    def __call__(self, dsk, keys, **kwargs):
        self.calls.append((dsk, keys, kwargs))
        return dsk


# dask.config.set(optimizations=[f])


@pytest.mark.parametrize("way", WAYS)
class TestOptimizationsOfAClient:
    def test_are_called_on_every_path(self, client, way):
        record = Recorder()
        with dask.config.set(optimizations=[record]):
            assert WAYS[way](client) == TOTAL
        for dsk, keys, _ in record.calls:
            assert isinstance(dsk, HighLevelGraph | dict)
            assert isinstance(keys, list)
        # There may be a second call, for what was persisted by the first.
        dsk, keys, _ = record.calls[0]
        assert set(dask.core.flatten(keys)) <= set(dict(dsk))

    def test_include_daskps_itself(self, client, way):
        with (
            dask.config.set(
                {"optimizations": [daskps.optimize], "daskps.cache-size": 0}
            ),
            messages_sent(client) as messages,
        ):
            assert WAYS[way](client) == TOTAL
        assert graph_nbytes(messages) < 50_000
        assert "daskps-hold" in [message["op"] for message in messages]

    def test_proxy_graph_does_the_same(self, client, way):
        with daskps.proxy_graph(), messages_sent(client) as messages:
            assert WAYS[way](client) == TOTAL
        assert graph_nbytes(messages) < 50_000
        assert "daskps-hold" in [message["op"] for message in messages]

    def test_nothing_happens_otherwise(self, client, way):
        with messages_sent(client) as messages:
            assert WAYS[way](client) == TOTAL
        assert graph_nbytes(messages) > VALUE.nbytes
        assert "daskps-hold" not in [message["op"] for message in messages]


@pytest.mark.parametrize("scheduler", ["threads", "sync"])
@pytest.mark.parametrize("way", CLIENTLESS)
def test_optimizations_of_local_schedulers(scheduler, way):
    record = Recorder()
    with dask.config.set(optimizations=[record], scheduler=scheduler):
        assert WAYS[way](None) == TOTAL
    assert record.calls
    for dsk, keys, _ in record.calls:
        assert isinstance(dsk, HighLevelGraph | dict)
        assert set(dask.core.flatten(keys)) <= set(dict(dsk))


def test_a_pass_may_change_the_graph(client):
    def double(dsk, keys, **kwargs):
        graph = dict(dsk)
        for key in dask.core.flatten(keys):
            task = graph[key]
            graph[key] = dask._task_spec.Task(key, twice, task)
        return graph

    with dask.config.set(optimizations=[double]):
        assert client.submit(inc, 1).result() == 4
        assert client.gather(client.map(inc, [2, 3])) == [6, 8]
        assert dask.delayed(inc)(4).compute() == 10
    with dask.config.set(optimizations=[double, double], scheduler="sync"):
        assert dask.delayed(inc)(1).compute() == 8


def test_a_pass_may_give_a_dictionary(client):
    def plain(dsk, keys, **kwargs):
        return dict(dsk)

    x = da.ones(10, chunks=5)
    with dask.config.set(optimizations=[plain]):
        assert x.sum().compute() == 10
        assert dask.compute(x.sum(), x.mean()) == (10, 1)
        assert dask.delayed(inc)(4).compute() == 5


def inc(x):
    return x + 1


def twice(x):
    return 2 * x


@pytest.mark.parametrize("scheduler", ["threads", "sync"])
def test_local_schedulers_call_a_pass_once(scheduler):
    record = Recorder()
    with dask.config.set(optimizations=[record]):
        dask.delayed(inc)(1).compute(scheduler=scheduler)
        assert len(record.calls) == 1
        with dask.config.set(scheduler=scheduler):
            dask.delayed(inc)(1).compute()
        assert len(record.calls) == 2


def test_passes_are_called_in_order(client):
    called = []

    def make(name):
        def optimization(dsk, keys, **kwargs):
            called.append(name)
            return dsk

        return optimization

    with dask.config.set(optimizations=[make("a"), make("b")]):
        client.submit(inc, 1).result()
    assert called == ["a", "b"]


def test_a_pass_sees_the_graph_after_the_collections_own_optimisation(client):
    x = (da.ones(100, chunks=10) + 1) * 2
    record = Recorder()
    with dask.config.set(optimizations=[record]):
        np.testing.assert_array_equal(x.compute(), np.full(100, 4.0))
    (dsk, _, _), *_ = record.calls
    assert len(dict(dsk)) < len(dict(x.dask))


def test_an_error_in_a_pass_reaches_the_user(client):
    def fails(dsk, keys, **kwargs):
        raise RuntimeError("this pass fails")

    with dask.config.set(optimizations=[fails]):
        with pytest.raises(RuntimeError, match="this pass fails"):
            client.submit(inc, 1)
        with pytest.raises(RuntimeError, match="this pass fails"):
            dask.delayed(inc)(1).compute(scheduler="sync")


class TestAnEmptyList:
    """changes nothing at all."""

    @pytest.mark.parametrize("scheduler", ["threads", "sync", "processes"])
    @pytest.mark.parametrize("passes", [None, [], ()])
    def test_dasks_own_function_is_given_out(self, scheduler, passes):
        with dask.config.set(optimizations=passes):
            get = dask.base.get_scheduler(scheduler=scheduler)
        assert get is dask.base.named_schedulers[scheduler]

    def test_a_clients_own_method_is_given_out(self, client):
        assert dask.base.get_scheduler() == client.get
        with dask.config.set(optimizations=[Recorder()]):
            assert dask.base.get_scheduler() == client.get

    def test_the_expression_is_not_touched(self, client):
        expr = dask.delayed(np.sum)(VALUE).__dask_graph__()
        submitted = submission._before_submission(client, expr, [])
        new, alive = submitted.expr, submitted.alive
        assert new is expr
        assert not alive


# daskps.optimize


class TestOptimize:
    def test_by_hand(self, client):
        graph = da.from_array(VALUE, chunks=1 << 15).sum().dask
        with dask.config.set({"daskps.cache-size": 0}):
            new = daskps.optimize(graph, [])
            assert set(dict(new)) == set(dict(graph))
            assert eventually(lambda: daskps.usage(client).objects == 4)
            assert daskps.optimize(new, []) is new
            del new

    def test_returns_the_graph_itself_if_nothing_is_large(self, client):
        for graph in (da.ones(1000, chunks=10).dask, {"a": 1, "b": (inc, "a")}, {}):
            assert daskps.optimize(graph, []) is graph

    def test_returns_the_graph_itself_without_a_cluster(self):
        graph = da.from_array(VALUE, chunks=-1).dask
        assert daskps.optimize(graph, []) is graph

    def test_a_graph_made_by_hand_can_be_submitted(self, client):
        graph = {"x": VALUE, "s": (np.sum, "x")}
        with dask.config.set({"daskps.cache-size": 0}):
            new = daskps.optimize(graph, ["s"])
            with messages_sent(client) as messages:
                assert client.get(new, "s") == TOTAL
        assert graph_nbytes(messages) < 10_000
        del new


# proxy_graph


def session_now():
    sessions = []

    def note():
        sessions.append(current_session(None))

    note()
    return sessions[0]


class TestProxyGraph:
    def test_is_a_context_manager(self):
        assert session_now() is None
        with daskps.proxy_graph() as session:
            assert session_now() is session
        assert session_now() is None

    def test_ends_with_an_error(self):
        with pytest.raises(ZeroDivisionError), daskps.proxy_graph():
            raise ZeroDivisionError
        assert session_now() is None

    def test_nests(self):
        with daskps.proxy_graph() as outer:
            with daskps.proxy_graph() as inner:
                assert session_now() is inner
            assert session_now() is outer

    def test_can_be_entered_again(self):
        block = daskps.proxy_graph()
        with block as first, block as second:
            assert first is not second
            assert session_now() is second
        with block as third:
            assert session_now() is third
        assert session_now() is None

    def test_one_block_in_two_threads(self):
        block = daskps.proxy_graph()
        entered, left = threading.Event(), threading.Event()

        def other():
            with block:
                entered.set()
                assert left.wait(PATIENCE)
                return session_now()

        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(other)
            assert entered.wait(PATIENCE)
            with block as mine:
                assert session_now() is mine
            assert session_now() is None
            left.set()
            assert future.result() not in (None, mine)

    def test_decorates_functions(self):
        @daskps.proxy_graph(threshold="2 MiB")
        def function(a, b=0):
            """Has a docstring."""
            return a + b, session_now().settings.threshold

        assert function(1, b=2) == (3, 2 << 20)
        assert (function.__name__, function.__doc__) == (
            "function",
            "Has a docstring.",
        )
        assert session_now() is None

    def test_decorates_recursive_functions(self):
        @daskps.proxy_graph()
        def function(n):
            sessions = {id(session_now())}
            return sessions | (function(n - 1) if n else set())

        assert len(function(3)) == 4

    def test_decorates_coroutine_functions(self):
        @daskps.proxy_graph(threshold="2 MiB")
        async def function(a):
            await asyncio.sleep(0)
            return a, session_now().settings.threshold

        assert asyncio.run(function(1)) == (1, 2 << 20)
        assert session_now() is None

    def test_decorates_without_parentheses(self):
        @daskps.proxy_graph
        def function(a):
            return a, session_now() is not None

        @daskps.proxy_graph
        async def coroutine(a):
            await asyncio.sleep(0)
            return a, session_now() is not None

        assert function(1) == (1, True)
        assert asyncio.run(coroutine(2)) == (2, True)
        assert function.__name__ == "function"
        assert session_now() is None

    @pytest.mark.parametrize("decorate", [daskps.proxy_graph, daskps.proxy_graph()])
    def test_decorates_generator_functions(self, decorate):
        @decorate
        def generator():
            seen.append(session_now())
            try:
                seen.append((yield 1))
                seen.append((yield 2))
            except KeyError as e:
                seen.append(e)
                yield 3
            finally:
                seen.append(session_now())
            return 4

        seen = []
        values = generator()
        assert next(values) == 1
        assert session_now() is None  # nor is it on for who takes the values
        assert values.send("sent") == 2
        error = KeyError()
        assert values.throw(error) == 3
        with pytest.raises(StopIteration) as end:
            next(values)
        assert end.value.value == 4
        first, *rest = seen
        assert first is not None
        assert rest == ["sent", error, first]
        seen.clear()
        values = generator()
        next(values)
        values.close()
        assert None not in seen
        assert len(set(seen)) == 1
        assert session_now() is None

    def test_decorates_asynchronous_generator_functions(self):
        @daskps.proxy_graph
        async def generator():
            seen.append(session_now())
            try:
                await asyncio.sleep(0)
                seen.append((yield 1))
                yield 2
            except KeyError as e:
                seen.append(e)
                yield 3
            finally:
                seen.append(session_now())

        async def use():
            values = generator()
            assert await anext(values) == 1
            assert session_now() is None
            assert await values.asend("sent") == 2
            assert await values.athrow(error) == 3
            assert [value async for value in values] == []
            first, *rest = seen
            assert first is not None
            assert rest == ["sent", error, first]
            seen.clear()
            values = generator()
            await anext(values)
            await values.aclose()
            assert None not in seen
            assert len(set(seen)) == 1

        seen, error = [], KeyError()
        asyncio.run(use())

    def test_a_generator_submits_by_reference(self, client):
        @daskps.proxy_graph
        def sums():
            for seed in range(2):
                yield client.submit(np.sum, VALUE * seed).result()

        with messages_sent(client) as messages:
            assert list(sums()) == [0.0, TOTAL]
        assert graph_nbytes(messages) < 50_000

    @pytest.mark.parametrize(
        ("what", "words"),
        [
            (type("Thing", (), {}), "functions, not the class .*Thing.*its methods"),
            (5, "functions, not 5"),
        ],
    )
    def test_says_what_cannot_be_decorated(self, what, words):
        with pytest.raises(TypeError, match=words):
            daskps.proxy_graph()(what)

    def test_is_for_one_thread(self):
        seen = []
        with daskps.proxy_graph():
            thread = threading.Thread(target=lambda: seen.append(session_now()))
            thread.start()
            thread.join()
        assert seen == [None]

    def test_reaches_a_thread_that_copies_its_context(self):
        with daskps.proxy_graph() as session:
            context = contextvars.copy_context()
        assert context.run(session_now) is session

    def test_is_for_one_asyncio_task(self):
        async def task(threshold, entered, leave):
            async with daskps.proxy_graph(threshold=threshold) as session:
                entered.set()
                await leave.wait()
                assert session_now() is session
                return session.settings.threshold

        async def main():
            first, second = asyncio.Event(), asyncio.Event()
            results = await asyncio.gather(
                task(1, first, second), task(2, second, first)
            )
            assert session_now() is None
            return results

        assert asyncio.run(main()) == [1, 2]

    def test_holds_for_one_client_only(self, client, other_client):
        with daskps.proxy_graph(client=other_client):
            for c, small in ((client, False), (other_client, True)):
                with messages_sent(c) as messages:
                    assert c.submit(np.sum, VALUE, pure=False).result() == TOTAL
                assert (graph_nbytes(messages) < 10_000) == small

    def test_works_without_a_cluster(self):
        with daskps.proxy_graph():
            assert dask.delayed(np.sum)(VALUE).compute(scheduler="sync") == TOTAL

    def test_works_for_a_client_that_comes_later(self, cluster):
        with (
            daskps.proxy_graph(),
            cluster.client() as client,
            messages_sent(client) as messages,
        ):
            assert client.submit(np.sum, VALUE).result() == TOTAL
        assert graph_nbytes(messages) < 10_000


# daskps.Client


class TestClient:
    def test_proxies_for_its_whole_life(self, cluster, client):
        with daskps.Client(cluster.address, set_as_default=False) as own:
            with messages_sent(own) as messages:
                assert own.submit(np.sum, VALUE).result() == TOTAL
                x = da.from_array(VALUE, chunks=-1)
                assert own.compute(x.sum()).result() == TOTAL
            assert graph_nbytes(messages) < 10_000
            with messages_sent(client) as messages:
                assert client.submit(np.sum, VALUE, pure=False).result() == TOTAL
            assert graph_nbytes(messages) > VALUE.nbytes

    def test_is_the_default_client(self, cluster):
        with daskps.Client(cluster.address) as own:
            with messages_sent(own) as messages:
                assert da.from_array(VALUE, chunks=-1).sum().compute() == TOTAL
            assert graph_nbytes(messages) < 10_000

    def test_takes_the_settings_of_proxy_graph(self, own_cluster):
        # Workers go by the threshold of who opened a store.
        with daskps.Client(
            own_cluster.address, store="shm://", threshold="5 MiB", set_as_default=False
        ) as own:
            assert own.daskps_session.settings.threshold == 5 << 20
            with messages_sent(own) as messages:
                own.submit(np.sum, VALUE).result()
            assert graph_nbytes(messages) > VALUE.nbytes

    def test_asynchronous(self, cluster):
        async def main():
            async with daskps.Client(cluster.address, asynchronous=True) as own:
                with messages_sent(own) as messages:
                    assert await own.submit(np.sum, VALUE) == TOTAL
                    (total,) = await own.gather(own.map(np.sum, [VALUE], pure=False))
                    assert total == TOTAL
                    x = da.from_array(VALUE, chunks=-1)
                    assert await own.compute(x.sum()) == TOTAL
                    usage = await daskps.usage(own)
                assert usage.objects == 1
                return graph_nbytes(messages)

        assert asyncio.run(main()) < 10_000

    def test_several_that_open_a_store_at_the_same_time(self):
        async def one(address, i):
            async with daskps.Client(
                address, asynchronous=True, set_as_default=False
            ) as own:
                return await own.submit(np.sum, VALUE + i)

        async def main():
            async with LocalCluster(
                n_workers=2,
                threads_per_worker=1,
                processes=False,
                dashboard_address=None,
                asynchronous=True,
            ) as local:
                address = local.scheduler_address
                return await asyncio.gather(*(one(address, i) for i in range(6)))

        expected = [(VALUE + i).sum() for i in range(6)]
        assert asyncio.run(main()) == expected

    def test_a_plain_asynchronous_client(self, cluster):
        async def main():
            async with Client(cluster.address, asynchronous=True) as plain:
                async with daskps.proxy_graph():
                    with messages_sent(plain) as messages:
                        assert await plain.submit(np.sum, VALUE) == TOTAL
                return graph_nbytes(messages)

        assert asyncio.run(main()) < 10_000

    def test_an_asynchronous_client_that_cannot_wait_says_so(self, cluster, caplog):
        async def main():
            async with Client(cluster.address, asynchronous=True) as plain:
                with daskps.proxy_graph(), caplog.at_level(logging.WARNING, "daskps"):
                    return await plain.submit(np.sum, VALUE)

        assert asyncio.run(main()) == TOTAL
        assert "async with daskps.proxy_graph()" in caplog.text


PARTS = {
    "array": lambda: da.from_array(
        np.arange(4 * len(VALUE), dtype="f8"), chunks=len(VALUE)
    ).sum(),
    "bag": lambda: db.from_sequence([bytes([i]) * (8 << 20) for i in range(4)]).map(
        len
    ),
    "bag of small items": lambda: db.from_sequence(
        [bytes(i) for i in range(8192)], npartitions=4
    ).map(len),
    "frame": lambda: dd.from_pandas(
        pd.DataFrame({"x": np.arange(4.0 * len(VALUE))}), npartitions=4
    ).sum(),
}


@pytest.mark.parametrize("kind", PARTS)
def test_partitions_are_stored_by_several_threads(client, kind, monkeypatch):
    threads = set()
    plain = Encoder.encode

    def encode(self, value):
        if threading.current_thread() is not threading.main_thread():
            threads.add(threading.current_thread())
            assert eventually(lambda: len(threads) == THREADS)  # none does it all
        return plain(self, value)

    monkeypatch.setattr(Encoder, "encode", encode)
    with daskps.proxy_graph():
        PARTS[kind]().compute()
    assert len(threads) == THREADS


# Local schedulers


@pytest.fixture
def not_said(monkeypatch):
    monkeypatch.setattr(submission, "_said_local", False)


@pytest.mark.parametrize("scheduler", ["threads", "sync"])
class TestLocalSchedulers:
    def test_are_left_alone_and_the_log_says_so_once(self, scheduler, caplog, not_said):
        caplog.set_level(logging.INFO, "daskps")
        array = VALUE.copy()
        with daskps.proxy_graph(), dask.config.set(scheduler=scheduler):
            for _ in range(3):
                assert dask.delayed(id)(array).compute() == id(array)
        (record,) = caplog.records
        assert "left off" in record.getMessage()
        assert "store='shm://'" in record.getMessage()

    def test_store_all_the_same_if_a_store_is_given(self, scheduler, caplog, not_said):
        caplog.set_level(logging.INFO, "daskps")
        array = VALUE.copy()
        with (
            daskps.proxy_graph(store="shm://"),
            dask.config.set(scheduler=scheduler),
        ):
            assert dask.delayed(id)(array).compute() != id(array)
            assert dask.delayed(np.sum)(array).compute() == TOTAL
            x = da.from_array(array, chunks=1 << 15)
            np.testing.assert_array_equal((x + 1).compute(), array + 1)
        assert not caplog.records

    def test_or_if_the_configuration_names_one(self, scheduler):
        array = VALUE.copy()
        with (
            dask.config.set({"daskps.store": "shm://", "scheduler": scheduler}),
            daskps.proxy_graph(),
        ):
            assert dask.delayed(id)(array).compute() != id(array)


def test_local_stores_are_gone_after_the_block(tmp_path):
    with (
        daskps.proxy_graph(store=tmp_path.as_uri()),
        dask.config.set(scheduler="sync"),
    ):
        assert dask.delayed(np.sum)(VALUE).compute() == TOTAL
        assert list(tmp_path.iterdir())
    import gc

    gc.collect()
    assert not list(tmp_path.iterdir())
