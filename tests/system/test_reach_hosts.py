"""Hosts that cannot connect to each other: the answers are plain Dask's, and come in time.

Nobody has named a store, or ``peer://`` was.
"""

from __future__ import annotations

import contextlib
import json
import subprocess

import pytest
from processes import HERE, eventually

from benchmarks.certificates import tls_environment
from benchmarks.hosts import WORKER_PORTS, Network, NetworkCluster, RefusedError
from benchmarks.network import CLIENTS, NEW

pytestmark = pytest.mark.slow

NAMED_OR_NOT = pytest.mark.parametrize("store", [None, "peer://"])
HOW = pytest.mark.parametrize("how", ["drop", "reject with tcp reset"])

PROGRAM = """
import contextlib, io, json, logging, sys, time
import dask, dask.array as da, numpy as np
from distributed import Client
from functions_for_network import double, first, resubmit
import daskps

address, n_workers, store = sys.argv[1], int(sys.argv[2]), sys.argv[3] or None
log = logging.StreamHandler(io.StringIO())
logging.getLogger("daskps").addHandler(log)
client = Client(address)
client.wait_for_workers(n_workers)
model = np.random.default_rng(0).random(2**20)

def program(model):
    return [
        da.from_array(model, chunks=2**18).sum().compute(),
        *dask.compute(*[dask.delayed(first)(model, i) for i in range(4)]),
        client.submit(double, model).result().sum(),
        client.gather(client.map(double, [model, model + 1]))[1].sum(),
        client.submit(resubmit, model).result().sum(),
        client.submit(np.sum, client.scatter(model)).result(),
    ]

def timed(model):
    begin = time.monotonic()
    return program(model), time.monotonic() - begin

plain, plain_seconds = timed(model)
begin = time.monotonic()
with daskps.proxy_graph(store) as session:
    opening = time.monotonic() - begin
    # Other data, and other keys.
    other, seconds = timed(2 * model)
    shown = repr(session)
usage = daskps.usage(client).objects
print(json.dumps({
    "plain": plain_seconds, "seconds": seconds, "opening": opening,
    "differences": float(np.abs(np.array(other[:1] + other[5:6] + other[8:])
                         - 2 * np.array(plain[:1] + plain[5:6] + plain[8:])).max()),
    "session": shown, "log": log.stream.getvalue(),
}), flush=True)
"""


@contextlib.contextmanager
def hosts(**options):
    with contextlib.ExitStack() as stack:
        names = "client", "scheduler", "worker1", "worker2"
        try:
            network = stack.enter_context(Network(*names, rate=None, **options))
            network.hosts["client"].filter("input accept")
        except RefusedError as e:
            # It takes root, and a kernel that makes namespaces.
            pytest.skip(f"several hosts on one machine: {e}")
        yield network


@pytest.fixture
def network():
    with hosts() as network:
        yield network


def run(network, log, address=None, cluster=None, store=None, **options):
    """Run the program on the client's host; what it says."""
    cluster = cluster or NetworkCluster(network, 1, str(log), HERE, **options)
    process = cluster.python(
        network.hosts["client"],
        *("-c", PROGRAM, address or cluster.address),
        *(str(cluster.n_workers), store or ""),
        stdout=subprocess.PIPE,
    )
    output, _ = process.communicate(timeout=250)
    assert process.returncode == 0, log.read_text()
    said = json.loads(output)
    print(said)
    assert said["differences"] < 1e-6
    # Far from the time for which a task tries to read.
    assert said["opening"] + said["seconds"] < said["plain"] + 20
    return said


@pytest.fixture
def tls(tmp_path):
    """Settings of Dask, in the environment, for a cluster that encrypts."""
    return tls_environment(str(tmp_path))


def warnings(said):
    return [
        line for line in said["log"].splitlines() if "The answers are the same" in line
    ]


@HOW
def test_the_client_takes_no_connections(network, tmp_path, how):
    network.hosts["client"].filter(f"input iifname eth0 {NEW} {how}")
    said = run(network, tmp_path / "log")
    # Its host pushes what others need.
    assert not warnings(said)
    assert "inside graphs" not in said["session"]


@pytest.mark.parametrize(
    "client",
    [pytest.param(n, marks=[] if n == "open" else pytest.mark.full) for n in CLIENTS],
)
def test_hosts_with_addresses_of_ipv6(tmp_path, client):
    with hosts(v6=True) as network:
        if CLIENTS[client]:
            network.hosts["client"].filter(*CLIENTS[client])
        said = run(network, tmp_path / "log")
    assert "peer://" in said["session"]
    assert "inside graphs" not in said["session"]


def test_the_client_of_a_cluster_that_encrypts_takes_no_connections(
    network, tmp_path, tls
):
    """Its host pushes, by TLS."""
    network.hosts["client"].filter(f"input iifname eth0 {NEW} drop")
    said = run(network, tmp_path / "log", env=tls)
    assert "peer://" in said["session"]
    assert not warnings(said)


@HOW
def test_workers_take_no_connections_but_those_of_dask(network, tmp_path, how):
    for name in "worker1", "worker2":
        network.hosts[name].filter(
            f"input iifname eth0 tcp dport {WORKER_PORTS} accept",
            f"input iifname eth0 {NEW} {how}",
        )
    said = run(network, tmp_path / "log")
    # Neither can connect to the other.
    [tasks] = warnings(said)
    assert "what tasks submit is sent inside graphs" in tasks
    # The client's values are read from there, and results are pushed to it.
    assert "values are sent inside graphs" not in said["session"]
    assert "results come as in plain Dask" not in said["session"]


def test_one_worker_that_takes_no_connections(network, tmp_path):
    """As behind address translation, with a forwarded port for Dask."""
    network.hosts["worker2"].filter(
        f"input iifname eth0 tcp dport {WORKER_PORTS} accept",
        f"input iifname eth0 {NEW} drop",
    )
    said = run(network, tmp_path / "log")
    assert not warnings(said)


@NAMED_OR_NOT
def test_a_registry_that_cannot_be_reached(network, tmp_path, store):
    """Of the scheduler's host, only Dask's own port can."""
    network.hosts["scheduler"].filter(
        "input iifname eth0 tcp dport 8786 accept", f"input iifname eth0 {NEW} drop"
    )
    said = run(network, tmp_path / "log", store=store)
    assert "of the scheduler's host" in said["session"]
    assert len(warnings(said)) == 3


RELAY = """
import socket, sys, threading
listening = socket.create_server((sys.argv[1], 8000))

def copy(source, sink):
    while data := source.recv(1 << 16):
        sink.sendall(data)
    sink.shutdown(socket.SHUT_WR)

while True:
    here, _ = listening.accept()
    there = socket.create_connection((sys.argv[2], 8786))
    for pair in (here, there), (there, here):
        threading.Thread(target=copy, args=pair, daemon=True).start()
"""


@NAMED_OR_NOT
def test_a_forwarded_port_of_the_scheduler(network, tmp_path, store):
    """The client knows the scheduler by another address, and reaches nothing else."""
    cluster = NetworkCluster(network, 1, str(tmp_path / "log"), HERE)
    gateway = network.hosts["worker2"].address
    cluster.python(
        *(network.hosts["worker2"], "-c", RELAY, gateway, cluster.scheduler.address)
    )
    network.hosts["client"].filter(
        f"output ip daddr {gateway} tcp dport 8000 accept",
        f"output oifname eth0 {NEW} drop",
    )
    address = f"tcp://{gateway}:8000"
    said = run(network, tmp_path / "log", address, cluster, store)
    assert "of the scheduler's host" in said["session"]


LATE = """
import io, json, logging, sys, time
import numpy as np
from distributed import Client
from functions_for_network import double
import daskps

log = logging.StreamHandler(io.StringIO())
logging.getLogger("daskps").addHandler(log)
client = Client(sys.argv[1])
client.wait_for_workers(1)
model = np.random.default_rng(0).random(2**20)
with daskps.proxy_graph() as session:
    stored = client.submit(np.sum, model)
    assert stored.result() == model.sum()
    print(session, flush=True)
    input()
    client.wait_for_workers(2)
    while "inside graphs" not in repr(session):
        time.sleep(0.02)
    begin = time.monotonic()
    futures = client.map(np.sum, [model + i for i in range(8)], pure=False)
    correct = np.allclose(client.gather(futures), [(model + i).sum() for i in range(8)])
    late = sorted(client.ncores())[1]
    there = client.submit(np.sum, model, workers=late, pure=False).result()
    seconds = time.monotonic() - begin
    print(json.dumps({
        "correct": bool(correct and np.isclose(there, model.sum())), "seconds": seconds,
        "session": repr(session), "log": log.stream.getvalue(),
    }), flush=True)
"""


def test_a_late_worker_whose_host_cannot_connect(network, tmp_path):
    late = network.hosts["worker2"]
    network.hosts["client"].filter(f"input ip saddr {late.address} {NEW} drop")
    # Nor takes it any connections itself.
    late.filter(
        f"input iifname eth0 tcp dport {WORKER_PORTS} accept",
        f"input iifname eth0 {NEW} drop",
    )
    log = tmp_path / "log"
    cluster = NetworkCluster(network, 0, str(log), HERE)
    cluster.add_worker(network.hosts["worker1"])
    process = cluster.python(
        *(network.hosts["client"], "-c", LATE, cluster.address),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    first = process.stdout.readline()
    assert "peer://" in first, log.read_text()
    assert "inside graphs" not in first
    cluster.add_worker(late)
    # It has found out by itself.
    assert eventually(lambda: "cannot connect to 10.77.0.1" in log.read_text(), 60)
    output, _ = process.communicate("\n", timeout=100)
    assert process.returncode == 0, log.read_text()
    said = json.loads(output)
    assert said["correct"]
    assert said["seconds"] < 20
    [warning] = warnings(said)
    assert f"Worker tcp://{late.address}" in warning
    assert "values are sent inside graphs" in said["session"]
