"""A cluster on several hosts, each with a network, a memory and a name of its own."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from processes import HERE, PATIENCE

from benchmarks.hosts import Network, NetworkCluster, RefusedError, wait_until_gone

pytestmark = pytest.mark.slow
MIB = 1 << 20

# Nothing is configured, and the cluster is older than the session.
PROGRAM = """
import json, sys
import dask, dask.array as da, numpy as np
from distributed import Client
from functions_for_network import double, first

client = Client(sys.argv[1])
client.wait_for_workers(int(sys.argv[2]))
import daskps

model = np.random.default_rng(0).random(2**21)
with daskps.proxy_graph() as session:
    total = da.from_array(model, chunks=2**19).sum().compute()
    firsts = dask.compute(*[dask.delayed(first)(model, i) for i in range(16)])
    doubled = client.submit(double, model).result()
    shown = repr(session)
correct = (
    abs(total - model.sum()) < 1e-6
    and list(firsts) == list(model[:16])
    and (doubled == 2 * model).all()
)
print(json.dumps({"correct": bool(correct), "session": shown}))
"""


@pytest.fixture
def network():
    try:
        network = Network("client", "scheduler", "worker1", "worker2")
    except RefusedError as e:
        pytest.skip(f"several hosts on one machine: {e}")
    with network:
        yield network


def test_peer_to_peer_without_any_configuration(network, tmp_path):
    cluster = NetworkCluster(network, 2, str(tmp_path / "log"), HERE)
    before = {name: host.traffic() for name, host in network.hosts.items()}
    process = cluster.python(
        network.hosts["client"],
        *("-c", PROGRAM, cluster.address, str(cluster.n_workers)),
        stdout=subprocess.PIPE,
    )
    output, _ = process.communicate(timeout=PATIENCE)
    log = (tmp_path / "log").read_text()
    assert process.returncode == 0, log
    said = json.loads(output)
    assert said["correct"]
    assert "peer://" in said["session"]
    assert "does not see /dev/shm of client" in said["session"]

    traffic = {
        name: [after - b for after, b in zip(host.traffic(), before[name], strict=True)]
        for name, host in network.hosts.items()
    }
    # Plain Dask: 32 MiB for the sum, 17 models of 16 MiB, and a result.
    assert sum(traffic["scheduler"]) < 2 * MIB
    # The model goes once to each host, although there are two workers on each. So does each
    # of its blocks, and the result comes back.
    assert traffic["client"][1] < (2 * 16 + 16 + 4) * MIB
    assert traffic["client"][0] < (16 + 4) * MIB

    # The client's host is clean, though its processes have ended by themselves.
    client = network.hosts["client"]
    assert not wait_until_gone(client.processes())
    assert os.listdir(f"/proc/{client.pid}/root/dev/shm") == []


LATE = """
import sys, time
import numpy as np
from distributed import Client
import daskps

client = Client(sys.argv[1])
client.wait_for_workers(1)
with daskps.proxy_graph() as session:
    print(session, flush=True)
    print(client.submit(np.sum, np.zeros(2**20)).result(), flush=True)
    input()
    client.wait_for_workers(2)
    while "peer://" not in repr(session):
        time.sleep(0.1)
    model = np.ones(2**20)
    here, there = [
        client.submit(np.sum, model, workers=address, pure=False)
        for address in sorted(client.scheduler_info()["workers"])
    ]
    anywhere = client.map(np.sum, [model + i for i in range(20)])
    assert client.gather(anywhere) == [(model + i).sum() for i in range(20)]
    print(here.result(), flush=True)
    print(there.result(), flush=True)
    print(session, daskps.usage(client).objects, flush=True)
"""


def test_a_worker_of_another_host_after_shared_memory_was_chosen(network, tmp_path):
    cluster = NetworkCluster(network, 0, str(tmp_path / "log"), HERE)
    cluster.add_worker(cluster.scheduler)
    process = cluster.python(
        cluster.scheduler,
        *("-c", LATE, cluster.address),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert "shm://" in process.stdout.readline()
    assert float(process.stdout.readline()) == 0
    cluster.add_worker(network.hosts["worker1"])
    output, _ = process.communicate("\n", timeout=PATIENCE)
    assert process.returncode == 0, (tmp_path / "log").read_text()
    here, there, shown = output.splitlines()
    assert float(here) == float(there) == 2**20
    # The values of the session so far were given up for that.
    assert "does not see /dev/shm" in shown
    # The model is the first of the twenty.
    assert shown.endswith(" 20")
    assert "No store was named" not in (tmp_path / "log").read_text()
