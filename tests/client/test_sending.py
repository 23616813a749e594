"""What clients send besides graphs: published data, arguments of runs and of actors."""

from __future__ import annotations

import subprocess
import sys

import dask.array as da
import numpy as np
import pytest
from processes import ROOT, eventually
from relayed import Received

import daskps
from benchmarks.cluster import objects_in
from daskps.exceptions import ObjectMissingError
from daskps.references.nodes import StoredValue

pytestmark = pytest.mark.core

NBYTES = 2 << 20


def data(seed=0):
    return np.random.default_rng(seed).random(NBYTES // 8)


@pytest.fixture
def plain(own_cluster):
    """Another client, without daskps."""
    with own_cluster.client(set_as_default=False) as client:
        yield client


@pytest.fixture
def own(own_cluster, plain):
    with own_cluster.client() as client, daskps.proxy_graph(client=client):
        yield client
    assert eventually(lambda: not objects_in(own_cluster)), objects_in(own_cluster)


def total(x, more=0, dask_worker=None):
    assert x.flags.writeable
    x *= 2
    return float(x.sum()) + np.sum(more), dask_worker is not None


async def total_later(x):
    return float(x.sum())


def fails(x):
    raise ValueError("as it is")


class Adder:
    # Dask looks for attributes of actors in the class.
    seen = None

    def __init__(self):
        self.seen = []

    def add(self, x, by=0):
        self.seen.append(float(x.sum()))
        x += by
        return float(x.sum())

    async def add_later(self, x):
        return float(x.sum())


# Client.run


def test_a_function_that_is_run_everywhere(own):
    x = data()
    expected = (float(x.sum() * 2) + x.sum(), True)
    with Received(own) as received:
        found = own.run(total, x, more=x)
    assert list(found.values()) == [pytest.approx(expected)] * 2
    assert received.nbytes < NBYTES // 10
    assert found.keys() == own.run(int).keys()


def test_coroutine_functions_are_run(own):
    x = data()
    assert set(own.run(total_later, x).values()) == {float(x.sum())}
    assert own.run(total_later, x, wait=False) is None


def test_a_run_on_some_workers_and_on_nannies(own):
    (one, _) = own.run(int)
    assert list(own.run(total_later, data(), workers=[one])) == [one]


def test_errors_of_what_is_run(own, plain):
    with pytest.raises(ValueError, match="as it is") as ours:
        own.run(fails, data())
    with pytest.raises(ValueError, match="as it is") as theirs:
        plain.run(fails, data())
    frames = [
        [
            frame.name
            for frame in caught.traceback
            if "distributed/client" not in str(frame.path)
        ][-1]
        for caught in (ours, theirs)
    ]
    assert frames == ["fails", "fails"]
    assert len(own.run(fails, data(), on_error="return")) == 2


@pytest.mark.parametrize("error", [ObjectMissingError, RuntimeError])
def test_a_run_on_workers_that_cannot_read(own, error):
    x = data()
    own.run(_break_reading, error)
    try:
        assert set(own.run(total_later, x).values()) == {float(x.sum())}
        actor = own.submit(Adder, actor=True).result()
        assert actor.add(x).result() == pytest.approx(x.sum())
        assert actor.seen == [pytest.approx(x.sum())], "it was called once"
        del actor
    finally:
        own.run(_mend_reading)


def _break_reading(error):
    def resolve(self):
        raise error("broken for this test")

    StoredValue.kept = StoredValue.resolve
    StoredValue.resolve = resolve


def _mend_reading():
    StoredValue.resolve = StoredValue.kept
    del StoredValue.kept


# Actors


def test_arguments_of_actors(own):
    x = data()
    actor = own.submit(Adder, actor=True).result()
    with Received(own) as received:
        assert actor.add(x, by=1).result() == pytest.approx(x.sum() + x.size)
        assert actor.add(x=x, by=x).result() == pytest.approx(2 * x.sum())
        assert actor.add_later(x).result() == pytest.approx(x.sum())
    assert received.nbytes < NBYTES // 10
    assert actor.add(np.ones(3), by=np.ones(3)).result() == 6
    del actor


# Published data sets


def test_published_values(own, own_cluster, plain):
    x, lazy = data(), da.from_array(data(1), chunks=1 << 16)
    kept = own.persist(da.ones(1000, chunks=100))
    with Received(own) as received:
        own.publish_dataset(array=x, lazy=lazy)
        own.publish_dataset([kept, x], name="several")
        own.datasets["small"] = 1
        for _ in range(3):
            np.testing.assert_array_equal(own.get_dataset("array"), x)
    assert received.nbytes < NBYTES // 10
    mine = own.get_dataset("array")
    assert mine.flags.writeable
    mine[:] = 0
    np.testing.assert_array_equal(own.get_dataset("array"), x)
    for client in own, plain:
        np.testing.assert_array_equal(client.get_dataset("array"), x)
        with client.as_current():
            assert client.get_dataset("lazy").sum().compute() == pytest.approx(
                lazy.sum()
            )
            ones, again = client.get_dataset("several")
            assert client.compute(ones.sum()).result() == 1000
        np.testing.assert_array_equal(again, x)
        assert client.get_dataset("small") == 1
        assert client.get_dataset("none", default=3) == 3
    for name in own.list_datasets():
        plain.unpublish_dataset(name)


def test_who_publishes_may_go(own_cluster, plain):
    x = data()
    with own_cluster.client() as publisher, daskps.proxy_graph(client=publisher):
        publisher.publish_dataset(x, name="x")
    np.testing.assert_array_equal(plain.get_dataset("x"), x)
    program = (
        "from distributed import Client\n"
        f"with Client({own_cluster.address!r}) as c:\n"
        "    print(c.get_dataset('x').sum())"
    )
    alone = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert float(alone.stdout) == pytest.approx(x.sum()), "a process without daskps"
    plain.unpublish_dataset("x")
    assert eventually(lambda: not objects_in(own_cluster))


def test_a_name_that_is_published_again(own, own_cluster):
    own.publish_dataset(data(), name="x")
    with pytest.raises(KeyError, match="already exists"):
        own.publish_dataset(data(1), name="x")
    assert eventually(lambda: len(objects_in(own_cluster)) == 1)
    own.publish_dataset(data(1), name="x", override=True)
    assert eventually(lambda: len(objects_in(own_cluster)) == 1)
    np.testing.assert_array_equal(own.get_dataset("x"), data(1))
    own.publish_dataset(data(1), name="x", override=True)
    np.testing.assert_array_equal(own.get_dataset("x"), data(1))
    own.unpublish_dataset("x")


def test_what_cannot_be_published(own):
    with pytest.raises(TypeError):
        own.publish_dataset([data(), (i for i in "abc")], name="x")
