"""Clusters whose client and workers share no memory, with ``peer://``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile

import dask
import numpy as np
import pytest
from certificates import Authority, environment
from functions_for_network import double
from processes import (
    PATH,
    PATIENCE,
    PLACES,
    VARIABLES,
    ProcessCluster,
    eventually,
    released,
)

import daskps

MIB = 1 << 20

PUBLISH = """
import sys, time
import numpy as np
import daskps
from distributed import Client, wait
from functions_for_network import double

client = Client(sys.argv[1])
with daskps.proxy_graph("peer://"):
    future = client.submit(double, np.arange(2**18))
    wait(future)
    client.publish_dataset(doubled=future)
    print("published", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def elsewhere():
    """The shared memory of the workers' host."""
    place = tempfile.mkdtemp("-host", dir=PLACES[0])
    yield place
    assert eventually(lambda: not os.listdir(place))
    os.rmdir(place)


@pytest.fixture(params=["plain", "tls"])
def tls(request, tmp_path):
    """Environment variables with which Dask's processes use TLS, or none."""
    if request.param == "plain":
        yield {}
        return
    settings = Authority().settings(tmp_path)
    with dask.config.set(settings):
        yield {
            **environment(settings),
            "DASK_DISTRIBUTED__COMM__DEFAULT_SCHEME": "tls",
        }


@pytest.fixture
def cluster(elsewhere, tls):
    worker = {**tls, VARIABLES[0]: elsewhere}
    with ProcessCluster(scheduler=tls, worker=worker) as cluster:
        assert cluster.address.startswith("tls://" if tls else "tcp://")
        yield cluster


def here():
    """The client's part of a store."""
    return [name for name in os.listdir(PLACES[0]) if name.startswith("daskps-peer")]


def test_values_and_results_travel_between_hosts(cluster):
    model = np.random.default_rng(0).random(2 * MIB // 8)
    with cluster.client() as client:
        with daskps.proxy_graph("peer://"):
            futures = [client.submit(double, model, pure=False) for _ in range(4)]
            for future in futures:
                np.testing.assert_array_equal(future.result(), 2 * model)
                np.testing.assert_array_equal(future.result(), 2 * model)
            assert daskps.usage(client).objects == 1
        del futures, future
        assert released(client)
    assert eventually(lambda: not here())


def test_what_a_killed_client_stored_is_there_for_the_next(cluster, tls):
    process = subprocess.Popen(
        [sys.executable, "-c", PUBLISH, cluster.address],
        env={**os.environ, **tls, "PYTHONPATH": os.pathsep.join(PATH)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "published\n"
    process.kill()
    process.communicate()
    with cluster.client() as client:
        future = client.get_dataset("doubled")
        [holder] = client.who_has([future])[future.key]
        ports = client.run(os.getpid)
        os.kill(ports[holder], signal.SIGKILL)
        np.testing.assert_array_equal(
            future.result(timeout=PATIENCE), 2 * np.arange(2**18)
        )
        client.unpublish_dataset("doubled")
        del future
        assert eventually(lambda: not here())
