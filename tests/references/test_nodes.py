"""The nodes that take the place of values in graphs."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from nobody import Nobody
from shared_store import shared_store

from daskps.objects.cache import Cache
from daskps.objects.catalog import Catalog
from daskps.objects.encoder import Encoder
from daskps.references.nodes import ObjectId, ProxyNode, StoredBytes, StoredValue
from daskps.stores import opened
from daskps.stores.files import mapping

pytestmark = pytest.mark.core


def test_a_proxy_node_is_small_on_the_wire():
    id = ObjectId("daskps-12345678", ("x" * 22, 1 << 20, 0))
    node = ProxyNode("key", StoredValue(StoredBytes(id, 0, 1 << 20), [], []))
    assert len(pickle.dumps(node)) < 400
    assert node.data_producer


@pytest.fixture
def encoder():
    with shared_store() as store:
        opened.add(store)
        yield Encoder(Catalog(store, Nobody()), Cache(0), 1000)
        opened.close(store.name)


def address(array):
    return array.__array_interface__["data"][0]


def test_what_nobody_can_write_to_is_mapped_once(encoder):
    value = np.arange(1 << 17)
    value.flags.writeable = False
    stored = encoder.encode(value)
    before = set(mapping._private)
    first, second = stored.resolve(), stored.resolve()
    assert address(first) == address(second)
    assert not first.flags.writeable
    with pytest.raises(ValueError, match="WRITEABLE"):
        first.flags.writeable = True
    del first
    assert np.array_equal(second, value)
    del second
    assert set(mapping._private) == before
    assert np.array_equal(stored.resolve(), value)


def test_what_may_be_written_to_is_nobody_elses(encoder):
    read_only, value = np.arange(1 << 17), np.arange(1 << 17)
    read_only.flags.writeable = False
    # Equal content: one object in the store for both.
    stored = encoder.encode([read_only, value, read_only.copy()])
    (a, b, c), (d, e, f) = stored.resolve(), stored.resolve()
    assert address(a) == address(d)
    assert len({*map(address, (a, b, c, e, f))}) == 5
    b[:] = c[:] = 0
    for array in a, d, e, f:
        assert np.array_equal(array, value)


def test_read_only_data_of_arrow_is_mapped_once(encoder):
    pa = pytest.importorskip("pyarrow")
    data = pa.py_buffer(bytes(range(256)) * 4096)
    value = pa.Array.from_buffers(pa.uint8(), data.size, [None, data])
    stored = encoder.encode(value)
    first, second = stored.resolve(), stored.resolve()
    assert first.equals(value)
    assert first.buffers()[1].address == second.buffers()[1].address
    assert not first.buffers()[1].is_mutable
