"""What people may use in tests of their own programs: ``daskps.testing``."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest
from processes import messages_sent

import daskps
from daskps.testing import assert_proxied

LARGE = np.random.default_rng(0).random(1 << 18)  # 2 MiB
# How often a value is pickled to be weighed: by a search for a table, and for the check.
LOOKS = 3
SMALL = 80_000  # bytes


def count(*arrays):
    return len(arrays)


def many(n):
    return [np.random.default_rng(i).random(SMALL // 8) for i in range(n)]


class Secretive:
    """Has data, and does not show it for as long as it may only be weighed."""

    def __init__(self, data):
        self.data = data
        self.looks = 0

    def __reduce__(self):
        self.looks += 1
        return Secretive, (self.data if self.looks > LOOKS else None,)


@pytest.mark.parametrize(
    "graph",
    [
        dask.delayed(count)(LARGE),
        da.from_array(LARGE, chunks=1 << 16),
        dask.delayed(count)({"nested": [LARGE]}),
        # Small ones that are packed, since they are too much for a graph together.
        dask.delayed(count)(*many(500)),
        da.from_array(np.concatenate(many(500)), chunks=SMALL // 8),
    ],
    ids=["argument", "blocks", "nested", "packed arguments", "packed blocks"],
)
def test_large_values_that_leave_the_graph_are_no_error(graph):
    assert_proxied(graph)


@pytest.mark.parametrize(
    "graph",
    [
        dask.delayed(count)(*many(2)),
        dask.delayed(count)(1, 2),
        da.zeros((10_000, 10_000)),  # made by tasks
    ],
    ids=["small values", "numbers", "made by tasks"],
)
def test_where_nothing_is_large_is_an_error(graph):
    with pytest.raises(AssertionError, match="nothing would travel by reference"):
        assert_proxied(graph)


def test_below_the_threshold_nothing_is_large():
    assert_proxied(dask.delayed(count)(LARGE), threshold=LARGE.nbytes)
    with pytest.raises(AssertionError, match="threshold too high"):
        assert_proxied(dask.delayed(count)(LARGE), threshold="3 MiB")


def test_a_large_buffer_that_stays_in_the_graph_is_an_error():
    found, hidden = LARGE, Secretive(LARGE + 1)
    with pytest.raises(
        AssertionError, match=r"A buffer of 2\.00 MiB is still in the graph"
    ):
        assert_proxied(dask.delayed(count)(found, hidden))
    assert_proxied(dask.delayed(count)(found, Secretive(LARGE[:10].copy())))


def test_a_buffer_of_the_threshold_is_one_too_many():
    graph = dask.delayed(count)(LARGE, Secretive(LARGE[: 1 << 16].copy()))
    with pytest.raises(AssertionError, match="still in the graph"):
        assert_proxied(graph, threshold=8 << 16)
    assert_proxied(graph, threshold=(8 << 16) + 1)


def test_checking_stores_and_sends_nothing(client):
    with daskps.proxy_graph(), messages_sent(client) as messages:
        assert_proxied(dask.delayed(count)(LARGE))
        assert not daskps.usage(client).objects
    assert not messages
