"""What the client knows of what it has stored."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from nobody import Nobody
from proxystore.connectors.file import FileConnector
from shared_store import shared_store

from daskps.objects import catalog as catalogs
from daskps.objects.catalog import Catalog
from daskps.objects.content import fingerprint
from daskps.stores.store import Store


@pytest.fixture
def mapped():
    """Of a store in shared memory."""
    with shared_store() as store:
        yield Catalog(store, Nobody())


@pytest.fixture
def read(tmp_path):
    """Of a store that has to be asked for what is in it."""
    store = Store("plain", FileConnector(str(tmp_path)))
    yield Catalog(store, Nobody())
    store.connector.close()


@pytest.fixture(params=["mapped", "read"])
def catalog(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def hashed(monkeypatch):
    """Sizes of what is hashed."""
    sizes = []
    content_hash = catalogs.content_hash

    def counting(frames):
        sizes.append(sum(memoryview(frame).nbytes for frame in frames))
        return content_hash(frames)

    monkeypatch.setattr(catalogs, "content_hash", counting)
    return sizes


@pytest.fixture
def threads_alternate():
    """Threads take turns much more often than every 5 ms."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


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


def test_the_last_one_that_looks_the_same_can_go(catalog):
    first = catalog.put([alike(1)])
    catalog.put([alike(2)])
    assert catalog.held() == [first.id]
    assert catalog.put([alike(1)]) is first


@pytest.mark.parametrize("nbytes", [0, 1, 100])
def test_small_objects_are_stored_once(catalog, nbytes):
    first = catalog.put([DATA[:nbytes]])
    assert catalog.put([DATA[:nbytes]]) is first
    assert content(catalog, first) == DATA[:nbytes]


def test_a_strided_array_is_stored_once(catalog):
    array = np.frombuffer(alike(1), np.uint8).reshape(100, 1000)[:, ::2]
    first = catalog.put([array])
    assert catalog.put([array.copy()]) is first
    assert content(catalog, first) == array.tobytes()


class TestImmutable:
    """Arrays on the memory of bytes are known without a look at their content."""

    def test_is_not_looked_at(self, catalog, hashed):
        array = np.frombuffer(DATA, np.uint8)
        first = catalog.put([array.data])
        hashed.clear()
        assert catalog.put([array.data]) is first
        assert hashed == []

    def test_a_part_is_another_object(self, catalog):
        array = np.frombuffer(DATA, np.uint8)
        parts = [array.data[:50_000], array.data[50_000:]]
        stored = [catalog.put([part]) for part in parts]
        assert [content(catalog, one) for one in stored] == list(map(bytes, parts))

    def test_nothing_is_kept_of_an_array_that_is_gone(self, catalog):
        for i in range(100):
            catalog.put([np.frombuffer(bytes(alike(i)), np.uint8).data])
        assert len(catalog._immutable) <= 1


def test_what_is_new_is_not_hashed_where_it_can_be_read_again(mapped, hashed):
    first, other = mapped.put([DATA]), mapped.put([DATA[1:]])
    assert hashed == []
    assert mapped.put([DATA]) is first
    assert hashed == [len(DATA)] * 2, "what is stored, and what comes"
    assert mapped.put([DATA]) is first
    assert hashed == [len(DATA)] * 3
    assert other.digest is None


def test_what_is_hashed_is_what_was_stored(mapped):
    """Whatever becomes of the array that it came from."""
    array = np.frombuffer(alike(1), np.uint8)
    first = mapped.put([array.data])
    array[1000] = 2
    assert mapped.put([alike(1)]) is first
    assert mapped.put([array.data]) is not first


def test_what_changes_while_it_is_stored(catalog, monkeypatch):
    """Another thread writes to an array that is being stored: Dask would send a mixture."""
    array = np.frombuffer(alike(1), np.uint8)
    put_frames = catalog.store.connector.put_frames

    def slowly(frames, creator):
        array[1000] = 2
        return put_frames(frames, creator)

    monkeypatch.setattr(catalog.store.connector, "put_frames", slowly)
    held = [catalog.put([array.data])]
    monkeypatch.undo()
    for i in (1, 2, 1):
        held.append(catalog.put([alike(i)]))
        assert content(catalog, held[-1]) == alike(i)


def test_what_cannot_be_read_again_is_stored_again(mapped, monkeypatch):
    first = mapped.put([DATA])

    def fails(key):
        raise OSError("too many mappings")

    monkeypatch.setattr(mapped.store.connector, "get", fails)
    second = mapped.put([DATA])
    monkeypatch.undo()
    assert first.id != second.id
    assert content(mapped, second) == DATA


def test_many_threads_put_what_looks_the_same(catalog, threads_alternate):
    with ThreadPoolExecutor(8) as pool:
        stored = list(pool.map(lambda i: catalog.put([alike(i % 5)]), range(200)))
    for i, one in enumerate(stored):
        assert content(catalog, one) == alike(i % 5)
    assert len({one.id for one in stored}) <= 5 * 8, "those that came at the same time"
    for i in range(5):
        assert catalog.put([alike(i)]) in stored


def test_what_is_held_can_be_asked_while_others_store(mapped, threads_alternate):
    with ThreadPoolExecutor(1) as pool:
        storing = pool.submit(
            lambda: [mapped.put([i.to_bytes(8, "big")]) for i in range(3000)]
        )
        while not storing.done():
            mapped.held()
        assert len(mapped.held()) == 3000 == len(storing.result())
