"""The scheduler never holds a payload: the peak of its memory says so."""

from __future__ import annotations

import dask
import dask.array as da
import dask.bag as db
import numpy as np
import pytest
from processes import ProcessCluster

import daskps

pytestmark = pytest.mark.core

MB = 10**6
NBYTES = 64 * MB
ALLOWED = 5 * MB


@pytest.fixture(scope="module")
def own_cluster():
    """A scheduler that no other test made large."""
    with ProcessCluster() as cluster, cluster.client() as client:
        with daskps.proxy_graph():
            for program in PROGRAMS:  # what they import stays in memory
                program(client, seed=0, nbytes=4 * MB)
        yield cluster


@pytest.fixture
def client(own_cluster):
    with own_cluster.client() as client:
        yield client


def status(process, name):
    with open(f"/proc/{process.pid}/status") as f:
        (line,) = [line for line in f if line.startswith(name + ":")]
    return int(line.split()[1]) * 1024


def growth(process, run):
    """Bytes by which a process grows while something runs, at its peak."""
    with open(f"/proc/{process.pid}/clear_refs", "w") as f:
        f.write("5")  # the peak is what it is now
    before = status(process, "VmRSS")
    run()
    return status(process, "VmHWM") - before


def sum_of_array(client, seed, nbytes):
    x = np.random.default_rng(seed).integers(0, 9, nbytes // 8)
    blocks = da.from_array(x, chunks=MB // 2)
    assert blocks.sum().compute() == x.sum()


def model_in_submits(client, seed, nbytes):
    model = np.random.default_rng(seed).integers(0, 9, nbytes // 8)
    futures = [client.submit(item, model, i) for i in range(8)]
    assert client.gather(futures) == [model[i] for i in range(8)]


def item(model, i):
    return model[i]


def model_in_map(client, seed, nbytes):
    model = np.random.default_rng(seed).integers(0, 9, nbytes // 8)
    futures = client.map(lambda i, model: model[i], range(8), model=model)
    assert client.gather(futures) == [model[i] for i in range(8)]


def bag_items(client, seed, nbytes):
    random = np.random.default_rng(seed)
    items = [random.bytes(MB) for _ in range(nbytes // MB)]
    bag = db.from_sequence(items, npartitions=8)
    assert bag.map(len).sum().compute() == nbytes


def model_in_delayed(client, seed, nbytes):
    model = np.random.default_rng(seed).integers(0, 9, nbytes // 8)
    tasks = [dask.delayed(item)(model, i) for i in range(8)]
    assert dask.compute(*tasks) == tuple(model[i] for i in range(8))


PROGRAMS = [sum_of_array, model_in_submits, model_in_map, bag_items, model_in_delayed]


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_schedulers_memory_does_not_grow(own_cluster, client, program):
    def run():
        with daskps.proxy_graph():
            program(client, seed=1, nbytes=NBYTES)

    assert growth(own_cluster.scheduler, run) < ALLOWED


def test_the_schedulers_memory_grows_without_daskps(own_cluster, client):
    """Or else what is measured here would be nothing."""

    def run():
        with pytest.warns(UserWarning, match="Sending large graph"):
            sum_of_array(client, seed=2, nbytes=NBYTES)

    assert growth(own_cluster.scheduler, run) > NBYTES // 2
