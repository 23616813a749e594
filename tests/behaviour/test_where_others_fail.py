"""Three programs on which `proxystore_ex.plugins.distributed.Client` fails.

It evicts an argument when its task has finished, and a result when it was read once.
"""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from distributed import wait
from processes import PATIENCE, ProcessCluster

import daskps

X = np.arange(1 << 18, dtype="f8")  # 2 MiB


def give_back(x):
    return x


@pytest.mark.core
def test_a_function_returns_its_argument(client):
    with daskps.proxy_graph():
        np.testing.assert_array_equal(client.submit(give_back, X).result(), X)
        futures = client.map(give_back, [X] * 3, pure=False)
        for result in client.gather(futures):
            np.testing.assert_array_equal(result, X)
        del futures


@pytest.mark.core
def test_a_result_is_read_twice(client):
    with daskps.proxy_graph():
        future = client.submit(np.add, X, 1)
        for _ in range(2):
            np.testing.assert_array_equal(future.result(), X + 1)
        del future


def test_a_worker_is_killed_after_its_task():
    with ProcessCluster(workers=2) as cluster, cluster.client() as client:
        with daskps.proxy_graph():
            future = client.submit(np.add, X, 1)
            wait(future)
            ((address,),) = client.who_has([future]).values()
            (pid,) = client.run(os.getpid, workers=[address]).values()
            os.kill(pid, signal.SIGKILL)
            # Of the argument, nothing is left on the client or on a worker.
            again = client.submit(np.sum, future)
            assert again.result(timeout=PATIENCE) == (X + 1).sum()
            np.testing.assert_array_equal(future.result(timeout=PATIENCE), X + 1)
        del future, again
