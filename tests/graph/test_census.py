"""How much data a graph holds, found without walking it task by task."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import functools
import gc
import itertools
import random
import threading
import tracemalloc
import weakref
from types import FunctionType

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from dask._task_spec import DataNode, List, Task, TaskRef

from daskps.graph import census
from daskps.graph.census import HEAVY_NBYTES, weigh
from daskps.graph.contents import graph_contents as contents
from daskps.objects.sizes import nbytes_of
from daskps.references.nodes import ProxyNode, StoredValue

pytestmark = pytest.mark.core

Point = collections.namedtuple("Point", ["x", "y"])
ARRAY = np.zeros(1 << 17)  # 1 MiB
BYTES = bytes(1 << 20)
OVERHEAD = 200  # bytes, of what is around the data of a value or two


@dataclasses.dataclass
class Record:
    value: object


@dataclasses.dataclass(slots=True)
class Slotted:
    value: object


@dataclasses.dataclass(frozen=True)
class Frozen:
    value: object


class Model:
    def __init__(self, value):
        self.value = value

    def predict(self):
        return self.value


def closure(value):
    def inner():
        return value

    return inner


def heaviest(things):
    """Bytes of the heaviest thing, as a whole."""
    return max((nbytes for _, nbytes in weigh(things).heavy(1)), default=0)


CONTAINERS = {
    "alone": lambda v: v,
    "list": lambda v: [1, v],
    "tuple": lambda v: (v, "x"),
    "dict": lambda v: {"a": v},
    "dict in list in tuple": lambda v: ([{"a": [v]}],),
    "OrderedDict": lambda v: collections.OrderedDict(a=v),
    "defaultdict": lambda v: collections.defaultdict(list, a=v),
    "namedtuple": lambda v: Point(1, v),
    "dataclass": Record,
    "dataclass with slots": Slotted,
    "frozen dataclass": Frozen,
    "dataclass in a list": lambda v: [Record([v])],
    "instance": Model,
    "bound method": lambda v: Model(v).predict,
    "partial": lambda v: functools.partial(max, v),
    "partial keyword": lambda v: functools.partial(max, key=v),
    "closure": closure,
    "long list, first": lambda v: [v, *range(500)],
    "long list, last": lambda v: [*range(500), v],
    "long list, middle": lambda v: [*range(250), v, *range(250)],
    "long list of small arrays, middle": lambda v: (
        [np.zeros(1)] * 250 + [v] + [np.zeros(1)] * 250
    ),
    "long dict": lambda v: {i: (v if i == 100 else i) for i in range(200)},
    "tree of 300": lambda v: [[i, [v if i == 150 else i]] for i in range(300)],
}


@pytest.mark.parametrize("container", CONTAINERS)
class TestALargeValueIsFound:
    @pytest.mark.parametrize("value", [ARRAY, BYTES], ids=["array", "bytes"])
    def test_in_a_container(self, container, value):
        assert heaviest([CONTAINERS[container](value)]) >= 1 << 20

    def test_is_counted_in_the_size_of_its_container(self, container):
        assert nbytes_of(CONTAINERS[container](ARRAY)) >= 1 << 20

    def test_in_an_argument(self, container):
        value = CONTAINERS[container](ARRAY)
        for task in (Task("k", print, value), Task("k", print, 1, end=value)):
            assert heaviest([task]) >= 1 << 20

    def test_in_a_data_node(self, container):
        node = DataNode("k", CONTAINERS[container](ARRAY))
        assert heaviest([node]) >= 1 << 20


SETS = {
    "set": lambda v: {v, b"x"},
    "frozenset": lambda v: frozenset([v]),
    "long set": lambda v: {v, *range(500)},
}


@pytest.mark.parametrize("container", SETS)
def test_large_bytes_are_found_in_sets(container):
    assert heaviest([SETS[container](BYTES)]) >= 1 << 20


def test_nested_tasks_are_opened():
    task = Task("k", sum, List(TaskRef("other"), Task("inner", max, ARRAY)))
    assert ARRAY.nbytes <= heaviest([task]) < ARRAY.nbytes + OVERHEAD


@pytest.mark.parametrize(
    ("value", "nbytes"),
    [
        (np.zeros((100, 100)), 80_000),
        (np.zeros((100, 100))[::2], 40_000),
        (np.zeros(0), 0),
        (b"x" * 5000, 5000),
        (bytearray(5000), 5000),
        ("x" * 5000, 5000),
        (memoryview(bytes(5000)), 5000),
        ([np.zeros(1000), b"y" * 100], 8100),
        (7, 0),
        (None, 0),
        (slice(None), 0),
        (len, 0),
        (np.zeros, 0),
        (TaskRef("x"), 0),
    ],
)
def test_sizes_of_values(value, nbytes):
    assert nbytes <= nbytes_of(value) <= nbytes + OVERHEAD


def test_frames_count_with_their_data():
    frame = pd.DataFrame({"a": np.zeros(10_000), "b": np.zeros(10_000)})
    assert nbytes_of(frame) >= 160_000


def test_arrays_of_objects_count_with_their_objects():
    assert nbytes_of(np.array([b"x" * 100_000, None], dtype=object)) >= 100_000


def test_the_sum_of_all_and_what_is_heavy():
    tasks = [Task(i, print, bytes([i]) * 1000) for i in range(10)]
    large = Task("large", print, BYTES)
    weight = weigh([*tasks, large])
    assert 0 <= weight.nbytes - len(BYTES) - 10_000 < OVERHEAD
    ((thing, nbytes),) = weight.heavy(5000)
    assert thing is large
    assert 0 <= nbytes - len(BYTES) < OVERHEAD
    assert weight.has(5000)
    assert not weight.has(len(BYTES) + OVERHEAD)
    assert len(list(weight.heavy(1000))) == 11


@pytest.mark.parametrize("where", [0, 7, 499, 998, 999])
def test_a_heavy_thing_is_found_among_many_light_ones(where):
    tasks = [Task(i, print, [np.full(25, i)] * 2) for i in range(1000)]
    tasks[where] = Task("heavy", print, *[np.zeros(500) for _ in range(20)])
    ((thing, nbytes),) = weigh(tasks).heavy(64_000)
    assert thing is tasks[where]
    assert 80_000 <= nbytes < 90_000


@pytest.mark.parametrize("where", [0, 99, 100, 4321, 9999])
@pytest.mark.parametrize("nbytes", [70_000, 5_000_000])
def test_a_heavy_thing_is_found_among_very_many(where, nbytes):
    tasks = [Task(i, print, i) for i in range(10_000)]
    tasks[where] = Task("heavy", print, [np.zeros(nbytes // 80) for _ in range(10)])
    ((thing, found),) = weigh(tasks).heavy(HEAVY_NBYTES)
    assert thing is tasks[where]
    assert nbytes <= found < 1.1 * nbytes


@pytest.mark.parametrize("nbytes", [0, 10, 1000, 60_000])
def test_very_many_light_things(nbytes):
    """Also if each has nearly as much as a heavy one."""
    n = 20_000 if nbytes < 100 else 50_000_000 // max(nbytes, 5000)
    weight = weigh([Task(i, print, bytes([i % 256]) * nbytes) for i in range(n)])
    assert not weight.has(HEAVY_NBYTES)
    assert n * nbytes <= weight.nbytes <= n * (nbytes + 20)


def test_nodes_of_stored_values_are_found_among_very_many():
    node = ProxyNode("key", StoredValue(b"", [], []))
    weight = weigh([*(Task(i, print, i) for i in range(10_000)), node])
    assert weight.proxies == [node]


def test_things_that_share_what_is_large_are_all_heavy():
    tasks = [Task(i, print, ARRAY) for i in range(10)]
    weight = weigh(tasks)
    assert weight.nbytes < ARRAY.nbytes + 1000
    assert [thing for thing, _ in weight.heavy(ARRAY.nbytes)] == tasks


def test_a_value_that_occurs_often_counts_once():
    small = np.zeros(100)
    weight = weigh([Task(i, print, small) for i in range(100)])
    assert small.nbytes <= weight.nbytes < small.nbytes + OVERHEAD
    # More things are weighed in parts, which are few.
    weight = weigh([Task(i, print, small) for i in range(1000)])
    assert small.nbytes <= weight.nbytes < 10 * small.nbytes
    large = np.zeros(10_000)
    weight = weigh([Task(i, print, large) for i in range(1000)])
    assert large.nbytes <= weight.nbytes < large.nbytes + OVERHEAD


def test_a_cycle_ends():
    cycle = [ARRAY]
    cycle.append({"again": cycle})
    assert ARRAY.nbytes <= heaviest([cycle]) < ARRAY.nbytes + OVERHEAD


def test_what_was_weighed_is_not_kept_alive():
    """A future that is kept is a task that is not released."""
    gc.disable()
    try:
        for more in ([], [1] * 200, [{"a": "b"}] * 200, [np.ones(2)] * 200):
            value = Attributes()
            alive = weakref.ref(value)
            assert nbytes_of([value, *more]) > 0 or not more
            weigh([[value, *more]])
            del value
            assert alive() is None, more[:1]
    finally:
        gc.enable()


class Attributes:
    pass


def test_an_empty_graph():
    weight = weigh([])
    assert (weight.nbytes, list(weight.heavy(0)), weight.proxies) == (0, [], [])


def test_a_symbolic_layer_is_not_materialised():
    x = da.ones((1000, 1000), chunks=(1, 1000))
    x = da.blockwise(add_first_byte, "ij", x, "ij", BYTES, None, dtype="f8")
    layer = x.dask.layers[x.name]
    assert len(BYTES) <= heaviest(contents(x.dask)) < len(BYTES) + 1000
    assert "_cached_dict" not in vars(layer)


def add_first_byte(block, data):
    return block + data[0]


def test_tasks_that_hold_nothing_are_passed_over_by_type():
    things = itertools.chain(range(1000), [True, None, 1.5, slice(3), np.dtype("f8")])
    assert heaviest(things) < 5000


class Holder:
    def __init__(self):
        self.data = 3


def test_names_of_attributes_are_no_global_variables(monkeypatch):
    monkeypatch.setitem(globals(), "data", ARRAY)
    # Pickled by value, as what is defined in __main__.
    by_value = FunctionType(
        (lambda holder: holder.data).__code__, globals(), "by_value"
    )
    assert nbytes_of(by_value) < 1000
    uses = FunctionType((lambda: data).__code__, globals(), "uses")  # noqa: F821
    assert nbytes_of(uses) >= ARRAY.nbytes


def test_objects_without_the_attributes_that_their_type_promises(caplog):
    async def make():
        return asyncio.get_running_loop().create_future()

    holder = Holder()
    holder.data = asyncio.run(make())
    assert nbytes_of(holder) < 1000
    holder.data = threading.Lock()
    assert nbytes_of([holder, threading.Lock()]) < 1000
    assert not caplog.records


@dataclasses.dataclass
class WithoutItsData:
    data: object

    def __getstate__(self):
        return {}


def test_what_a_dataclass_does_not_pickle_weighs_nothing():
    assert nbytes_of(WithoutItsData(ARRAY)) < 1000


def test_a_tree_with_references_to_parents_is_opened_once():
    root = {"children": [], "data": ARRAY}
    root["children"] += [{"parent": root} for _ in range(3000)]
    holder = Holder()
    holder.data = root
    tracemalloc.start()
    assert ARRAY.nbytes <= nbytes_of(holder) < 2 * ARRAY.nbytes
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Nine million references to its children would take 70 MB.
    assert peak < 20 << 20


OBJECT_FRAMES = {
    "frame": pd.DataFrame({"a": ["x" * 1000] * 500, "b": range(500)}, dtype=object),
    "column": pd.Series(["x", None] * 500, dtype=object),
    "strings": pd.Series(["x"] * 500, dtype=pd.StringDtype("python")),
    "index": pd.Index(["a", 1, None] * 50, dtype=object),
    "levels": pd.MultiIndex.from_product([["a", 1], [None, "b"]]),
}


@pytest.mark.parametrize("frame", OBJECT_FRAMES.values(), ids=OBJECT_FRAMES)
def test_nothing_is_drawn_from_random_numbers_that_the_user_has_seeded(frame):
    np.random.seed(0)
    random.seed(0)
    nbytes_of(frame)
    assert np.random.get_state()[2] == 624
    drawn = random.random()
    random.seed(0)
    assert drawn == random.random()


def test_columns_of_objects_count_with_a_share_of_their_cells():
    cells = [str(i) * 1000 for i in range(1000)]
    nbytes = sum(map(len, cells))
    for values in (pd.Series(cells, dtype=object), pd.Index(cells, dtype=object)):
        assert 0.9 * nbytes < nbytes_of(values) < 1.1 * nbytes
        assert 0.9 * nbytes < nbytes_of(pd.DataFrame({"a": values})) < 1.1 * nbytes
    # One object many times.
    assert 1e6 < nbytes_of(pd.Series(["x" * 1_000_000] * 50, dtype=object)) < 1.1e6
    assert nbytes_of(pd.DataFrame({"a": [ARRAY]}, dtype=object)) > ARRAY.nbytes


def test_a_size_that_cannot_be_told_is_that_of_the_pickle():
    cell = {"data": BYTES}
    cell["me"] = cell
    assert nbytes_of(pd.Series([cell], dtype=object)) >= len(BYTES)
    assert nbytes_of(functools.partial(print, pd.Series([cell, 1]))) >= len(BYTES)


def test_data_that_is_not_read_yet_stays_so():
    xr = pytest.importorskip("xarray", reason="it is in the extra 'libraries' alone")
    reads = []

    class OnDisk(xr.backends.BackendArray):
        shape, dtype = (100_000,), np.dtype("f8")

        def __getitem__(self, key):
            reads.append(key)
            return np.zeros(self.shape)[key.tuple]

    lazy = xr.core.indexing.LazilyIndexedArray(OnDisk())
    lazy = xr.core.indexing.MemoryCachedArray(lazy)
    for opened in (
        xr.Variable("x", lazy),
        xr.DataArray(xr.Variable("x", lazy)),
        xr.Dataset({"a": xr.Variable("x", lazy)}),
    ):
        weigh([DataNode("a", opened), Task("b", len, [opened])])
        assert reads == []
    in_memory = xr.Dataset({"a": ("x", ARRAY)})
    assert nbytes_of(in_memory) >= ARRAY.nbytes


def test_what_many_things_share_is_weighed_a_few_times(monkeypatch):
    """Whether one of them is large, as a whole, if all are small."""
    shared = [(i, str(i)) for i in range(3000)]
    things = [Task(i, len, np.zeros(900) + i, shared) for i in range(190)]
    weight = weigh(things)
    assert 1 << 20 < weight.nbytes < 2 << 20
    weighed = []
    original = census._nbytes

    def counting(things, *args):
        weighed.append(len(things))
        return original(things, *args)

    monkeypatch.setattr(census, "_nbytes", counting)
    assert not weight.has(1 << 20)
    assert len(weighed) <= 4


def test_each_of_a_few_heavy_things_is_weighed_once(monkeypatch):
    things = [Task(i, len, np.zeros(20_000) + i) for i in range(8)]
    weight = weigh(things)
    weighed = collections.Counter()
    original = census._nbytes

    def counting(things, *args):
        weighed.update([len(things)])
        return original(things, *args)

    monkeypatch.setattr(census, "_nbytes", counting)
    for _ in range(3):
        assert len(list(weight.heavy(HEAVY_NBYTES))) == 8
    assert weighed == {1: 8}
