"""The nodes that take the place of values in graphs."""

from __future__ import annotations

import pickle

import pytest

from daskps.references.nodes import ObjectId, ProxyNode, StoredBytes, StoredValue

pytestmark = pytest.mark.core


def test_a_proxy_node_is_small_on_the_wire():
    id = ObjectId("daskps-12345678", ("x" * 22, 1 << 20, 0))
    node = ProxyNode("key", StoredValue(StoredBytes(id, 0, 1 << 20), [], []))
    assert len(pickle.dumps(node)) < 400
    assert node.data_producer
