"""Which hosts try to connect to which, and what follows from that."""

from __future__ import annotations

import asyncio
import socket
import time
from types import SimpleNamespace

import pytest
from peers import Peers

from daskps.client.reach import Reach
from daskps.stores import reach
from daskps.stores.reach import HOSTS_AT_MOST, CutOffError, check, failures, neighbours
from daskps.worker.reach import take_part, try_from_scheduler, try_hosts

CLIENT, A, B, REGISTRY = (
    ("192.0.2.9", 1),
    ("192.0.2.1", 1),
    ("192.0.2.2", 1),
    ("r", 1),
)


class TestNeighbours:
    def test_few_hosts_try_all(self):
        assert neighbours(A, [B, A, CLIENT, B]) == [B, CLIENT]

    def test_of_many_each_tries_and_is_tried_by_some(self):
        hosts = [("h", port) for port in range(200)]
        tried = [other for own in hosts for other in neighbours(own, hosts)]
        assert {tried.count(host) for host in hosts} == {HOSTS_AT_MOST}
        assert all(own not in neighbours(own, hosts) for own in hosts)


@pytest.fixture
def peers():
    peers = Peers()
    yield peers
    peers.close()


class TestConnecting:
    def test_a_server_and_its_owner(self, peers):
        here, there = peers.connect(0), peers.connect(1)
        addresses = [there.serves_at(), *there.registries()]
        assert failures(here, addresses) == {}
        check(here, [here.serves_at(), there.serves_at()])

    def test_nobody_is_there(self, peers):
        here = peers.connect(0)
        with socket.create_server(("127.0.0.2", 0)) as s:
            gone = s.getsockname()[:2]
        [why] = failures(here, [gone]).values()
        assert "refused" in why
        with pytest.raises(CutOffError, match=f"127.0.0.2, port {gone[1]}: .*refused"):
            check(here, [gone])

    def test_a_server_of_another_cluster(self, peers):
        others = Peers()
        try:
            theirs = others.connect(1).serves_at()
            assert theirs in failures(peers.connect(0), [theirs])
        finally:
            others.close()

    def test_those_that_are_silent_cost_time_once(self, monkeypatch):
        monkeypatch.setattr(reach, "CONNECT_SECONDS", 0.5)
        monkeypatch.setattr(reach, "CONNECT_SECONDS_AT_LEAST", 0.01)

        def silent(address, timeout):
            time.sleep(timeout)
            raise TimeoutError("timed out")

        hosts = [("h", port) for port in range(5 * HOSTS_AT_MOST)]
        begin = time.monotonic()
        found = failures(SimpleNamespace(try_connection=silent), hosts)
        assert set(found) == set(hosts)
        assert time.monotonic() - begin < 2.5  # one after the other: 160 s


class Cluster:
    """A client of workers on hosts A and B, between which some connections fail.

    `fail` has pairs of addresses: who cannot connect to whom.
    """

    id = "client-1"

    def __init__(self, *fail, workers=(A, B), refusal=None):
        self.fail = set(fail)
        self.workers = {f"tcp://{host}": (host, port) for host, port in workers}
        self.refusal = refusal
        self.told = None
        self.scheduler = SimpleNamespace(ncores=self._ncores, daskps_serve=self._serve)
        self.connector = SimpleNamespace(
            serves_at=lambda: CLIENT,
            registries=lambda: [REGISTRY],
            try_connection=lambda address, timeout: self._try(CLIENT, address),
            serving=lambda: self.connector,
        )

    def _try(self, own, address):
        if (own, address) in self.fail:
            raise TimeoutError("timed out")

    async def _ncores(self, workers):
        return self.workers

    async def _serve(self, **told):
        self.told = told

    async def run(self, function, store, *args, workers=None, on_error="raise"):
        answers = {}
        for worker in workers or self.workers:
            own = self.workers[worker]
            if function is take_part:
                answers[worker] = {
                    "refusal": self.refusal,
                    "host": own[0],
                    "address": list(own),
                }
            elif function is try_hosts:
                targets = [REGISTRY, *map(tuple, args[0])]
                answers[worker] = [
                    [list(t), "timed out"] for t in targets if (own, t) in self.fail
                ]
        return answers

    async def run_on_scheduler(self, function, store, address):
        assert function is try_from_scheduler
        failed = ("scheduler", address) in self.fail
        return [[list(address), "timed out"]] if failed else []


def examined(cluster, workers=None, found=None):
    found = found or Reach(SimpleNamespace(name="s", connector=cluster.connector))

    async def examine():
        fit = await found.examine(cluster, workers)
        await found.apply(cluster)
        return fit

    assert asyncio.run(examine()) == (cluster.refusal is None)
    return found


def off(found):
    """What does not travel by the store."""
    return [
        name
        for name in ("arguments", "results", "tasks")
        if getattr(found, f"against_{name}") is not None
    ]


@pytest.mark.parametrize(
    ("fail", "expected"),
    [
        ([], []),
        ([(A, CLIENT)], ["arguments"]),
        ([(CLIENT, B)], ["results"]),
        ([(A, B)], ["tasks"]),
        ([(CLIENT, REGISTRY)], ["arguments"]),
        ([(B, REGISTRY)], ["results", "tasks"]),
        ([(A, CLIENT), (CLIENT, A)], ["arguments", "results"]),
    ],
)
def test_what_travels_by_reference(fail, expected):
    cluster = Cluster(*fail)
    assert off(examined(cluster)) == expected
    serves = None if "arguments" in expected else CLIENT
    assert cluster.told["address"] == serves
    assert cluster.told["tasks"] is ("tasks" not in expected)


@pytest.mark.parametrize("fail", [[], [("scheduler", CLIENT)]])
def test_without_workers_the_scheduler_tries(fail):
    found = examined(Cluster(*fail, workers=[]))
    assert off(found) == ["arguments"] * len(fail)


@pytest.mark.parametrize(
    ("fail", "expected"),
    [
        ([], []),
        ([(B, CLIENT)], ["arguments"]),
        ([(CLIENT, B)], ["results"]),
        ([(A, B)], ["tasks"]),
        ([(B, A)], ["tasks"]),
    ],
)
def test_a_host_that_comes_later_is_tried(fail, expected):
    cluster = Cluster(*fail, workers=[A])
    found = examined(cluster)
    assert off(found) == []
    cluster.workers[f"tcp://{B[0]}"] = B
    assert off(examined(cluster, [f"tcp://{B[0]}"], found)) == expected


def test_a_host_that_is_gone_is_not_tried():
    cluster = Cluster((B, A))
    cluster.workers = {f"tcp://{A[0]}": A}
    found = examined(cluster)
    cluster.workers = {f"tcp://{B[0]}": B}
    assert off(examined(cluster, [f"tcp://{B[0]}"], found)) == []


def test_a_worker_that_refuses_the_store():
    found = examined(Cluster(refusal="Worker x cannot use it"))
    assert found.against_arguments == "Worker x cannot use it"
