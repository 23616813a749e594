"""What a process counts of what it does with a store, and says of it."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from distributed.metrics import context_meter

from daskps.objects.catalog import Catalog
from daskps.stores import opened
from daskps.stores.opening import make
from daskps.stores.reports import report
from daskps.stores.requests import request_for
from daskps.stores.traffic import Counts, Traffic, total


class Keeper:
    """Keeps nothing."""

    def stored(self, objects):
        pass

    def hold(self, objects):
        pass

    def release(self, objects):
        pass


@pytest.fixture
def store():
    store = make(request_for("shm://"))
    opened.add(store)
    yield store
    opened.close(store.name)


def test_counts_are_added_and_subtracted_by_name():
    one, two = Counts(puts=1, put_seconds=0.5), Counts(puts=2, evictions=3)
    assert one.plus(two) == Counts(puts=3, put_seconds=0.5, evictions=3)
    assert one.plus(two).minus(two) == one
    assert total([one, two, two]).puts == 5
    assert total([]) == Counts()


def test_a_report_has_what_is_new():
    traffic = Traffic()
    assert traffic.take() is None
    traffic.was_put(10, 0.5)
    assert traffic.take() == Counts(puts=1, put_bytes=10, put_seconds=0.5)
    assert traffic.take() is None
    traffic.was_evicted()
    assert traffic.take() == Counts(evictions=1)
    assert traffic.counts.puts == 1


def test_counting_in_many_threads_forgets_nothing():
    traffic = Traffic()

    def count():
        for _ in range(20_000):
            traffic.was_read(2, 0.25)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert traffic.counts == Counts(
        reads=160_000, read_bytes=320_000, read_seconds=40_000.0
    )


def test_what_is_put_found_read_and_evicted_is_counted(store):
    catalog = Catalog(store, Keeper())
    data = np.arange(1 << 17).data.cast("B")
    stored = catalog.put([data])
    assert catalog.put([data]) is stored
    before = store.traffic.counts  # to compare content, the catalog may read
    assert bytes(opened.read(store.name, stored.id.key)) == bytes(data)
    opened.evict(store.name, stored.id.key)
    done = store.traffic.counts
    assert (done.puts, done.put_bytes) == (1, data.nbytes)
    assert (done.found, done.found_bytes) == (1, data.nbytes)
    new = done.minus(before)
    assert (new.reads, new.read_bytes, new.evictions) == (1, data.nbytes, 1)
    assert done.put_seconds > 0
    assert new.read_seconds > 0


def test_a_message_with_references_keeps_bytes_off_the_scheduler(store):
    catalog = Catalog(store, Keeper())
    stored = catalog.put([b"x" * 1000])
    catalog.hold([stored, stored])
    assert store.traffic.counts.off_scheduler == 1000
    catalog.hold([stored])
    assert store.traffic.counts.off_scheduler == 2000


def test_a_report_says_which_store_it_is(store):
    assert report(store.name) is None
    store.traffic.was_evicted()
    found = report(store.name)
    assert found["store"] == store.name
    assert Counts(*found["counts"]) == Counts(evictions=1)
    assert report(store.name) is None
    assert report("another") is None


def test_dask_is_told_of_reads_puts_and_waits():
    told = []
    with context_meter.add_callback(lambda *metric: told.append(metric)):
        traffic = Traffic()
        traffic.was_put(10, 0.5)
        traffic.was_read(20, 0.25)
        traffic.has_waited(1.5)
    assert told == [
        ("daskps-put", 0.5, "seconds"),
        ("daskps-put", 10, "bytes"),
        ("daskps-put", 1, "count"),
        ("daskps-read", 0.25, "seconds"),
        ("daskps-read", 20, "bytes"),
        ("daskps-read", 1, "count"),
        ("daskps-wait", 1.5, "seconds"),
    ]


def test_a_closed_event_loop_costs_no_object():
    def closed(*metric):
        raise RuntimeError("Event loop is closed")

    traffic = Traffic()
    with context_meter.add_callback(closed):
        traffic.was_put(10, 0.5)
    assert traffic.counts.puts == 1
