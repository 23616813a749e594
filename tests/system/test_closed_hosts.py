"""Clients that the cluster cannot connect to: in network namespaces, with packets filtered.

See ``test_reach_hosts.py`` for hosts of a cluster that cannot connect to each other.
"""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from deployments import PATIENCE_OF_PROGRAMS, need, run, said
from gateway import PORT, gateway
from processes import HERE
from test_deployments import GATEWAY, script

from benchmarks.hosts import Network, NetworkCluster, RefusedError, wait_until_gone

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(3 * PATIENCE_OF_PROGRAMS)]

MIB = 1 << 20
# Opens new connections, for nft.
NEW = "tcp flags & (syn | ack) == syn"
# On the other side of address translation.
OUTSIDE = "192.168.77"

IN_GRAPHS = "values are sent inside graphs"
RESULTS = "results come as in plain Dask"
TASKS = "what tasks submit is sent inside graphs"


@pytest.fixture
def network():
    names = ("client", "scheduler", "worker1", "worker2", "router")
    try:
        with Network(*names, rate=None) as network:
            network.hosts["client"].filter("input accept")
            yield network
    except RefusedError as e:
        pytest.skip(f"several hosts on one machine: {e}")


def takes_no_connections(network):
    """As a laptop, or a notebook's pod."""
    network.hosts["client"].filter(f"input iifname eth0 {NEW} drop")
    return f"tcp://{network.hosts['scheduler'].address}:8786"


def behind_translation(network):
    """Its address means nothing to the cluster, which sees the router's."""
    route(network)
    translate(network, f"ip saddr {OUTSIDE}.0/24 masquerade")
    network.hosts["client"].run(*f"ip route add default via {OUTSIDE}.1".split())
    return f"tcp://{network.hosts['scheduler'].address}:8786"


def with_one_forwarded_port(network):
    """It reaches the scheduler by the router's address, and nothing else."""
    route(network)
    scheduler = network.hosts["scheduler"].address
    translate(
        network,
        f"ip daddr {scheduler} masquerade",
        f"ip daddr {OUTSIDE}.1 tcp dport 8000 dnat to {scheduler}:8786",
    )
    return f"tcp://{OUTSIDE}.1:8000"


def route(network):
    """Move the client's host to another network, which the router joins to the cluster's."""
    client, router = network.hosts["client"], network.hosts["router"]
    client.run(*["ip", "address", "flush", "dev", "eth0"])
    client.run(*f"ip address add {OUTSIDE}.2/24 dev eth0".split())
    router.run(*f"ip address add {OUTSIDE}.1/24 dev eth0".split())
    settings = "/proc/sys/net/ipv4"
    for name in "ip_forward", "conf/all/send_redirects", "conf/eth0/send_redirects":
        value = int(name == "ip_forward")
        router.run("sh", "-c", f"echo {value} > {settings}/{name}")


def translate(network, source, destination="accept"):
    router = network.hosts["router"]
    rules = f"""
        table ip nat {{
            chain before {{ type nat hook prerouting priority -100; {destination}; }}
            chain after {{ type nat hook postrouting priority 100; {source}; }}
        }}
    """
    if shutil.which("nft") is None:
        raise RefusedError("not installed: nft")
    router.run("nft", rules)


@pytest.mark.parametrize(
    ("arrange", "limits"),
    [
        (takes_no_connections, []),
        (behind_translation, []),
        (with_one_forwarded_port, [RESULTS]),
    ],
)
def test_a_closed_client(network, tmp_path, arrange, limits):
    address = arrange(network)
    log = tmp_path / "log"
    cluster = NetworkCluster(network, 1, str(log), HERE)
    process = cluster.python(
        *(network.hosts["client"], f"{HERE}/user_program.py", address, "2"),
        stdout=subprocess.PIPE,
        text=True,
    )
    output, _ = process.communicate(timeout=PATIENCE_OF_PROGRAMS)
    assert process.returncode == 0, log.read_text()
    check(said(output), "peer://", limits)
    check_nothing_is_left(network.hosts["client"])


def test_a_gateway_that_is_all_a_client_reaches(network, tmp_path):
    """As from a notebook in a pod of its own, with JupyterHub's network policy."""
    need("dask_gateway", "dask_gateway_server")
    client, there = network.hosts["client"], network.hosts["scheduler"]
    client.filter(
        f"output ip daddr {there.address} tcp dport {PORT} accept",
        f"output oifname eth0 {NEW} drop",
        f"input iifname eth0 {NEW} drop",
    )
    with gateway(tmp_path, there, memory="/dev/shm") as address:
        found = run(tmp_path, script(GATEWAY), address, "root", host=client)
    check(found, "peer://", [RESULTS])
    check_nothing_is_left(client)
    check_nothing_is_left(there)


def check(found, store, limits):
    """The answers are plain Dask's, one warning says each thing that goes as there."""
    assert found["wrong"] == []
    assert f"chosen by daskps: {store}" in found["session"]
    for what in IN_GRAPHS, RESULTS, TASKS:
        assert (what in found["session"]) == (what in limits)
    warnings = [line for line in found["warnings"] if "No store was named" in line]
    assert len(warnings) == len(limits) == len(found["warnings"])
    assert found["objects"] == 0
    assert found["ours"]["received"] < found["plain"]["received"] + MIB
    # Those who cannot connect are not waited for again and again.
    assert found["ours"]["seconds"] < 3 * found["plain"]["seconds"] + 20


def check_nothing_is_left(host):
    assert not wait_until_gone(host.processes())
    memory = f"/proc/{host.pid}/root/dev/shm"
    assert not [name for name in os.listdir(memory) if name.startswith("daskps")]
