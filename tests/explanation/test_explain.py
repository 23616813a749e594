"""What ``explain`` says is what a block would do."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest
from processes import messages_sent

import daskps

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
    with daskps.proxy_graph():
        kept = graph.persist()
        assert daskps.usage(client).objects == found.packs == 5
        del kept


def test_small_values_of_one_task_that_is_large_with_them():
    found = daskps.explain(dask.delayed(count)(*many(10)))
    assert [value.packed for value in found] == [True] * 10
    assert "10 smaller values" in repr(found)


def test_small_values_that_stay_in_the_graph():
    graph = [dask.delayed(count)(value) for value in many(10)]
    assert not daskps.explain(*graph).values
    graph = dask.delayed(count)(*many(2))
    assert not daskps.explain(graph).values
    assert "nothing would travel" in repr(daskps.explain(graph))


def test_large_values_and_small_ones():
    large = np.zeros(1 << 20)
    found = daskps.explain(dask.delayed(count)(large, *many(200)))
    assert [value.packed for value in found] == [False] + [True] * 200
    assert "1 values of 256.00 kiB or more, 8.00 MiB in all" in repr(found)
    assert "200 smaller values" in repr(found)


def test_each_large_value_is_shown_with_its_kind_and_place():
    large, larger = np.zeros(1 << 18), bytearray(1 << 22)
    first = dask.delayed(count)(large, larger, dask_key_name="first")
    second = dask.delayed(count)(large, dask_key_name="second")
    found = daskps.explain(first, second)
    assert [value.count for value in found] == [1, 2], "the largest first"
    assert [value.type for value in found] == [
        "bytearray",
        "numpy.ndarray (262144,) float64",
    ]
    assert found.nbytes == sum(value.nbytes for value in found)
    assert found.nbytes >= large.nbytes + len(larger)
    assert all(value.where in ("first", "second") for value in found), list(found)
    for shown in (repr(found), found._repr_html_()):
        assert "bytearray" in shown
        assert "2 times" in shown


def test_values_that_look_alike_share_a_row():
    found = daskps.explain(GRAPHS["blocks"](500))
    assert "500 x numpy.ndarray (10000,) float64" in repr(found)
    assert len(repr(found).splitlines()) == 2


def test_a_table_is_no_longer_than_a_screen():
    values = [np.zeros(1 << 16 | i) for i in range(30)]
    found = daskps.explain(dask.delayed(count)(*values))
    assert len(found) == 30
    assert repr(found).splitlines()[-1].strip() == "and 10 more"


def test_a_block_stores_what_is_explained(client):
    graph = GRAPHS["blocks"](50)
    found = daskps.explain(graph, threshold=SMALL)
    with daskps.proxy_graph(threshold=SMALL):
        kept = graph.persist()
        usage = daskps.usage(client)
        assert usage.objects == len(found) == 50
        assert usage.nbytes >= found.nbytes
        del kept


def test_explaining_stores_and_sends_nothing(client):
    with daskps.proxy_graph(), messages_sent(client) as messages:
        assert daskps.explain(GRAPHS["blocks"](500))
        assert not daskps.usage(client).objects
    assert not messages


def test_only_collections_are_explained():
    with pytest.raises(TypeError, match="collection"):
        daskps.explain(np.zeros(1 << 20))
