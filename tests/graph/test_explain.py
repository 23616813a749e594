"""What ``explain`` and ``assert_proxied`` say is what a block would do."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest

import daskps
import daskps.testing

SMALL = 80_000  # bytes


def many(n):
    return [np.random.default_rng(i).random(SMALL // 8) for i in range(n)]


def count(*arrays):
    return len(arrays)


GRAPHS = {
    "arguments": lambda n: dask.delayed(count)(*many(n)),
    "blocks": lambda n: da.from_array(np.concatenate(many(n)), chunks=SMALL // 8),
}


@pytest.mark.parametrize("make", GRAPHS.values(), ids=GRAPHS)
def test_small_values_that_would_be_packed(client, make):
    """More than Dask's limit for a large graph together, and none of them large."""
    graph = make(500)
    found = daskps.explain(graph)
    assert len(found) == 500
    assert found.nbytes == 500 * SMALL
    assert all(value.packed for value in found)
    assert "500 smaller values, 38.15 MiB in all" in repr(found)
    assert f"packed into {found.packs} objects" in repr(found)
    assert "nothing would travel" not in repr(found)
    assert "nothing would travel" not in found._repr_html_()
    daskps.testing.assert_proxied(graph)
    with daskps.proxy_graph():
        kept = graph.persist()
        assert daskps.usage(client).objects == found.packs == 5
        del kept


def test_small_values_that_stay_in_the_graph():
    graph = dask.delayed(count)(*many(10))
    assert not daskps.explain(graph).values
    assert "nothing would travel" in repr(daskps.explain(graph))
    with pytest.raises(AssertionError, match="nothing would travel"):
        daskps.testing.assert_proxied(graph)


def test_large_values_and_small_ones():
    large = np.zeros(1 << 20)
    found = daskps.explain(dask.delayed(count)(large, *many(200)))
    assert [value.packed for value in found] == [False] + [True] * 200
    assert "1 values of 256.00 kiB or more, 8.00 MiB in all" in repr(found)
    assert "200 smaller values" in repr(found)
