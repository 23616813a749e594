"""What the table says is what passes through the scheduler, and names what is at fault."""

from __future__ import annotations

import pytest
from large_graphs import GRAPHS
from processes import ProcessCluster, eventually

import daskps
from benchmarks import counters

# A value that is larger than every reference, and smaller than all at fault.
THRESHOLD = "256 KiB"


@pytest.fixture(scope="module")
def counting():
    """A client of a cluster with one worker: no task is stolen, and so sent twice."""
    with ProcessCluster(workers=1) as cluster, cluster.client() as client:
        counters.install(client)
        yield client


def counted(client, work):
    """What was counted while some work was done."""

    def settled():
        before = counters.traffic(client)
        return counters.traffic(client) - before < 5000

    assert eventually(settled)
    before = counters.read(client)
    work()
    assert eventually(settled)
    return counters.read(client) - before


@pytest.mark.slow
@pytest.mark.parametrize("make", GRAPHS, ids=lambda make: make.__name__)
@pytest.mark.filterwarnings("ignore:Sending large graph")
def test_what_is_said_is_what_is_counted(counting, make):
    graph = make()
    found = daskps.explain(*graph.arguments, threshold=THRESHOLD, **graph.keywords)
    for words in graph.fault:
        assert words in repr(found)
    plain = counted(counting, lambda: graph.compute(counting))
    assert found.plain_sends == pytest.approx(plain.traffic, rel=0.1), found
    with daskps.proxy_graph(threshold=THRESHOLD):
        proxied = counted(counting, lambda: graph.compute(counting))
    to_store = sum(value.to_store for value in found)
    assert to_store == pytest.approx(proxied.stored, rel=0.1), found
    # References and tasks are counted by what they take as a rule; little is left of either.
    about = pytest.approx(proxied.traffic, rel=0.25, abs=30_000)
    assert found.daskps_sends == about, found
    assert proxied.traffic < plain.traffic / 5
