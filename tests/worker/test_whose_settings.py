"""Workers go by the settings of the client that opened the store last."""

from __future__ import annotations

import numpy as np
from processes import ProcessCluster, eventually
from relayed import Received

import daskps

NBYTES = 2 << 20


def data():
    return np.ones(NBYTES, "u1")


def received_nbytes(client, **where):
    """How much of a result comes through the scheduler."""
    with Received(client) as received:
        assert client.submit(data, pure=False, **where).result().nbytes == NBYTES
    return received.nbytes


def test_whose_threshold_results_have():
    options = {"set_as_default": False, "store": "shm://"}
    with (
        ProcessCluster(1) as cluster,
        daskps.Client(cluster.address, threshold="5 MiB", **options) as first,
        daskps.Client(cluster.address, threshold="1 MiB", **options) as last,
    ):
        for client in first, last:
            assert received_nbytes(client) < NBYTES / 20
        cluster.add_worker()  # the scheduler gives it the plugin of the first one
        last.wait_for_workers(2)
        assert eventually(lambda: received_nbytes(last, workers=["w1"]) < NBYTES / 20)
