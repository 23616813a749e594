"""What the client knows of what it has stored."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from proxystore.connectors.file import FileConnector
from proxystore.store import Store

import daskps
from daskps import client_catalog
from daskps.client_catalog import Catalog
from daskps.stores.content import fingerprint
from daskps.stores.segments import SegmentConnector


class Nobody:
    """A keeper whom nobody asks."""

    def stored(self, objects):
        pass

    hold = release = stored


class Plain(FileConnector):
    """A connector that does not say that reading again costs nothing."""

    def put_frames(self, frames, creator=""):
        return self.put(b"".join(frames))


@pytest.fixture(params=["mapped", "read"])
def catalog(request, tmp_path):
    if request.param == "mapped":
        with daskps.open_store("shm://") as store:
            yield Catalog(store, Nobody())
    else:
        store = Store("plain", Plain(str(tmp_path)), register=False)
        yield Catalog(store, Nobody())
        store.connector.close()


@pytest.fixture
def hashed(monkeypatch):
    """Sizes of what is hashed."""
    sizes = []
    content_hash = client_catalog.content_hash

    def counting(frames):
        sizes.append(sum(memoryview(frame).nbytes for frame in frames))
        return content_hash(frames)

    monkeypatch.setattr(client_catalog, "content_hash", counting)
    return sizes


def content(catalog, stored):
    return bytes(catalog.store.connector.get(stored.id.key))


DATA = np.random.default_rng(0).bytes(100_000)


def alike(i):
    """Data of one fingerprint, each another."""
    data = bytearray(DATA)
    # A byte that the fingerprint does not look at.
    data[1000] = i
    assert fingerprint([data]) == fingerprint([DATA])
    return data


def test_equal_content_is_one_object(catalog):
    first = catalog.put([DATA])
    assert catalog.put([bytearray(DATA)]) is first
    assert catalog.put([DATA[:70_000], DATA[70_000:]]).nbytes == first.nbytes
    assert content(catalog, first) == DATA


def test_content_that_only_looks_the_same_is_another(catalog):
    stored = [catalog.put([alike(i)]) for i in range(4)]
    assert len({one.id for one in stored}) == 4
    for i in (2, 0, 3, 1):
        assert catalog.put([alike(i)]) is stored[i]
        assert content(catalog, stored[i]) == alike(i)


def test_what_is_changed_in_place_is_another_until_it_is_changed_back(catalog):
    array = np.frombuffer(alike(0), np.uint8)
    first = catalog.put([array.data])
    array[1000] = 7
    second = catalog.put([array.data])
    assert content(catalog, first) == alike(0)
    assert content(catalog, second) == alike(7)
    array[1000] = 0
    assert catalog.put([array.data]) is first


def test_nothing_is_known_that_is_not_in_the_store(catalog):
    first = catalog.put([DATA])
    catalog.store.connector.evict(first.id.key)
    second = catalog.put([DATA])
    assert second.id != first.id
    assert content(catalog, second) == DATA
    catalog.store.connector.evict(second.id.key)
    assert content(catalog, catalog.put([DATA])) == DATA


def test_nothing_is_known_that_is_no_longer_held(catalog):
    first = catalog.put([DATA]).id
    second = catalog.put([DATA])
    assert second.id != first
    assert [second.id] == catalog.held()


def test_what_is_new_is_not_hashed_where_it_can_be_read_again(hashed, tmp_path):
    tmp_path.chmod(0o700)
    store = Store("mapped", SegmentConnector([str(tmp_path)]), register=False)
    catalog = Catalog(store, Nobody())
    first, other = catalog.put([DATA]), catalog.put([DATA[1:]])
    assert hashed == []
    assert catalog.put([DATA]) is first
    assert hashed == [len(DATA)] * 2, "what is stored, and what comes"
    assert catalog.put([DATA]) is first
    assert hashed == [len(DATA)] * 3
    assert other.digest is None


def test_what_is_hashed_is_what_was_stored(hashed, tmp_path):
    """Whatever becomes of the array that it came from."""
    tmp_path.chmod(0o700)
    store = Store("mapped", SegmentConnector([str(tmp_path)]), register=False)
    catalog = Catalog(store, Nobody())
    array = np.frombuffer(alike(1), np.uint8)
    first = catalog.put([array.data])
    array[1000] = 2
    assert catalog.put([alike(1)]) is first
    assert catalog.put([array.data]) is not first


@pytest.fixture
def threads_alternate():
    """Threads take turns much more often than every 5 ms."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def test_what_is_held_can_be_asked_while_others_store(tmp_path, threads_alternate):
    tmp_path.chmod(0o700)
    store = Store("held", SegmentConnector([str(tmp_path)]), register=False)
    catalog = Catalog(store, Nobody())
    with ThreadPoolExecutor(1) as pool:
        storing = pool.submit(
            lambda: [catalog.put([i.to_bytes(8, "big")]) for i in range(3000)]
        )
        while not storing.done():
            catalog.held()
        assert len(catalog.held()) == 3000 == len(storing.result())
