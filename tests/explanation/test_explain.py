"""What ``explain`` says is what a block would do."""

from __future__ import annotations

from functools import partial

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pytest
from dask.blockwise import BlockwiseDepDict, blockwise
from dask.highlevelgraph import HighLevelGraph
from distributed import Client
from processes import messages_sent

import daskps
from daskps.dask_private.graphs import Task
from daskps.explanation.arguments import Arguments

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
    assert "1 value of 256.00 kiB or more, 8.00 MiB in all" in repr(found)
    assert "200 smaller values" in repr(found)


def test_each_large_value_is_shown_with_its_kind_and_place():
    large, larger = np.zeros(1 << 18), bytearray(1 << 22)
    first = dask.delayed(count)(large, larger, dask_key_name="first")
    second = dask.delayed(count)(large, dask_key_name="second")
    found = daskps.explain(first, second)
    assert [value.tasks for value in found] == [1, 2]
    assert [value.copies for value in found] == [1, 1]
    assert [value.type for value in found] == [
        "bytearray",
        "numpy.ndarray (262144,) float64",
    ], "what costs most first"
    assert [value.argument for value in found] == [
        "argument arrays[1] of count",
        "argument arrays[0] of count",
    ]
    assert found.nbytes == sum(value.nbytes for value in found)
    assert found.nbytes >= large.nbytes + len(larger)
    assert all(value.where in ("first", "second") for value in found), list(found)
    for shown in (repr(found), found._repr_html_()):
        assert "bytearray" in shown
        assert "argument arrays[0]" in shown


def test_values_that_look_alike_share_a_row():
    found = daskps.explain(GRAPHS["blocks"](500))
    assert "500 x numpy.ndarray (10000,) float64" in repr(found)
    assert len(found.rows()) == 1


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
    assert {message["op"] for message in messages} <= {"heartbeat-client"}


@pytest.mark.parametrize(
    ("things", "options"),
    [
        ((np.zeros(1 << 20),), {}),
        (([1, 2],), {}),
        ((dask.delayed(count)(1), 5), {}),
        ((dask.delayed(count)(1),), {"weights": 1}),
        ((Client.gather, []), {}),
        ((Client.compute, 5), {}),
    ],
)
def test_what_cannot_be_explained(things, options):
    with pytest.raises(TypeError, match=r"explain\(\) takes .*collections"):
        daskps.explain(*things, **options)


LARGE = np.random.default_rng(0).random(1 << 17)  # 1 MiB


def test_collections_within_lists_and_dictionaries():
    x, y = (dask.delayed(count)(LARGE, i) for i in range(2))
    for things in ([x, y], {"a": x, "b": (y,)}, (x, [y])):
        (value,) = daskps.explain(things)
        assert (value.tasks, value.copies, value.nbytes) == (2, 1, LARGE.nbytes)
        assert value.in_graph == LARGE.nbytes
        assert value.with_tasks == 2 * LARGE.nbytes


def test_calls(client):
    def scale(x, by, *, offset=0, **others):
        return x

    ways = {
        "by": daskps.explain(scale, 1, LARGE),
        "x": daskps.explain(Client.submit, scale, LARGE, 2, workers="a", pure=False),
        "offset": daskps.explain(client.submit, scale, 1, 2, offset={"a": LARGE}),
        "kwargs['more']": daskps.explain(client.submit, scale, 1, 2, more=LARGE),
    }
    for name, found in ways.items():
        (value,) = found
        assert value.argument == f"argument {name}"
        assert (value.where, value.tasks) == ("scale", 1)
        assert value.line.startswith("tests/explanation/test_explain.py:")
    assert not client.futures


def test_items_of_lists_within_tasks():
    names = [f"name {i}" for i in range(1000)]
    other = LARGE + 1
    task = Task("x", count, [1, LARGE, LARGE, *names], (other, LARGE), names)
    arguments = Arguments()
    places = {
        "arrays[0][1]": LARGE,
        "arrays[0][999]": names[996],
        "arrays[1][0]": other,
        "arrays[2]": names,
        "": count,
    }
    for name, value in places.items():
        assert arguments.of_value(task, "x", value) == (count, name, None)
    assert arguments.of_value(task, "x", LARGE + 2) == (None, "", None)


def test_calls_of_map():
    def scale(x, by):
        return x

    found = daskps.explain(Client.map, scale, range(5), by=(LARGE, 1), retries=3)
    (value,) = found
    assert (value.argument, value.tasks) == ("argument by", 5)
    assert value.with_tasks == value.nbytes, "Dask makes a task of it"
    found = daskps.explain(Client.map, scale, range(5), [LARGE * i for i in range(5)])
    assert [value.argument for value in found] == ["argument by"] * 5
    assert [value.tasks for value in found] == [1] * 5
    (row,) = found.rows()
    assert row.what == "5 x numpy.ndarray (131072,) float64"


def test_collections_that_a_client_computes(client):
    x = dask.delayed(count)(LARGE)
    for found in (
        daskps.explain(client.compute, [x]),
        daskps.explain(client.persist, x),
    ):
        assert [value.nbytes for value in found] == [LARGE.nbytes]


WORK = {
    "itself": lambda x: x,
    "a number added": lambda x: x + 1,
    "sum": lambda x: x.sum(),
    "mean": lambda x: x.mean(axis=0),
    "std": lambda x: x.std(),
    "cumsum": lambda x: x.cumsum(axis=0),
    "argmax": lambda x: x.argmax(axis=1),
    "a product": lambda x: x.T @ x,
    "map_blocks": lambda x: x.map_blocks(np.negative),
    "map_overlap": lambda x: x.map_overlap(np.negative, depth=1),
    "several steps": lambda x: (x - x.mean(0)) ** 2,
    "a slice": lambda x: x[::2, :600],
    "rechunked": lambda x: x.rechunk(200).sum(),
    "concatenated": lambda x: da.concatenate([x, x + 1]).sum(),
    "a mask": lambda x: x[x > 0.5],
    "set": lambda x: da.where(x > 0.5, x, 0),
    "apply_gufunc": lambda x: da.apply_gufunc(
        np.sum, "(i)->()", x.rechunk((500, -1)), axis=-1
    ),
    "einsum": lambda x: da.einsum("ij,kj->ik", x, x),
    "a frame": lambda x: dd.from_dask_array(x.rechunk((500, -1))).sum(),
    "delayed blocks": lambda x: x.to_delayed().ravel().tolist(),
    "several collections": lambda x: [x, x.sum(), {"a": x + 1}],
}


@pytest.mark.parametrize("work", WORK.values(), ids=WORK.keys())
def test_an_array_with_whatever_is_done_with_it(work):
    x = da.from_array(np.random.default_rng(0).random((1000, 1000)), chunks=500)
    found = daskps.explain(work(x), threshold="256 KiB")
    assert found.values
    assert "(500, 500) float64" in repr(found)
    assert found.plain_sends >= 8 * 500 * 500


def test_tasks_of_symbolic_layers():
    def scale(block):
        return block * LARGE[0]

    y = da.ones((40, 60), chunks=(10, 10)).map_blocks(scale)
    (value,) = daskps.explain(y)
    assert value.tasks == 24
    assert (value.where, value.argument) == ("scale", "carried by the function")
    assert value.parts[0].path == "LARGE"
    (value,) = daskps.explain(y[:10])
    assert value.tasks == 6, "of those that are needed"
    assert value.with_tasks == 6 * value.nbytes
    layers = y.__dask_graph__().layers.values()
    assert not any(getattr(layer, "_cached_dict", None) for layer in layers)


def add(x, weights):
    return x + weights[0]


def test_an_argument_of_which_dask_makes_a_task():
    y = da.ones((40, 60), chunks=(10, 10)).map_blocks(add, weights=LARGE)
    (value,) = daskps.explain(y)
    assert (value.tasks, value.argument) == (1, "taken by add as weights in 24 tasks")
    (value,) = daskps.explain(y[:10])
    assert (value.tasks, value.argument) == (1, "taken by add as weights in 6 tasks")


def test_a_task_that_several_tasks_take():
    data = dask.delayed(LARGE)
    (value,) = daskps.explain([dask.delayed(add)(i, weights=data) for i in range(3)])
    assert (value.tasks, value.argument) == (1, "taken by add as weights in 3 tasks")


@pytest.mark.parametrize(
    "make",
    [
        lambda f: db.range(10, npartitions=2).map(f),
        lambda f: db.range(10, npartitions=2).map(partial(f, 1)),
        lambda f: db.range(10, npartitions=2).filter(f),
    ],
    ids=["function", "partial", "filter"],
)
def test_a_function_that_dask_gives_to_one_of_its_own(make):
    table = LARGE

    def score(*args):
        return args + table[0]

    (value,) = daskps.explain(make(score))
    assert value.argument == "carried by the function"
    assert __file__.rpartition("/")[2] in value.line
    assert value.parts
    assert "stores the function once" in value.advice


def test_what_a_call_takes_need_have_no_token():
    (value,) = daskps.explain(count, [object(), LARGE])
    assert value.nbytes >= LARGE.nbytes


def test_a_row_that_makes_no_difference_is_counted():
    graph = [dask.delayed(count)(LARGE, key) for key in range(40)]
    found = daskps.explain(
        graph, dask.delayed(count)(bytes(1 << 13)), threshold=1 << 13
    )
    assert len(found) == 2
    assert "and 1 more" in repr(found)
    assert "and 1 more" in found._repr_html_()


def test_rows_are_listed_however_many_there_are():
    values = [LARGE[i:] for i in range(1500)]
    found = daskps.explain(Client.map, count, values, threshold="64 KiB")
    assert repr(found).count(" in count, argument") > 10


def test_a_function_in_a_list_is_data():
    table = LARGE
    listed = dask.delayed([lambda: table, dask.delayed(1)])
    (value,) = daskps.explain(listed)
    assert value.argument != "carried by the function"
    assert "stores the function" not in value.advice


def test_blocks_that_symbolic_layers_take():
    blocks = BlockwiseDepDict({(i,): LARGE + i for i in range(3)}, (3,))
    ones = da.ones((30, 20), chunks=(10, 5))
    graph = blockwise(
        *(add, "sums", "ij", ones.name, "ij", blocks, "i"),
        numblocks={ones.name: (3, 4)},
    )
    graph = HighLevelGraph.from_collections("sums", graph, dependencies=[ones])
    layer = da.Array(graph, "sums", ones.chunks, "f8")
    found = daskps.explain(layer)
    assert [value.tasks for value in found] == [4, 4, 4]
    assert {value.argument for value in found} == {"argument weights of add"}
    found = daskps.explain(layer[:10, :5])
    assert sorted(value.tasks for value in found) == [0, 0, 1]
    assert {v.travels for v in found} == {"unneeded", "stored"}


def test_a_value_below_the_threshold_in_many_tasks():
    small = LARGE[: 1 << 14]  # 128 KiB
    inside = Inside()
    inside.table = small
    found = daskps.explain(Client.map, add, range(200), weights=inside)
    (value,) = found
    assert value.travels == "inline"
    assert "threshold" in value.advice
    assert value.with_tasks == 200 * value.nbytes
    assert not found.nbytes, "nothing of it by reference"


class Inside:
    pass


def test_equal_values():
    values = [LARGE.copy() for _ in range(10)]
    tables = [{"a": LARGE.copy()} for _ in range(5)]
    graphs = [dask.delayed(count)(value) for value in [*values, *tables]]
    arrays, dictionaries = daskps.explain(graphs)
    assert (arrays.copies, arrays.tasks) == (10, 10)
    assert arrays.in_graph == 10 * LARGE.nbytes
    assert arrays.to_store == LARGE.nbytes
    assert dictionaries.copies == 5
    values[3][5] += 1
    assert sorted(value.copies for value in daskps.explain(graphs)) == [1, 5, 9]


def test_equal_values_that_are_packed_are_all_stored():
    graphs = [dask.delayed(count)(LARGE[: SMALL // 8].copy()) for _ in range(200)]
    found = daskps.explain(graphs)
    (value,) = found
    assert (value.packed, value.copies, value.nbytes) == (True, 200, SMALL)
    assert value.to_store == found.nbytes == 200 * SMALL
    assert found.packs == 2
    assert "200 smaller values" in repr(found)


def test_as_a_frame_and_in_a_notebook():
    model = {"emb": LARGE, "bias": 1}
    found = daskps.explain(count, model, LARGE[::-1])
    frame = found.to_pandas()
    assert list(frame["nbytes"]) == [value.nbytes for value in found]
    assert (frame["plain_sends"] >= 2 * LARGE.nbytes).all()
    assert "arrays[0]['emb']" in "".join(frame["parts"])
    html = found._repr_html_()
    assert html.count("<tr>") == 3
    assert "width:100px" in html
    empty = daskps.explain(count, 1)
    assert not len(empty.to_pandas())
    assert "nothing would travel" in empty._repr_html_()


def test_advice_for_each_kind():
    def captures(x):
        return x, LARGE

    advice = [
        daskps.explain(captures, 1).values[0].advice,
        daskps.explain(da.from_array(LARGE)).values[0].advice,
        daskps.explain(count, LARGE).values[0].advice,
        daskps.explain([dask.delayed(count)(LARGE.copy()) for _ in "ab"])
        .values[0]
        .advice,
    ]
    for words, line in zip(
        ("captures", "from_zarr", "load", "once"), advice, strict=True
    ):
        assert words in line
        assert "daskps.proxy_graph()" in line
