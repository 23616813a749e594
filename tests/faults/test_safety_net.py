"""What daskps cannot treat goes as in plain Dask."""

from __future__ import annotations

import itertools
import json
import threading
import uuid
import warnings
from collections.abc import Mapping

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import toolz
from dask._task_spec import DataNode, Task, TaskRef
from dask.blockwise import Blockwise, BlockwiseDepDict, blockwise_token
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph, Layer, MaterializedLayer
from faults_everywhere import InjectedError, failing, failing_elsewhere, functions
from flaky_store import FlakyConnector
from processes import PATIENCE, ProcessCluster, eventually, graph_nbytes, messages_sent
from proxystore.proxy import Proxy
from proxystore.store import Store, get_store

import daskps
from daskps import safety_net
from daskps.client import submission
from daskps.objects.catalog import Catalog
from daskps.stores import patience

MIB = 1 << 20


@pytest.fixture(scope="module")
def netted():
    """A cluster whose processes have the net."""
    net = {"DASK_DASKPS__SAFETY_NET": "True"}
    with ProcessCluster(scheduler=net, worker=net) as cluster:
        yield cluster


@pytest.fixture
def client(netted):
    with netted.client() as client, dask.config.set({safety_net.SETTING: True}):
        yield client


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(safety_net, "_said", set())
    # Other tests in this process count theirs.
    monkeypatch.setattr(safety_net, "_count", safety_net.count())


def array(nbytes=2 * MIB):
    return np.random.default_rng(0).integers(1000, size=nbytes // 8)


class BrokenError(Exception):
    pass


# Odd layers


class IteratesOverValues(Mapping):
    """As dask-awkward's."""

    def __init__(self, tasks):
        self._tasks = tasks

    def __getitem__(self, key):
        return self._tasks[key]

    def __iter__(self):
        return iter(self._tasks.values())

    def __len__(self):
        return len(self._tasks)

    def keys(self):
        return self._tasks.keys()

    def items(self):
        return self._tasks.items()


class OddLayer(Layer):
    """Gives its tasks only when Dask asks for them, and nothing else."""

    def __init__(self, tasks):
        super().__init__()
        self.tasks = tasks

    def is_materialized(self):
        return True

    def get_output_keys(self):
        return self.tasks.keys()

    def __getitem__(self, key):
        return self.tasks[key]

    def __iter__(self):
        return iter(self.tasks)

    def __len__(self):
        return len(self.tasks)


def delayed_sum(layer, key):
    """A collection of one task that uses one of a layer."""
    total = {"total": Task("total", np.sum, TaskRef(key))}
    layers = {"data": layer, "total": MaterializedLayer(total)}
    return Delayed("total", HighLevelGraph(layers, {"data": set(), "total": {"data"}}))


def blockwise(mapping, data):
    dep = BlockwiseDepDict({(0,): data}, (1,))
    dep.mapping = mapping
    task = Task("data", toolz.identity, TaskRef(blockwise_token(0)))
    return Blockwise("data", "i", task, [(dep, "i")], {})


LAYERS = {
    "as dask-awkward's": lambda data: blockwise(IteratesOverValues({(0,): data}), data),
    "of another class": lambda data: OddLayer(
        {("data", 0): DataNode(("data", 0), data)}
    ),
}


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_layers_of_other_libraries(client, make):
    data = array()
    expected = delayed_sum(make(data), ("data", 0)).compute()
    assert expected == data.sum()
    with daskps.proxy_graph():
        lazy = delayed_sum(make(data), ("data", 0))
        assert lazy.compute() == expected
        daskps.explain(lazy)


# Odd values


class OddDict(dict):
    def values(self):
        raise BrokenError


class OddList(list):
    def __len__(self):
        raise BrokenError


class OddArray(np.ndarray):
    @property
    def nbytes(self):
        raise BrokenError


class Odd:
    """Has what each test wants of it, and some data."""

    def __init__(self, data):
        self.data = data


class WithoutVariables(Odd):
    @property
    def __dict__(self):
        raise BrokenError

    def __init__(self, data):
        object.__setattr__(self, "data", data)

    def __reduce__(self):
        return type(self), (self.data,)


class WithoutClass(Odd):
    @property
    def __class__(self):
        raise BrokenError


class WithoutSize(Odd):
    def __sizeof__(self):
        raise BrokenError


class WithoutTruth(Odd):
    def __bool__(self):
        raise BrokenError


class WithoutEquality(Odd):
    __hash__ = None

    def __eq__(self, other):
        raise BrokenError


class WithoutAttributes(Odd):
    def __getattr__(self, name):
        raise BrokenError


class UnpickledWithTrouble(Odd):
    """Cannot be restored from memory that it may not write to."""

    def __setstate__(self, state):
        self.__dict__.update(state)
        self.data[0] += 0


def calls_itself():
    def function(n=0):
        return function

    return function


def with_broken_metaclass(data):
    class Meta(type):
        def __getattribute__(cls, name):
            if name in ("__module__", "__qualname__", "__mro__", "__slots__"):
                raise BrokenError
            return super().__getattribute__(name)

    class Strange(metaclass=Meta):
        pass

    made = Strange()
    made.data = data
    return made


def endless(data):
    items = [data]
    items.append(items)
    return items


VALUES = {
    "dict": lambda data: OddDict(data=data),
    "list": lambda data: OddList([data]),
    "array": lambda data: data.view(OddArray),
    "variables": WithoutVariables,
    "class": WithoutClass,
    "size": WithoutSize,
    "truth": WithoutTruth,
    "equality": WithoutEquality,
    "attributes": WithoutAttributes,
    "unpickled": UnpickledWithTrouble,
    "itself": lambda data: calls_itself(),
    "metaclass": with_broken_metaclass,
    "endless": endless,
    "generator": lambda data: (x for x in data),
    "lock": lambda data: [data, threading.Lock()],
}


def shown(value):
    """What can be told of any value without asking it much."""
    return type(value).__name__


def outcome(work):
    """What it gives, or that it raises."""
    try:
        return work()
    except Exception:
        return "raises"


WAYS = {
    "submit": lambda client, value: client.submit(shown, value, pure=False).result(60),
    "keyword": lambda client, value: client.submit(
        toolz.apply, shown, value=value, pure=False, key=uuid.uuid4().hex
    ).result(60),
    "in a list": lambda client, value: client.submit(len, [value], pure=False).result(
        60
    ),
    "map": lambda client, value: client.gather(client.map(shown, [value], pure=False)),
    "delayed": lambda client, value: dask.delayed(shown, pure=False)(value).compute(),
    "closure": lambda client, value: client.submit(
        lambda: shown(value), pure=False
    ).result(60),
    "scatter": lambda client, value: client.submit(
        shown, client.scatter([value], hash=False)[0], pure=False
    ).result(60),
    "result": lambda client, value: shown(
        client.submit(toolz.identity, value, pure=False).result(60)
    ),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("make", VALUES.values(), ids=VALUES)
def test_odd_values_go_as_in_plain_dask(client, make, way):
    expected = outcome(lambda: way(client, make(array())))
    for threshold in ("64 KiB", 1):
        with daskps.proxy_graph(threshold=threshold):
            given = outcome(lambda: way(client, make(array())))
            # What plain Dask cannot send may come by reference all the same.
            assert expected in (given, "raises")


# Any function may fail

_count = itertools.count()


def program(client):
    """Values and results of several kinds, new each time; what plain Dask gives."""
    x = array() + next(_count)
    blocks = da.from_array(x, chunks=1 << 16, name=False)
    futures = [
        client.compute(blocks.sum()),
        client.submit(lambda: int(x.sum()), pure=False),
        client.submit(int, client.submit(np.sum, client.scatter([x], hash=False)[0])),
        *client.map(np.sum, [x, x], pure=False),
        client.submit(np.add, x, 1, pure=False),
        client.submit(large_result, next(_count), pure=False),
    ]
    *sums, added, large = [future.result(60) for future in futures]
    assert list(map(int, sums)) == [int(x.sum())] * 5
    np.testing.assert_array_equal(added, x + 1)
    assert len(large) == MIB


def large_result(seed):
    """Passed from a worker to others, and to the client."""
    return bytes(MIB)


def check_each(client, names, inject, program=program):
    """Run a program while one function fails, one after the other."""
    assert names
    program(client)
    wrong = {}
    for name in sorted(names):
        try:
            with inject(name):
                program(client)
        except Exception as e:
            wrong[name] = repr(e)
    assert not wrong, "\n".join(f"{n}: {e}" for n, e in wrong.items())
    program(client)


# Those that look into what a program submits.
PASSES = [
    "daskps.graph",
    "daskps.objects.encoder",
    "daskps.objects.sizes",
    "daskps.serialize.pickling",
    "daskps.serialize.values",
]
# The net itself, and what puts it up.
NET = (
    "daskps.safety_net",
    "daskps.dask_private.hook",
    "daskps.client.submission._before_",
    "daskps.client.submission._after_",
    "daskps.client.submission._scatter",
    "daskps.client.submission._gather_failed",
    "daskps.client.submission._submission_failed",
    "daskps.client.sending.Sending._broadcast",
    "daskps.client.sending.Sending._publish",
    "daskps.client.sending.Sending._stored",
    "daskps.client.sending.Sending.call",
    "daskps.client.sending._is_unread",
    "daskps.client.fetching.Fetching._ask_again",
    "daskps.client.fetching.Fetching._read_published",
    # Forgets what was stored.
    "daskps.objects.encoder.Encoder.abandon",
    "daskps.references.results.load_reference",
    "daskps.worker.results.Writer._answer",
)


def injectable(*modules):
    return {
        name: function
        for name, function in functions(*modules).items()
        if not name.startswith(NET)
    }


def any_function(test):
    """Threads of stores may end by it."""
    for mark in (
        pytest.mark.timeout(1800),
        pytest.mark.filterwarnings(
            "ignore::pytest.PytestUnhandledThreadExceptionWarning"
        ),
    ):
        test = mark(test)
    return test


class Counter:
    """An actor that is given large values."""

    def __init__(self):
        self.total = 0

    def add(self, x, y):
        self.total += int(x.sum()) + int(y.sum())
        return self.total


def messages(client):
    """What is sent besides graphs: runs, calls of actors, data sets."""
    x = array() + next(_count)
    found = client.run(lambda x, y: int(x.sum() + y.sum()), x, y=x)
    assert set(found.values()) == {2 * int(x.sum())}
    actor = client.submit(Counter, actor=True, pure=False).result(60)
    assert actor.add(x, y=x).result(60) == 2 * int(x.sum())
    name = f"set {next(_count)}"
    client.publish_dataset(x, name=name)
    try:
        np.testing.assert_array_equal(client.get_dataset(name), x)
    finally:
        client.unpublish_dataset(name)


@any_function
@pytest.mark.slow
def test_any_function_for_other_messages_may_fail(client):
    found = injectable("daskps.client", "daskps.references", *PASSES)
    with daskps.proxy_graph():
        inject = lambda name: failing(found[name])  # noqa: E731
        check_each(client, found, inject, program=messages)


@any_function
@pytest.mark.slow
def test_any_function_that_looks_into_a_graph_may_fail(client):
    found = injectable(*PASSES)
    with daskps.proxy_graph():
        check_each(client, found, lambda name: failing(found[name]))


@any_function
@pytest.mark.slow
def test_one_function_of_six_on_the_client_may_fail(client):
    looking = injectable(*PASSES)
    found = {n: f for n, f in injectable("daskps").items() if n not in looking}
    with daskps.proxy_graph():
        inject = lambda name: failing(found[name])  # noqa: E731
        check_each(client, sorted(found)[::6], inject)


@any_function
@pytest.mark.full
def test_any_function_on_the_client_may_fail(client):
    found = injectable("daskps")
    with daskps.proxy_graph():
        check_each(client, found, lambda name: failing(found[name]))


# What workers do with results. How they read values is not among it: those are nowhere else.
RESULTS = [
    *PASSES,
    "daskps.objects.catalog",
    "daskps.objects.content",
    "daskps.objects.finalizers",
    "daskps.serialize.sent",
    "daskps.stores.files.connector",
    "daskps.stores.files.mapped",
    "daskps.stores.files.warm",
    "daskps.worker.results",
]


def results(client):
    """Results of several kinds, passed from worker to worker and to the client."""
    n = next(_count)
    workers = list(client.scheduler_info()["workers"])
    made = client.submit(large_array, n, workers=workers[:1], pure=False)
    passed = client.submit(np.negative, made, workers=workers[1:], pure=False)
    np.testing.assert_array_equal(passed.result(60), -large_array(n))
    np.testing.assert_array_equal(made.result(60), large_array(n))
    frame = client.submit(large_frame, n, pure=False).result(60)
    pd.testing.assert_frame_equal(frame, large_frame(n))


def large_array(seed):
    return np.arange(seed, seed + MIB // 8)


def large_frame(seed):
    return pd.DataFrame({"a": large_array(seed), "b": large_array(seed) / 2})


@any_function
@pytest.mark.slow
def test_any_function_of_workers_that_treats_results_may_fail(client):
    names = injectable(*RESULTS)
    with daskps.proxy_graph():
        check_each(
            client,
            names,
            lambda name: failing_elsewhere(client.run, name),
            program=results,
        )


@any_function
@pytest.mark.slow
def test_any_function_of_the_scheduler_may_fail(client, monkeypatch):
    names = injectable("daskps.scheduler.lifetimes", "daskps.scheduler.evictor")
    # As if there were little memory: the scheduler alone holds what tasks need.
    monkeypatch.setattr(Catalog, "may_keep", lambda *args, **kwargs: 0)
    with daskps.proxy_graph():
        check_each(
            client,
            names,
            lambda name: failing_elsewhere(client.run_on_scheduler, name),
        )


# Stores that do not answer


@pytest.fixture
def silent(tmp_path, client, monkeypatch):
    """A function that has some methods of a store take a number of seconds."""
    monkeypatch.setattr(patience, "ANSWER_WITHIN_SECONDS", 1)
    client.run(setattr, patience, "ANSWER_WITHIN_SECONDS", 1)

    def set_faults(**seconds):
        (tmp_path / "faults").write_text(json.dumps(seconds))

    set_faults()
    with daskps.proxy_graph(FlakyConnector(str(tmp_path))):
        yield set_faults
    set_faults()
    client.run(setattr, patience, "ANSWER_WITHIN_SECONDS", 20)
    assert eventually(lambda: not list(tmp_path.glob("object-*")), 30)


@pytest.mark.parametrize("method", ["put", "exists", "get", "evict"])
def test_a_store_that_does_not_answer(client, silent, method):
    program(client)
    silent(**{method: 3})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "A large value could not be stored")
        program(client)
    silent()


def test_a_store_that_does_not_answer_is_asked_no_more_until_it_does(client, silent):
    x = array()
    silent(put=4)
    with pytest.warns(UserWarning, match="has not answered for . s"):
        assert client.submit(np.sum, x, pure=False).result(60) == x.sum()
    # Not tried again: there is no other call of the store.
    with pytest.warns(UserWarning, match="has not answered an earlier call yet"):
        assert client.submit(np.sum, x + 1, pure=False).result(60) == (x + 1).sum()
    silent()

    def by_reference():
        with messages_sent(client) as messages, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert client.submit(np.sum, x + 2, pure=False).result(60) == (x + 2).sum()
        return graph_nbytes(messages) < MIB

    assert eventually(by_reference, 60)


@pytest.mark.slow
def test_a_store_that_does_not_answer_for_a_minute(client, tmp_path):
    with daskps.proxy_graph(FlakyConnector(str(tmp_path))):
        program(client)
        faults = dict.fromkeys(["put", "exists", "evict"], 60)
        (tmp_path / "faults").write_text(json.dumps(faults))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "A large value could not be stored")
            program(client)
        (tmp_path / "faults").write_text("{}")
    # Or the scheduler would leave them to the next one. Each call that is under way takes
    # its minute: what was put late is evicted after that.
    assert eventually(lambda: not list(tmp_path.glob("object-*")), 3 * PATIENCE)


# What is said


ENCODE = "daskps.objects.encoder.Encoder._encode"


def test_a_fault_is_logged_once_and_counted(client, caplog):
    with daskps.proxy_graph(), failing(functions("daskps")[ENCODE]):
        before = daskps.usage(client).faults
        for _ in range(2):
            client.submit(shown, array(), pure=False).result(60)
        usage = daskps.usage(client)
    said = [r.getMessage() for r in caplog.records if r.name.startswith("daskps")]
    assert len(said) == 1
    assert "numpy.ndarray" in said[0]
    assert "report" in said[0]
    assert usage.faults - before == 2
    assert "as in plain Dask" in repr(usage)


def test_faults_of_workers_are_counted(client):
    with (
        daskps.proxy_graph(),
        failing_elsewhere(client.run, "daskps.serialize.sent.to_serialized"),
    ):
        before = daskps.usage(client).faults
        assert (client.submit(array, 2 * MIB).result(60) == array()).all()
        assert eventually(lambda: daskps.usage(client).faults > before, 10)


def test_without_the_net_errors_are_seen(client):
    with (
        dask.config.set({safety_net.SETTING: False}),
        daskps.proxy_graph(),
        failing(functions("daskps")[ENCODE]),
        pytest.raises(InjectedError),
    ):
        client.submit(shown, array(), pure=False)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, SystemExit, daskps.ConfigError, daskps.StoreError]
)
def test_what_stays_an_error(client, monkeypatch, error):
    def fails(*args):
        raise error("as it is")

    monkeypatch.setattr(submission, "_in_session", fails)
    with daskps.proxy_graph(), pytest.raises(error, match="as it is"):
        client.submit(shown, array(), pure=False)


# Proxies of the user's own, as results


def makes_a_proxy(directory, nbytes):
    store = get_store("of-the-user")
    if store is None:
        store = Store("of-the-user", FlakyConnector(directory), register=True)
    return store.proxy(array(nbytes))


@pytest.mark.parametrize("threshold", [1, "1 MB"])
def test_a_task_returns_a_proxy(client, tmp_path, threshold):
    args = makes_a_proxy, str(tmp_path), MIB
    with daskps.proxy_graph(threshold=threshold):
        results = [
            client.submit(*args, pure=False).result(60),
            client.get_executor(pure=False).submit(*args).result(60),
        ]
        for result in results:
            assert type(result) is Proxy
            np.testing.assert_array_equal(result, array(MIB))
