"""What matters is among the scheduler's events, and nothing else is."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from flaky_store import FlakyConnector
from processes import ProcessCluster, eventually

import daskps
from daskps.messages import EVENTS

X = np.arange(1 << 17, dtype="f8")  # 1 MiB


@pytest.fixture(scope="module")
def own():
    """A cluster whose events are of this module alone."""
    with ProcessCluster(workers=1) as cluster, cluster.client() as client:
        yield cluster, client


def events(client, action):
    return [e for _, e in client.get_events(EVENTS) if e["action"] == action]


def test_a_store_that_is_opened_is_one_event(own):
    _, client = own
    for _ in range(2):
        with daskps.proxy_graph("shm://"):
            assert client.submit(np.sum, X).result() == X.sum()
    (event,) = events(client, "store-opened")
    assert event["url"] == "shm://"
    assert event["store"]


def test_what_a_client_leaves_is_one_event(own):
    cluster, client = own
    code = (
        "import daskps, numpy as np, os; from distributed import Client\n"
        f"with Client('{cluster.address}') as client:\n"
        "    daskps.proxy_graph('shm://').__enter__()\n"
        "    client.submit(np.sum, np.ones(1 << 18)).result()\n"
        "    os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
    assert eventually(lambda: events(client, "client-gone"))
    (event,) = events(client, "client-gone")
    assert event["evicted"] == 1
    assert event["client"] != client.id


def test_a_full_store_is_said_once_for_many_graphs(own, tmp_path):
    _, client = own
    (tmp_path / "faults").write_text('{"put": "raise"}')
    with daskps.proxy_graph(FlakyConnector(str(tmp_path))):
        for i in range(3):
            with pytest.warns(UserWarning, match="no route to the store"):
                assert client.submit(np.sum, X + i).result() == (X + i).sum()
    assert eventually(lambda: events(client, "inline"))
    (event,) = events(client, "inline")
    assert "no route to the store" in event["why"]
    assert event["client"] == client.id
