"""What the scheduler says of its stores, and whom it asks for that."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from daskps.references.nodes import ObjectId
from daskps.scheduler import overview as overview_module
from daskps.scheduler.board.history import History, sums
from daskps.scheduler.ledger import Ledger
from daskps.scheduler.overview import HOSTS_AT_ONCE, Overview
from daskps.scheduler.traffic import ClusterTraffic
from daskps.stores.holdings import Holdings, together
from daskps.stores.traffic import Counts

MIB = 1 << 20


def counts(**some):
    return list(Counts(**some))


class TestTraffic:
    def test_reports_add_up_by_store_and_host(self):
        traffic = ClusterTraffic()
        traffic.add("s", "one", counts(puts=1, put_bytes=10))
        traffic.add("s", "one", counts(puts=2, put_bytes=5))
        traffic.add("s", "two", counts(reads=1))
        traffic.add("t", "two", counts(reads=2))
        assert traffic.of("s") == Counts(puts=3, put_bytes=15, reads=1)
        assert traffic.of("other") == Counts()
        assert traffic.by_host() == {
            "one": Counts(puts=3, put_bytes=15),
            "two": Counts(reads=3),
        }

    def test_results_are_those_that_there_are(self):
        traffic = ClusterTraffic()
        traffic.has_results("s", "a", [2, 20])
        traffic.has_results("s", "b", [1, 5])
        traffic.has_results("s", "a", [1, 10])
        assert traffic.results("s") == (2, 15)
        traffic.worker_gone("b")
        assert traffic.results("s") == (1, 10)
        traffic.has_results("s", "a", [0, 0])
        assert traffic.results("s") == traffic.results("other") == (0, 0)


def test_what_several_processes_of_a_host_say_counts_once():
    here = Holdings("here", 1, 2, 3, 100, "memory", 4)
    there = Holdings("there", 10, 20, 30, 50, "a disk", 40)
    assert together([here, here, there]) == {
        "copies": 11,
        "warm": 22,
        "warm_at_most": 33,
        "linked": 44,
        "room": 50,
        "limit": "a disk",
    }
    assert together([])["room"] is None


class Scheduler:
    """Workers that say what they hold, and note who is asked."""

    def __init__(self, hosts):
        self.asked = []
        self.workers = {f"tcp://{h}:{w}": _on(h) for h in hosts for w in range(2)}

    def rpc(self, worker):
        async def holdings():
            self.asked.append(worker)
            held = Holdings(worker.partition("//")[2], 5, 7, 9, 11, "memory", 3)
            return {
                "holdings": {"s": tuple(held), "foreign": tuple(held)},
                "results": {"s": [1, 4]},
                "reports": [{"store": "s", "host": "h", "counts": counts(reads=1)}],
            }

        return SimpleNamespace(daskps_holdings=holdings)


def _on(host):
    return SimpleNamespace(host=host)


def overview_of(scheduler):
    return Overview(scheduler, lambda: {"s": "shm://"}, Ledger())


def looked(overview, seconds=-1.0):
    async def look():
        overview.look(seconds)
        await overview._looking

    asyncio.run(look())


class TestOverview:
    def test_one_worker_of_each_host_is_asked(self):
        scheduler = Scheduler(["a", "b"])
        overview = overview_of(scheduler)
        looked(overview)
        assert len(scheduler.asked) == 2
        assert {url.split(":")[1] for url in scheduler.asked} == {"//a", "//b"}
        row = overview.pictures()["s"]
        assert (row["copies"], row["warm"], row["room"]) == (10, 14, 11)
        assert (row["results"], row["reads"]) == (2, 2)
        # Of 8 bytes of results, 6 are more names of files.
        assert row["result_bytes"] == 2

    def test_of_many_hosts_some_are_asked_in_turn(self):
        hosts = [f"h{i:03}" for i in range(2 * HOSTS_AT_ONCE)]
        scheduler = Scheduler(hosts)
        overview = overview_of(scheduler)
        looked(overview)
        assert len(set(scheduler.asked)) == HOSTS_AT_ONCE
        looked(overview)
        assert len(set(scheduler.asked)) == len(scheduler.asked) == len(hosts)

    def test_nobody_is_asked_again_at_once(self):
        scheduler = Scheduler(["a"])
        overview = overview_of(scheduler)

        async def look():
            overview.look(1000)
            await overview._looking
            overview.look(1000)
            await overview._looking

        overview._looked = -1e9
        asyncio.run(look())
        assert len(scheduler.asked) == 1

    def test_a_worker_that_does_not_answer_is_left_out(self, monkeypatch):
        monkeypatch.setattr(overview_module, "HOLDINGS_SECONDS", 0.01)
        scheduler = Scheduler(["a", "b"])

        async def never():
            await asyncio.sleep(1000)

        rpc = scheduler.rpc
        scheduler.rpc = lambda worker: (
            SimpleNamespace(daskps_holdings=never) if "a" in worker else rpc(worker)
        )
        overview = overview_of(scheduler)
        looked(overview)
        assert overview.pictures()["s"]["results"] == 1


@pytest.fixture
def history():
    async def make():
        made = History(overview_of(Scheduler([])))
        made.close()
        return made

    return asyncio.run(make())


class TestHistory:
    def test_what_takes_memory_is_told_apart(self, history):
        ledger = history._overview.ledger
        for name, nbytes in (("a", 3 * MIB), ("b", MIB)):
            ledger.note(ObjectId("s", name), nbytes)
        ledger.need(ObjectId("s", "a"), "task")
        rows = history._overview.pictures()
        found = sums(rows.values())
        assert (found["needed"], found["idle"]) == (3 * MIB, MIB)
        assert sum(found.values()) == 4 * MIB

    def test_rates_are_of_the_last_seconds(self, history):
        before, after = Counts(put_bytes=100), Counts(put_bytes=300, read_bytes=50)
        history._by_host.extend([(10.0, {"h": before}), (12.0, {"h": after})])
        rate = history.rates()["h"]
        assert (rate.puts, rate.reads) == (100.0, 25.0)
        assert rate.counts is after

    def test_a_host_that_is_new_has_done_all_of_it_lately(self, history):
        history._by_host.extend([(10.0, {}), (12.0, {"h": Counts(read_bytes=4)})])
        assert history.rates()["h"].reads == 2.0

    def test_without_samples_there_are_no_rates(self, history):
        assert history.rates() == {}
