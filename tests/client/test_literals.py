"""What goes inside graphs does not add up on the scheduler."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
from dask._task_spec import Task
from distributed import wait
from processes import eventually, graph_nbytes, messages_sent

import daskps
from daskps.client import literals
from daskps.client.literals import BUDGET_NBYTES, Literals
from daskps.graph.census import weigh

pytestmark = pytest.mark.core

KB, MIB = 1000, 1 << 20


def array(seed, nbytes):
    return np.random.default_rng(seed).random(nbytes // 8)


def total(*args):
    return sum(np.sum(arg) for arg in args)


@pytest.fixture
def budget(monkeypatch):
    """One megabyte, so that tests are short."""
    monkeypatch.setattr(literals, "BUDGET_NBYTES", 1 << 20)
    monkeypatch.setattr(literals, "LOOK_AGAIN_SECONDS", 0.0)
    return 1 << 20


class Keys:
    """A client that holds the results of these keys."""

    def __init__(self, *keys):
        self.futures = dict.fromkeys(keys)


def one(value):
    return weigh([Task("key", total, value)])


def test_a_value_that_is_sent_again_while_its_results_are_held(client):
    value = array(0, 500 * KB)
    with daskps.proxy_graph(threshold=MIB), messages_sent(client) as messages:
        futures = [client.submit(total, value, i, pure=False) for i in range(20)]
        expected = [value.sum() + i for i in range(20)]
        assert client.gather(futures) == pytest.approx(expected)
        assert daskps.usage(client).objects == 1
    assert graph_nbytes(messages) < 2 * value.nbytes
    assert Literals.of(client).nbytes >= value.nbytes
    del futures


def test_a_value_whose_results_were_let_go_stays_in_its_graph(client):
    value = array(1, 500 * KB)
    with daskps.proxy_graph(threshold=MIB):
        for i in range(5):
            future = client.submit(total, value, i, pure=False)
            assert future.result() == pytest.approx(value.sum() + i)
            key = future.key
            del future
            eventually(lambda key=key: key not in client.futures)
        assert daskps.usage(client).objects == 0


def test_different_values_up_to_the_budget(client, budget):
    with daskps.proxy_graph(threshold=MIB), messages_sent(client) as messages:
        futures = [
            client.submit(total, array(i, 100 * KB), pure=False) for i in range(40)
        ]
        wait(futures)
        assert daskps.usage(client).objects >= 25
        assert client.gather(futures[::13]) == pytest.approx(
            [array(i, 100 * KB).sum() for i in range(40)[::13]]
        )
    assert graph_nbytes(messages) < budget + 40 * 5 * KB
    del futures


def test_small_ones_up_to_twice_the_budget(client, budget):
    with daskps.proxy_graph(threshold=MIB), messages_sent(client) as messages:
        futures = [
            client.submit(total, array(i, 20 * KB), pure=False) for i in range(200)
        ]
        expected = [array(i, 20 * KB).sum() for i in range(200)]
        assert client.gather(futures) == pytest.approx(expected)
    assert graph_nbytes(messages) < 2 * budget + 200 * 5 * KB
    del futures


def test_what_is_let_go_counts_no_longer(budget):
    client = Keys("a", "b")
    there = Literals(client)
    # Kept: another value could get the id of one that is gone, and be taken for it.
    weights = {key: one(array(0, 600 * KB)) for key in ("a", "b")}
    for key, weight in weights.items():
        there.sent([key], weight, 600 * KB)
    assert there.nbytes == 1200 * KB
    assert there.pack_from(one(array(1, 100 * KB)), 1 << 20) == 64 << 10
    del client.futures["a"]
    assert there.nbytes == 600 * KB
    assert there.pack_from(one(array(1, 100 * KB)), 1 << 20) is None
    client.futures.clear()
    assert there.nbytes == 0
    assert not there._by_value


def test_values_are_not_kept():
    value = array(0, 100 * KB)
    alive = weakref.ref(value)
    there = Literals(Keys("a"))
    there.sent(["a"], one(value), value.nbytes)
    del value
    assert alive() is None


def test_many_graphs_are_not_looked_at_each_time(budget, monkeypatch):
    monkeypatch.setattr(literals, "LOOK_AGAIN_SECONDS", 1000.0)
    there = Literals(Keys(*range(100_000)))
    weight = one(array(0, 10 * KB))
    looks = []
    is_held = Literals._is_held
    monkeypatch.setattr(
        Literals, "_is_held", lambda self, g: looks.append(g) or is_held(self, g)
    )
    for key in range(20_000):
        there.pack_from(weight, 1 << 20)
        there.sent([key], weight, weight.nbytes)
    # Looking at all of them each time would be two hundred millions.
    assert len(looks) < 20_000
    assert there.pack_from(weight, 1 << 20) is not None


def test_the_budget_of_a_client_that_is_not_in_a_session(client):
    before = Literals.of(client).nbytes
    future = client.submit(total, array(0, 500 * KB), pure=False)
    assert future.result()
    assert Literals.of(client).nbytes <= before < BUDGET_NBYTES
