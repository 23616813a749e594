"""What daskps uses of Dask without Dask's promise: each test fails when it changes."""

from __future__ import annotations

import ast
import gc
import inspect
import pickle
import re
import time
from pathlib import Path

import dask
import dask._task_spec as task_spec
import dask.array as da
import dask.bag as db
import dask.base
import dask.dataframe as dd
import dask.local
import dask.multiprocessing
import distributed
import numpy as np
import pandas as pd
import pytest
import zict
from certificates import Authority
from dask._expr import Expr, HLGExpr, LLGExpr, _HLGExprSequence
from dask._task_spec import Alias, DataNode, List, Task, TaskRef
from dask.blockwise import Blockwise, BlockwiseDepDict
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from dask.sizeof import sizeof
from distributed import Security, wait
from distributed.client import _MapExpr
from distributed.diagnostics.plugin import SchedulerPlugin, WorkerPlugin
from distributed.protocol.serialize import Serialize
from distributed.scheduler import _materialize_graph
from processes import PATIENCE, eventually, messages_sent

import daskps
from daskps.client.link import ClusterLink
from daskps.dask_private import (
    connections,
    dashboard,
    graphs,
    hooks,
    memory,
    scheduling,
    security,
)
from daskps.dask_private.connections import finish
from daskps.dask_private.graphs import (
    GraphNode,
    needed_of_layer,
    output_keys,
    set_divisions,
)
from daskps.references.nodes import ProxyNode, StoredValue

pytestmark = pytest.mark.core

VALUE = np.arange(1 << 17, dtype="f8")


def parameters(function):
    return list(inspect.signature(function).parameters)


# distributed.Client


def test_graph_to_futures_takes_an_expression_and_its_keys():
    names = parameters(distributed.Client._graph_to_futures)
    assert names[:3] == ["self", "expr", "keys"]
    assert hasattr(distributed.Client._graph_to_futures, "__wrapped__"), "not hooked"


def test_an_expression_is_serialised_where_its_size_is_looked_at(client, monkeypatch):
    """By a name of the module of clients, before anything is sent."""
    module = distributed.client
    assert hasattr(module.serialize, "__wrapped__"), "not hooked"
    original, seen = module.serialize, []

    def spy(x, *args, **kwargs):
        seen.append((type(x), type(x.data)))
        raise RuntimeError("seen")

    monkeypatch.setattr(module, "serialize", spy)
    with pytest.raises(RuntimeError, match="seen"):
        client.submit(sum, [1, 2], pure=False)
    assert seen[0][0] is distributed.protocol.Serialize
    assert issubclass(seen[0][1], dask._expr.Expr)
    monkeypatch.setattr(module, "serialize", original)
    assert client.submit(sum, [1, 2], pure=False).result() == 3


def test_every_path_goes_through_graph_to_futures(client, monkeypatch):
    seen = []
    original = distributed.Client._graph_to_futures

    def spy(self, expr, keys, *args, **kwargs):
        seen.append((type(expr), list(keys)))
        return original(self, expr, keys, *args, **kwargs)

    monkeypatch.setattr(distributed.Client, "_graph_to_futures", spy)
    x = da.ones(10, chunks=5)
    ways = {
        "submit": lambda: client.submit(int, 1).result(),
        "map": lambda: client.gather(client.map(int, ["1"])),
        "get": lambda: client.get({"a": 1}, "a"),
        "compute": lambda: client.compute(x.sum()).result(),
        "persist": lambda: client.persist(x),
        "dask.compute": lambda: dask.compute(x),
        "dask.persist": lambda: dask.persist(x),
    }
    for name, way in ways.items():
        seen.clear()
        way()
        assert len(seen) == 1, name
        assert issubclass(seen[0][0], Expr), name
        assert seen[0][1], name


@pytest.mark.parametrize(
    ("way", "kinds"),
    [
        (lambda c: c.submit(len, "x").result(), {LLGExpr}),
        (lambda c: c.map(len, ["x"])[0].result(), {_MapExpr}),
        (lambda c: c.get({"a": (len, "x")}, "a"), {LLGExpr}),
        (lambda c: da.ones(9, chunks=3).sum().compute(), {_HLGExprSequence}),
        (lambda c: db.from_sequence([1]).map(str).compute(), {_HLGExprSequence}),
        (lambda c: dask.delayed(len)("x").compute(), {_HLGExprSequence}),
        (
            lambda c: dask.compute(dask.delayed(len)("x"), da.ones(9).sum()),
            {_HLGExprSequence},
        ),
    ],
)
def test_what_is_submitted_is_an_expression_of_a_known_kind(
    client, monkeypatch, way, kinds
):
    seen = []
    original = distributed.Client._graph_to_futures

    def spy(self, expr, keys, *args, **kwargs):
        seen.append(expr)
        return original(self, expr, keys, *args, **kwargs)

    monkeypatch.setattr(distributed.Client, "_graph_to_futures", spy)
    way(client)
    assert [type(expr) for expr in seen] == list(kinds)
    for expr in seen:
        if isinstance(expr, _HLGExprSequence):
            assert all(isinstance(operand, HLGExpr) for operand in expr.operands)


def test_messages_arrive_in_order_hold_graph_release(client):
    """What `_send_to_scheduler_safe` takes, the scheduler handles in that order."""
    client.run_on_scheduler(record_order)
    try:
        with (
            dask.config.set({"daskps.cache-size": 0}),
            daskps.proxy_graph(),
            messages_sent(client) as messages,
        ):
            for i in range(20):
                value = VALUE + i
                future = client.submit(np.sum, value, key=f"ordered-{i}")
                future.result()
                future.release()
                del value
        # They do not go the same way as the question.
        assert eventually(lambda: len(client.run_on_scheduler(order_so_far)) >= 60)
    finally:
        order = client.run_on_scheduler(recorded_order)
    sent = [m["op"] for m in messages if m["op"] in ("daskps-hold", "update-graph")]
    assert sent == ["daskps-hold", "update-graph"] * 20
    kinds = [kind for kind, _ in order]
    assert kinds.count("hold") == kinds.count("graph") == kinds.count("release") == 20
    for i in range(20):
        hold = [n for n, kind in enumerate(kinds) if kind == "hold"][i]
        graph = [n for n, kind in enumerate(kinds) if kind == "graph"][i]
        release = [n for n, kind in enumerate(kinds) if kind == "release"][i]
        assert hold < graph < release


def record_order(dask_scheduler):
    plugin = dask_scheduler.plugins["daskps"] = dask_scheduler.plugins.get("daskps")
    if plugin is None:
        raise RuntimeError("no session was opened before")
    order = dask_scheduler.order_of_test = []
    for name, kind in (("hold", "hold"), ("release", "release")):
        handler = dask_scheduler.stream_handlers[f"daskps-{name}"]

        def note(*args, kind=kind, handler=handler, **kwargs):
            order.append((kind, None))
            return handler(*args, **kwargs)

        dask_scheduler.stream_handlers[f"daskps-{name}"] = note
    original = plugin.update_graph

    def update_graph(*args, tasks, **kwargs):
        order.append(("graph", list(tasks)))
        return original(*args, tasks=tasks, **kwargs)

    plugin.update_graph = update_graph


def order_so_far(dask_scheduler):
    return dask_scheduler.order_of_test


def recorded_order(dask_scheduler):
    plugin = dask_scheduler.plugins["daskps"]
    del plugin.update_graph
    dask_scheduler.stream_handlers["daskps-hold"] = plugin.hold
    dask_scheduler.stream_handlers["daskps-release"] = plugin.release
    return dask_scheduler.order_of_test


@pytest.fixture(autouse=True)
def plugin_is_there(request):
    if "client" in request.fixturenames:
        daskps.usage(request.getfixturevalue("client"))


def test_graphs_are_sent_over_the_clients_connection_on_its_event_loop(client):
    with messages_sent(client) as messages:
        client.submit(int, 1).result()
    assert "update-graph" in [message["op"] for message in messages]
    assert hasattr(client.scheduler_comm, "send")
    assert hasattr(client.loop, "add_callback")
    assert client._asynchronous is False


def test_results_are_fetched_by_one_coroutine_that_may_ask_for_a_second_try():
    gather_remote = inspect.unwrap(distributed.Client._gather_remote)
    assert inspect.iscoroutinefunction(gather_remote)
    source = inspect.getsource(inspect.unwrap(distributed.Client._gather))
    assert "_gather_remote(" in source
    assert 'response["status"] == "error"' in source


def test_scatter_can_be_wrapped():
    names = parameters(inspect.unwrap(distributed.Client.scatter))
    assert names[:2] == ["self", "data"]


# The scheduler's plugins


def test_hooks_of_scheduler_plugins():
    assert parameters(SchedulerPlugin.update_graph)[:2] == ["self", "scheduler"]
    assert {"client", "tasks", "kwargs"} <= set(
        parameters(SchedulerPlugin.update_graph)
    )
    names = parameters(SchedulerPlugin.transition)
    assert names[:4] == ["self", "key", "start", "finish"]
    for hook in ("restart", "remove_client", "close", "start"):
        assert hasattr(SchedulerPlugin, hook)


def test_update_graph_sees_tasks_as_they_will_run(client):
    """After the scheduler's own fusing, and before any of them runs."""
    with daskps.proxy_graph():
        x = da.from_array(VALUE, chunks=1 << 15) + 1
        y = (x * 2).persist()
        distributed.wait(y)
        found = client.run_on_scheduler(objects_by_task)
        assert len(found) == 4
        assert set(found) == set(map(str, y.__dask_keys__())), "all three are fused"
        np.testing.assert_array_equal(y.compute(), (VALUE + 1) * 2)
        del x, y


def objects_by_task(dask_scheduler):
    plugin = dask_scheduler.plugins["daskps"]
    return {str(key): len(ids) for key, ids in plugin._by_task.items()}


def test_workers_ask_each_other_with_the_families_of_their_connections():
    source = inspect.getsource(distributed.worker.get_data_from_worker)
    assert "deserializers = rpc.deserializers" in source
    assert "serializers" in parameters(distributed.Worker.get_data)
    assert "rpc=self.rpc" in inspect.getsource(distributed.Worker.gather_dep)


def test_what_workers_write_when_they_are_asked_for_results():
    worker = distributed.Worker
    assert parameters(worker.get_data) == ["self", "comm", "keys", "who", "serializers"]
    source = inspect.getsource(worker.get_data)
    assert '"data": {k: to_serialize(v) for k, v in data.items()}' in source
    assert "await comm.write(msg, serializers=serializers)" in source
    assert source.index("comm.write(") < source.index("await comm.read(")
    for method in worker.actor_execute, worker.actor_attribute:
        answer = 'return {"status": "OK", "result": to_serialize('
        assert answer in inspect.getsource(method)
        assert "comm" not in parameters(method)


def test_operations_are_given_the_connection_and_the_families_of_the_reader():
    source = inspect.getsource(distributed.core.Server._handle_comm)
    assert 'has_keyword(handler, "serializers")' in source
    assert "if _expects_comm(handler):" in source
    from distributed.actor import ProxyRPC

    assert "**self.handshake_options" in inspect.getsource(distributed.comm.tcp.TCP)
    assert "self.rpc.proxy(worker=self._address, msg=msg)" in inspect.getsource(
        ProxyRPC
    )


class Answers:
    """Answers all with what the reader can read, and the protocol."""

    async def data(self, reader, values):
        assert not any(isinstance(value, Serialize) for value in values.values())
        return {
            key: [value, tuple(reader.readable), reader.protocol]
            for key, value in values.items()
        }, None

    async def result(self, reader, value):
        return [value, tuple(reader.readable), reader.protocol]


def answer_otherwise(whether, dask_worker):
    connections.answer_with(dask_worker, Answers() if whether else None)


class Actor:
    value = 3

    def method(self):
        return 4


@pytest.fixture
def own_client(own_cluster):
    """Of a cluster whose workers may answer otherwise."""
    with own_cluster.client() as client:
        yield client


def test_workers_may_answer_with_something_else(own_client):
    client = own_client
    families = ("dask", "pickle", "msgpack", "error")
    future = client.submit(int, 2, pure=False)
    actor = client.submit(Actor, actor=True, pure=False).result()
    client.run(answer_otherwise, whether=True)
    connections.gather_with(client.scheduler, families)
    connections.call_actors_with(client.scheduler, families)
    try:
        assert future.result() == [2, families, 4]
        assert actor.method().result() == [4, families, 4]
        assert actor.value == [3, families, 4]
        connections.call_actors_with(
            client.scheduler,
            families,
            lambda result: {"op": "identity"} if result else None,
        )
        assert "id" in client.sync(
            client.scheduler.proxy,
            worker=actor._address,
            msg={"op": "actor_execute", "actor": actor.key, "function": "method"},
        )
    finally:
        connections.gather_with(client.scheduler, None)
        connections.call_actors_with(client.scheduler, None)
        client.run(answer_otherwise, whether=False)
    assert future.result() == 2
    assert actor.method().result() == 4


@pytest.fixture
def asked(client):
    """Notes the messages of one operation of the scheduler, and sends them."""
    messages = []

    async def note(plain, **message):
        messages.append(message)
        return await plain(**message)

    def ask(operation):
        connections.ask_with(client.scheduler, operation, note)
        names.append(operation)
        return messages

    names = []
    yield ask
    for name in names:
        connections.ask_with(client.scheduler, name, None)
        assert name not in client.scheduler.__dict__


def test_a_run_is_a_broadcast_of_what_is_pickled(client, asked):
    messages = asked("broadcast")
    workers = set(client.run(max, 1, 2, key=abs))
    (message,) = messages
    msg = message["msg"]
    assert msg["op"] == "run"
    assert msg["wait"] is True
    assert message["nanny"] is False
    assert message["workers"] is None
    unpickled = [pickle.loads(msg[name]) for name in ("function", "args", "kwargs")]
    assert unpickled == [max, (1, 2), {"key": abs}]
    msg = {"op": "nobody-knows-it"}
    replies = client.sync(client.scheduler.broadcast, msg=msg, workers=None)
    assert replies == dict.fromkeys(workers), "None: not known"


def test_an_operation_of_a_worker_is_handled_as_if_it_had_come(client):
    async def handle(dask_worker):
        args = {"function": pickle.dumps(abs), "args": pickle.dumps((-1,))}
        reply = await connections.handle(
            dask_worker, "run", None, serializers=None, wait=True, **args
        )
        return reply["status"], reply["result"].data

    assert set(client.run(handle).values()) == {("OK", 1)}


def test_data_sets_are_published_in_one_message_and_kept_as_they_came(client, asked):
    messages = asked("publish_put")
    client.publish_dataset([1], name="it")
    try:
        (message,) = messages
        data = message["data"]
        (data,) = data if isinstance(data, list) else [data]
        assert type(data) is Serialize
        assert data.data == [1]
        kept = client.run_on_scheduler(
            lambda dask_scheduler: {
                name: type(entry["data"]).__name__
                for name, entry in connections.published_datasets(
                    dask_scheduler
                ).items()
            }
        )
        assert kept == {"it": "Serialized"}
        messages = asked("publish_get")
        assert client.get_dataset("it") == [1]
        assert len(messages) == 2
    finally:
        client.unpublish_dataset("it")


# Local schedulers


def test_get_scheduler_is_looked_up_by_name():
    assert hasattr(dask.base.get_scheduler, "__wrapped__"), "not hooked"
    names = parameters(inspect.unwrap(dask.base.get_scheduler))
    assert names == ["get", "scheduler", "collections", "cls"]
    source = inspect.getsource(dask.base.compute) + inspect.getsource(dask.base.persist)
    assert source.count("get_scheduler(") >= 2


def test_local_schedulers_are_given_an_expression(monkeypatch):
    seen = []

    def get(dsk, keys, **kwargs):
        seen.append(dsk)
        return dask.get(dsk, keys, **kwargs)

    for collection in (da.ones(9, chunks=3).sum(), dask.delayed(len)("x")):
        collection.compute(scheduler=get)
    assert len(seen) == 2
    assert all(isinstance(dsk, Expr) for dsk in seen)


def test_child_processes_call_what_they_are_given_before_each_task():
    assert "func_loads" in parameters(dask.multiprocessing.get)
    assert "loads" in parameters(dask.local.get_async)
    assert dask.base.named_schedulers["processes"] is dask.multiprocessing.get


# Expressions


def submitted(collection):
    """The expression of a collection, as it is submitted."""
    expr = dask.base.collections_to_expr([collection])
    return expr.optimize()


@pytest.mark.parametrize(
    "make",
    [
        lambda: HLGExpr.from_collection(da.from_array(VALUE, chunks=1 << 15)),
        lambda: submitted(da.from_array(VALUE, chunks=1 << 15)),
        lambda: submitted(dask.delayed(len)(VALUE)),
        lambda: LLGExpr({"a": DataNode("a", VALUE)}),
    ],
    ids=["HLGExpr", "of an array", "of a delayed value", "LLGExpr"],
)
def test_a_cloned_expression_keeps_its_name_and_keys(make):
    expr = make()
    name, keys = expr._name, expr.__dask_keys__()
    if isinstance(expr, _HLGExprSequence):
        new = graphs.clone_sequence(expr, list(expr.operands))
    else:
        new = graphs.clone_expr(expr, dsk=expr.operand("dsk"))
    assert type(new) is type(expr)
    assert new._name == name
    assert new._determ_token == expr._determ_token
    assert new.__dask_keys__() == keys
    assert new.operands == expr.operands
    assert new.operands is not expr.operands
    loaded = pickle.loads(pickle.dumps(new))
    assert loaded._name == name, "it is pickled with its name"
    assert set(loaded.__dask_graph__()) == set(expr.__dask_graph__())


def test_a_clone_has_the_operand_that_it_was_given():
    expr = HLGExpr.from_collection(da.from_array(VALUE, chunks=-1))
    graph = HighLevelGraph({}, {})
    new = graphs.clone_expr(expr, dsk=graph)
    assert new.operand("dsk") is graph
    assert expr.operand("dsk") is not graph
    assert new.operand("output_keys") == expr.operand("output_keys")


def test_a_map_of_several_values():
    assert _MapExpr._parameters[:6] == [
        "func",
        "iterables",
        "key",
        "pure",
        "annotations",
        "kwargs",
    ]


def test_an_expression_of_a_map_keeps_its_keys():
    expr = _MapExpr(len, [["a", "b"]], "len", True, {}, {})
    keys = list(expr.keys)
    new = graphs.clone_expr(expr, iterables=[["a", "b"]], kwargs={})
    assert list(new.keys) == keys
    assert new._name == expr._name


@pytest.mark.parametrize("kwargs", [{}, {"base": 2, "more": [3]}])
def test_the_tasks_of_a_map_are_those_that_the_scheduler_makes(kwargs):
    with dask.annotate(priority=3):
        annotations = dask.get_annotations()
    iterables = [["1", "10", [1]], [4, 5, 6, 7]]
    expr = _MapExpr(int, iterables, "int", True, annotations, kwargs)
    keys = list(expr.keys)
    expected = _materialize_graph(expr=expr, validate=True)
    made = graphs.map_tasks(expr)
    graph = _materialize_graph(expr=made, validate=True)
    assert list(graph[0]) == list(expected[0]) == keys
    assert dask.base.tokenize(graph[0]) == dask.base.tokenize(expected[0])
    assert graph[1:] == expected[1:]


def test_hlg_expressions_have_the_operands_that_passes_use():
    assert HLGExpr._parameters[:2] == ["dsk", "low_level_optimizer"]
    assert "dsk" in LLGExpr._parameters
    assert hasattr(HLGExpr, "_optimized_dsk")


def test_lowering_gives_what_the_scheduler_makes_of_an_expression():
    with dask.annotate(priority=3):
        x = dask.delayed(np.sum)(VALUE)
    expr = submitted(dask.delayed(float)(x))
    low = graphs.lower(expr)
    expected = _materialize_graph(expr=expr, validate=True)
    graph = _materialize_graph(expr=low, validate=True)
    assert set(graph[0]) == set(expected[0])
    assert graph[-1] == expected[-1], "annotations"
    assert graph[-1]["priority"]
    assert low.__dask_annotations__() == expr.__dask_annotations__()
    assert all(isinstance(node, GraphNode) for node in low.__dask_graph__().values())


# Tasks


def test_clones_of_tasks():
    task = Task("k", np.add, VALUE, TaskRef("other"), dtype="f4", _data_producer=True)
    node = ProxyNode(None, StoredValue(b"", [], []))
    new = graphs.clone_task(task, np.add, (node, *task.args[1:]), task.kwargs)
    assert type(new) is Task
    assert (new.key, new.func, new.kwargs) == (task.key, task.func, task.kwargs)
    assert new.args[0] is node
    assert new.dependencies == task.dependencies == {"other"}
    assert new.data_producer
    assert task.args[0] is VALUE, "the original is as it was"
    assert dask.base.tokenize(new) != dask.base.tokenize(task)


def test_clones_of_containers_are_containers():
    container = List(VALUE, TaskRef("x"))
    arguments = (1, *container.args[1:])
    new = graphs.clone_task(container, container.func, arguments, {})
    assert type(new) is List
    assert new({"x": 2}) == [1, 2]


def test_all_that_makes_up_a_task_is_in_its_state():
    """So that `clone_task` copies it."""
    task = Task("k", len, "x")
    state = task.__getstate__()
    new = object.__new__(Task)
    new.__setstate__(state)
    slots = {s for c in Task.__mro__ for s in getattr(c, "__slots__", ())}
    for name in slots - {"_hash", "_repr", "_token", "__weakref__"}:
        assert getattr(new, name, None) == getattr(task, name, None), name


class Evaluated(GraphNode):
    """A node with no behaviour but its own."""

    __slots__ = ()

    def __init__(self, key="evaluated"):
        self.key = key
        self._dependencies = frozenset()

    def copy(self):
        return Evaluated(self.key)

    def substitute(self, subs, key=None):
        return self

    def __call__(self, values=()):
        return "evaluated"


def test_nodes_among_arguments_are_evaluated():
    assert Task("k", str.upper, Evaluated())() == "EVALUATED"
    assert Task("k", dict, a=Evaluated())() == {"a": "evaluated"}
    assert Task("k", list, List(Evaluated(), 1))() == ["evaluated", 1]


def test_nodes_survive_fusing():
    fused = Task.fuse(
        Task("a", str.upper, Evaluated()), Task("b", str.lower, TaskRef("a"))
    )
    assert fused() == "evaluated"


def test_arguments_of_a_fused_task():
    """Tasks by key, the key of the last one, then keys of others and values."""
    plain = Task("a", str.upper, "x")
    fused = Task.fuse(plain, Task("b", np.add, TaskRef("a"), TaskRef("other")))
    assert fused.has_subgraph()
    assert not plain.has_subgraph()
    tasks, last, *_ = fused.args
    assert isinstance(tasks, dict)
    assert {"a"} <= set(tasks)
    assert all(isinstance(task, GraphNode) for task in tasks.values())
    assert last == "b"
    assert fused.dependencies == {"other"}


def test_array_store_runs_one_known_function():
    target = np.zeros(4)
    stored = da.store(da.ones(4, chunks=2), target, compute=False, lock=False)
    graph = task_spec.convert_legacy_graph(dict(stored.dask))
    functions = {task.func for task in graph.values() if isinstance(task, Task)}
    assert da.core.load_store_chunk in functions
    assert graphs.writes_to_argument(da.core.load_store_chunk)
    assert not graphs.writes_to_argument(len)


def test_a_node_of_its_own_class_is_a_task_of_a_graph():
    graph = {"a": Evaluated("a"), "b": Alias("b", "a")}
    assert dask.get(graph, ["a", "b"]) == ("evaluated", "evaluated")
    converted = task_spec.convert_legacy_graph({"a": Evaluated("a"), "b": (len, "a")})
    assert isinstance(converted["a"], Evaluated)
    assert converted["b"].dependencies == {"a"}


def test_legacy_tasks_and_keys():
    """What the scheduler takes for a reference, and what for a literal."""
    converted = task_spec.convert_legacy_graph(
        {
            "a": 1,
            "list": (list, ["a", {"a": "a"}]),
            "dict": (dict, {"x": "a"}),
            "literal": {"x": "a"},
        }
    )
    assert converted["list"].dependencies == {"a"}
    assert converted["dict"].dependencies == frozenset()
    assert converted["literal"].dependencies == frozenset()


def test_references_in_arguments_become_nodes():
    assert isinstance(task_spec.parse_input([TaskRef("a")]), GraphNode)
    assert isinstance(task_spec.parse_input({"x": [Alias("a")]}), GraphNode)
    value = [1, {"x": (2, "a")}]
    assert task_spec.parse_input(value) is value


# Layers


def test_literals_of_a_symbolic_layer():
    task = Task(
        "b", max, TaskRef("__dask_blockwise__0"), TaskRef("__dask_blockwise__1")
    )
    dep = BlockwiseDepDict({(0,): VALUE, (1,): 2}, (2,))
    layer = Blockwise("b", "i", task, [(dep, "i"), (b"literal", None)], {})
    assert layer.task.func is max
    literals = [value for value, index in layer.indices if index is None]
    assert literals == [b"literal"]
    (only,) = layer.io_deps.values()
    assert only.mapping[(0,)] is VALUE


def test_a_cloned_symbolic_layer():
    x = da.ones((40, 40), chunks=(10, 10)) + 1
    layer = x.dask.layers[x.name]
    assert isinstance(layer, Blockwise)
    new = graphs.clone_blockwise(layer, layer.task, layer.indices, layer.io_deps)
    assert type(new) is type(layer)
    assert "_cached_dict" not in vars(new)
    assert set(new) == set(layer)
    assert new.get_output_keys() == layer.get_output_keys()
    assert new.annotations == layer.annotations
    assert pickle.loads(pickle.dumps(new)).get_output_keys() == layer.get_output_keys()


def test_a_cloned_symbolic_layer_does_not_remember_tasks():
    x = da.ones((40, 40), chunks=(10, 10)) + 1
    layer = x.dask.layers[x.name]
    dict(layer)
    assert "_cached_dict" in vars(layer), "where Dask keeps them"
    new = graphs.clone_blockwise(layer, layer.task, layer.indices, layer.io_deps)
    assert "_cached_dict" not in vars(new)


def test_a_cloned_materialised_layer():
    layer = MaterializedLayer({"a": 1}, annotations={"priority": 3})
    new = graphs.clone_materialized(layer, {"a": 2})
    assert dict(new) == {"a": 2}
    assert new.annotations == {"priority": 3}
    assert new.collection_annotations == layer.collection_annotations


def test_a_symbolic_layer_of_blocks_is_fused_with_what_uses_it():
    x = da.from_array(VALUE.reshape(4, -1), chunks=(2, VALUE.size // 16), name="x")
    blocks = x.dask.layers["x"]
    assert type(blocks) is MaterializedLayer
    layer = graphs.symbolic_blocks(blocks, "x", x.numblocks)
    assert set(layer) == set(blocks)
    assert layer.task.data_producer
    assert layer.task.args[0].key == dask.blockwise.blockwise_token(0)
    y = x + 1
    graph = graphs.clone_graph(y.dask, {**y.dask.layers, "x": layer})
    (optimized,) = dask.optimize(da.Array(graph, y.name, y.chunks, meta=y))
    assert set(optimized.dask.layers) == {y.name}
    for result in (optimized, da.Array(graph, "x", x.chunks, meta=x) + 1):
        expected = y.compute(scheduler="sync")
        np.testing.assert_array_equal(result.compute(scheduler="sync"), expected)


def test_a_cloned_graph():
    x = da.ones(9, chunks=3) + 1
    new = graphs.clone_graph(x.dask, dict(x.dask.layers))
    assert dict(new) == dict(x.dask)
    assert new.dependencies == x.dask.dependencies


def test_a_client_has_one_link(client, other_client):
    assert ClusterLink.of(client) is ClusterLink.of(client)
    assert ClusterLink.of(client) is not ClusterLink.of(other_client)


# What processes say to each other


def answer(word):
    return word


def note_word(client, word):
    WORDS.append(word)


def note_workers_word(worker, word):
    WORDS.append(word)


WORDS = []


def add_handlers(dask_scheduler):
    assert isinstance(dask_scheduler.handlers, dict)
    assert isinstance(dask_scheduler.stream_handlers, dict)
    connections.add_operations(dask_scheduler, {"answer_in_test": answer})
    connections.add_stream_handlers(
        dask_scheduler,
        {"word-in-test": note_word, "workers-word-in-test": note_workers_word},
    )


def remove_handlers(dask_scheduler):
    names = "answer_in_test", "word-in-test", "workers-word-in-test"
    connections.remove_operations(dask_scheduler, *names)
    return [
        name
        for name in names
        if name in {**dask_scheduler.handlers, **dask_scheduler.stream_handlers}
    ]


def words(dask_scheduler):
    return list(WORDS)


def send_word(dask_worker):
    # Puts it on the stream by batched_send, in the event loop.
    connections.send_from_worker(dask_worker, {"op": "workers-word-in-test", "word": 2})


def test_operations_and_messages_of_others(client):
    client.run_on_scheduler(add_handlers)
    assert client.sync(client.scheduler.answer_in_test, word="x") == "x"
    over = connections.connection(client)
    connections.send_to_scheduler(client, over, {"op": "word-in-test", "word": 1})
    client.run(send_word, workers=list(client.ncores())[:1])
    assert eventually(lambda: sorted(client.run_on_scheduler(words)) == [1, 2])
    assert client.run_on_scheduler(remove_handlers) == []


def test_families_are_known_by_name():
    from distributed.protocol.serialize import families

    assert connections.is_family("pickle")
    assert not connections.is_family("in-test")
    connections.register_family("in-test", len, repr)
    try:
        assert families["in-test"][:2] == (len, repr)
        connections.register_family("in-test", None, str)
        assert families["in-test"][:2] == (len, str)
    finally:
        del families["in-test"]


def test_a_client_says_when_it_has_connected_and_when_it_closes(cluster):
    """By Client._start and Client._close."""
    said = []

    class Saying(hooks.HookedClient):
        async def connected(self):
            said.append(f"connected, {self.status}")

        def closing(self):
            said.append("closing")

    with Saying(cluster.address, set_as_default=False) as client:
        assert said == ["connected, running"]
        assert client.submit(int, 1).result() == 1
    assert said == ["connected, running", "closing"]


def test_the_expression_of_collections():
    """By collections_to_expr; with one collection and several."""
    x = da.ones(4, chunks=2)
    for collections in ([x], [x, x + 1]):
        expr = graphs.expression_of(collections)
        assert isinstance(expr, Expr)
        assert dask.get(dict(expr.__dask_graph__()), expr.__dask_keys__())


def test_the_optimized_graph_of_an_expression():
    """By HLGExpr._optimized_dsk."""
    x = da.ones(4, chunks=2) + 1
    graph = graphs.optimized_graph(HLGExpr.from_collection(x))
    assert isinstance(graph, HighLevelGraph)
    assert len(graph.layers) == 1  # fused
    assert set(x.__dask_keys__()) <= set(graph)


PACKAGE = Path(daskps.__file__).parent
# Attributes of Dask's objects that it does not document, and that have names of their own.
PRIVATE_ATTRIBUTES = {
    "_graph_to_futures",
    "_gather_remote",
    "_send_to_scheduler_safe",
    "_queueable",
    "_optimized_dsk",
    "_determ_token",
    "_toposort_layers",
    "_division_info",
    "batched_send",
    "stream_handlers",
    "update_data",
    "handle_task_erred",
    "scheduler_comm",
    "_asynchronous",
    "collections_to_expr",
    "families",
    "get_process_memory",
    "memory_terminate_fraction",
    "periodic_callbacks",
    "_slow_uncached",
}


# What explanations ask


def test_a_warning_of_a_large_graph_is_made_with_the_modules_warnings():
    source = inspect.getsource(inspect.unwrap(distributed.Client._graph_to_futures))
    assert "warnings.warn(" in source
    assert hooks.LARGE_GRAPH in source
    assert isinstance(distributed.client.warnings, hooks._Warnings)


def test_blocks_of_a_symbolic_layer():
    x = da.ones((40, 60), chunks=(10, 10)) + 1
    (layer,) = (
        layer
        for name, layer in x.__dask_graph__().layers.items()
        if name == x.name and isinstance(layer, Blockwise)
    )
    assert layer.output == x.name
    assert set(layer.output_indices) == {".0", ".1"}
    assert [layer.dims[index] for index in layer.output_indices] == [4, 6]
    del layer._dims
    assert graphs.blocks_along(layer, range(2)) == 24
    assert graphs.blocks_along(layer, [1]) == 6
    assert not hasattr(layer, "_dims"), "it would be pickled with the layer"
    culled, _ = layer.cull({(x.name, 0, 0), (x.name, 3, 5)}, set())
    assert culled.output_blocks == {(0, 0), (3, 5)}
    assert graphs.blocks_along(culled, range(2)) == 2


def test_axes_of_what_a_symbolic_layer_depends_on():
    deps = {
        "ij": BlockwiseDepDict({}, (3, 4)),
        "ki": BlockwiseDepDict({}, (5, 3)),
        "j": BlockwiseDepDict({}, (1,)),
    }
    task = Task("x", len, TaskRef("__dask_blockwise__0"))
    indices = [(dep, tuple(index)) for index, dep in deps.items()]
    layer = Blockwise("x", "ij", task, indices, {})
    names = {id(dep): name for name, dep in layer.io_deps.items()}
    found = {
        index: graphs.index_of_dependency(layer, names[id(dep)])
        for index, dep in deps.items()
    }
    assert found == {"ij": [(0, 0), (1, 1)], "ki": [(0, 1)], "j": []}


def test_axes_of_another_layer_on_which_a_symbolic_layer_depends():
    x = da.from_array(np.ones((6, 4)), chunks=(2, 4))
    total = (x + 1).__dask_graph__().layers
    [layer] = [layer for layer in total.values() if isinstance(layer, Blockwise)]
    assert graphs.index_of_dependency(layer, x.name) == [(0, 0)]


def test_expressions_of_calls_are_those_that_a_client_submits(client, monkeypatch):
    seen = []
    original = distributed.Client._graph_to_futures

    def tap(self, expr, *args, **kwargs):
        seen.append(expr)
        return original(self, expr, *args, **kwargs)

    monkeypatch.setattr(distributed.Client, "_graph_to_futures", tap)
    client.submit(divmod, 7, [2, 3][0], pure=False).result()
    client.gather(client.map(pow, [1, 2], [3, 4], mod=5, pure=False))
    submit, map_ = seen
    ours = graphs.submitted(divmod, (7, 2), {})
    assert type(ours) is type(submit)
    (task,), (other,) = ours.operand("dsk").values(), submit.operand("dsk").values()
    assert (task.func, task.args, task.kwargs) == (other.func, other.args, other.kwargs)
    ours = graphs.mapped(pow, ([1, 2], [3, 4]), {"mod": 5})
    assert type(ours) is type(map_)
    for name in ("func", "iterables", "kwargs", "key"):
        assert list(np.ravel(ours.operand(name))) == list(np.ravel(map_.operand(name)))


def test_large_keywords_of_a_map_become_tasks():
    large, small = np.zeros(1 << 14), np.zeros(1 << 12)
    expr = graphs.mapped(np.add, [[1, 2]], {"out": large, "where": small})
    assert sizeof(large) > graphs.MAP_KEYWORD_NBYTES > sizeof(small)
    made = expr._layer()
    assert {key for key in made if isinstance(made[key], DataNode)} == {"out"}
    assert graphs.is_map_task(expr, large)
    assert not graphs.is_map_task(expr, small)
    assert not graphs.is_map_task(expr, np.zeros(1 << 14)), "none of its keywords"


def test_containers_and_references_in_tasks():
    task = Task("x", len, task_spec.List(TaskRef("y"), task_spec.Dict({"a": 1})))
    (items,) = task.args
    assert isinstance(items, task_spec.NestedContainer)
    reference, dictionary = items.args
    assert reference.key == "y"
    assert dictionary.args == ("a", 1), "keys and values in turn"


def test_frames_of_an_expression():
    frame = pd.DataFrame({"a": range(10), "b": 1.0})
    x = (dd.from_pandas(frame, npartitions=2)["a"] + 1).optimize()
    ((name, found),) = graphs.frames_of(x.expr).items()
    pd.testing.assert_frame_equal(found, frame)
    lowered = graphs.lower(x.expr).operand("dsk")
    inner = [getattr(node, "args", ()) for node in lowered.values()]
    assert name in str([*lowered, *inner]), "its partitions bear the name"


def test_nothing_else_uses_private_parts_of_dask():
    found = []
    for path in PACKAGE.rglob("*.py"):
        if PACKAGE / "dask_private" in path.parents:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            used = set()
            if isinstance(node, ast.ImportFrom) and node.module:
                if node.module.split(".")[0] in ("dask", "distributed"):
                    used = {node.module, *(alias.name for alias in node.names)}
            elif isinstance(node, ast.Attribute):
                used = {node.attr} & PRIVATE_ATTRIBUTES
            private = [
                name
                for name in used
                if name in PRIVATE_ATTRIBUTES
                or any(part.startswith("_") for part in name.split("."))
            ]
            found += [f"{path.relative_to(PACKAGE)}: {name}" for name in private]
    assert found == []


def test_the_list_of_what_is_used_is_complete():
    """Each name of the modules' docstrings occurs in this file."""
    with open(__file__) as f:
        here = f.read()
    for module in connections, dashboard, graphs, hooks, memory, scheduling:
        _, _, used = module.__doc__.partition("What is used:")
        listed = re.findall(r"``([^`]+)``", used)
        assert listed
        for entry in listed:
            name = re.split(r"[(=]", entry)[0].rpartition(".")[2]
            assert name in here, f"no test uses {entry}"


def may_queue(dask_scheduler, keys):
    return [dask_scheduler.tasks[key]._queueable for key in keys]


def test_what_is_in_the_buffer_is_sent_with_the_next_message(client):
    batches = []
    comm = client.scheduler_comm.comm
    write = comm.write

    def tap(batch, *args, **kwargs):
        batches.append([message["op"] for message in batch])
        return write(batch, *args, **kwargs)

    assert client.scheduler_comm.buffer == []
    with daskps.proxy_graph():
        comm.write = tap
        try:
            assert client.submit(np.sum, VALUE).result() == VALUE.sum()
        finally:
            del comm.write
    (hold,) = [batch for batch in batches if "daskps-hold" in batch]
    assert hold.index("daskps-hold") < hold.index("update-graph")


def test_a_graph_with_large_values_does_not_wait_for_what_was_sent_before(client):
    over = client.scheduler_comm
    interval, over.interval = over.interval, 10 * PATIENCE
    try:
        client._send_to_scheduler({"op": "heartbeat-client"})
        assert eventually(lambda: over.next_deadline and not over.buffer)
        with daskps.proxy_graph():
            future = client.submit(np.sum, VALUE)
            assert future.result(timeout=PATIENCE) == VALUE.sum()
    finally:
        over.interval, over.next_deadline = interval, None


def test_tasks_on_data_of_their_own_do_not_wait_for_a_free_thread(client):
    shared = client.map(np.sum, [VALUE] * 8, pure=False)
    with daskps.proxy_graph():
        own = client.map(np.sum, [VALUE + i for i in range(8)], pure=False)
        sharing = client.map(np.sum, [VALUE] * 8, pure=False)
        for futures, expected in (own, False), (sharing, True), (shared, True):
            keys = [future.key for future in futures]
            wait(futures)
            assert client.run_on_scheduler(may_queue, keys=keys) == [expected] * 8
        assert client.gather(sharing) == [VALUE.sum()] * 8
        few = client.map(np.sum, [VALUE + i for i in range(8, 10)], pure=False)
        wait(few)
        keys = [future.key for future in few]
        # There is a thread for each: Dask may place them as it likes.
        assert client.run_on_scheduler(may_queue, keys=keys) == [True] * 2
    del shared, own, sharing, futures, few


# Tasks that are given back


def key_in_thread(_):
    return scheduling.current_task(distributed.get_worker())


async def key_of_coroutine(_):
    return scheduling.current_task(distributed.get_worker())


@pytest.mark.parametrize("function", [key_in_thread, key_of_coroutine])
def test_which_task_runs(client, function):
    """Of a coroutine, the name of the ``asyncio`` task and ``active_keys`` tell."""
    for key in ("a-key", ("key", 1)):
        assert client.submit(function, 0, key=key).result() == key


def note_drops(dask_worker):
    class Noting(WorkerPlugin):
        def transition(self, key, start, finish, **kwargs):
            if start == "memory":
                assert dask_worker.state.stimulus_log
                told = scheduling.drops_replicas(dask_worker)
                dask_worker.dropped_keys.append((key, told))

    dask_worker.dropped_keys = []
    dask_worker.plugins["noting"] = Noting()


def drops(dask_worker):
    return dask_worker.dropped_keys


def test_a_worker_knows_whether_it_drops_one_of_several_replicas(own_client):
    """And not so when a key is wanted by nobody any more."""
    own_client.run(note_drops)
    future = own_client.scatter(1, broadcast=True, hash=False)
    key = future.key

    def known():
        told = own_client.run(drops).values()
        # Those of other tests may be dropped only now.
        return [drop for dropped in told for drop in dropped if drop[0] == key]

    # Dask's own memory manager does it, every two seconds.
    assert eventually(lambda: known() == [(key, True)])
    del future
    gc.collect()
    assert eventually(lambda: known().count((key, False)) == 1), known()


def test_outside_of_tasks_none_runs(client):
    def outside(dask_worker):
        return scheduling.current_task(dask_worker)

    assert set(client.run(outside).values()) == {None}


def test_what_tells_of_a_run_of_a_task():
    names = parameters(distributed.core.error_message)
    assert names[0] == "e"
    try:
        raise ValueError("no")
    except ValueError as e:
        message = distributed.core.error_message(e)
    assert set(message) == {
        "status",
        "exception",
        "traceback",
        "exception_text",
        "traceback_text",
    }
    assert hasattr(distributed.Worker, "batched_send")
    worker_state = distributed.worker_state_machine.TaskState("key", "run_id")
    assert worker_state.run_id == "run_id"


def after(gate, *values):
    return gate


def restrict(dask_scheduler, key):
    ts = dask_scheduler.tasks[key]
    dask_scheduler.placement_in_test = placement = scheduling.Placement(ts)
    allowed = [
        placement.allows(dask_scheduler, ws) for ws in dask_scheduler.workers.values()
    ]
    placement.restrict(["nowhere"])
    return allowed


def restore(dask_scheduler, key):
    ts = dask_scheduler.tasks[key]
    dask_scheduler.placement_in_test.restore()
    del dask_scheduler.placement_in_test
    scheduling.place_again(dask_scheduler, ts)
    return ts.worker_restrictions, ts.host_restrictions, ts.loose_restrictions


def state(dask_scheduler, key):
    return dask_scheduler.tasks[key].state


def test_a_task_without_a_worker_is_placed_again(client):
    """By ``transitions`` from ``no-worker`` to ``processing``, and keeps restrictions."""
    addresses = sorted(client.scheduler_info(-1)["workers"])
    for options, allowed in (
        ({}, [True, True]),
        ({"workers": addresses[:1]}, [True, False]),
        ({"workers": ["127.0.0.1"], "allow_other_workers": True}, [True, True]),
        ({"resources": {"R": 1}}, [True, True]),
        ({"resources": {"R": 2}}, [False, False]),
    ):
        gate = client.submit(time.sleep, 0.5, pure=False)
        future = client.submit(after, gate, pure=False, **options)
        key = future.key
        assert eventually(lambda key=key: client.run_on_scheduler(knows, key=key))
        assert sorted(client.run_on_scheduler(restrict, key=key)) == sorted(allowed)
        assert eventually(
            lambda key=key: client.run_on_scheduler(state, key=key) == "no-worker"
        )
        workers, hosts, loose = client.run_on_scheduler(restore, key=key)
        assert workers == ({*addresses[:1]} if options.get("workers") else None) or (
            hosts == {"127.0.0.1"}
        )
        assert loose == options.get("allow_other_workers", False)
        if any(allowed):
            assert future.result(timeout=10) is None
        del gate, future


def knows(dask_scheduler, key):
    return key in dask_scheduler.tasks


def fail(dask_scheduler, key):
    ts = dask_scheduler.tasks[key]
    try:
        raise ValueError("it failed")
    except ValueError as e:
        failure = distributed.core.error_message(e)
    del failure["status"]
    failure["run_id"] = ts.run_id
    worker = ts.processing_on.address
    scheduling.fail(dask_scheduler, key, worker, failure)
    scheduling.fill_slots(dask_scheduler)


def test_the_scheduler_can_have_a_task_fail(client):
    """By ``handle_task_erred``, as if the worker had said so."""
    future = client.submit(time.sleep, 1, pure=False)
    key = future.key
    assert eventually(
        lambda: (
            client.run_on_scheduler(knows, key=key)
            and client.run_on_scheduler(state, key=key) == "processing"
        )
    )
    client.run_on_scheduler(fail, key=key)
    with pytest.raises(ValueError, match="it failed"):
        future.result(timeout=10)


def test_queued_tasks_and_actors_of_the_scheduler():
    names = parameters(distributed.Scheduler.stimulus_queue_slots_maybe_opened)
    assert names == ["self", "stimulus_id"]
    assert "actors" in distributed.scheduler.WorkerState.__slots__


def test_what_of_a_layer_is_needed():
    array = da.from_array(np.zeros((4, 4)), chunks=1, name="blocks")[:1, :2]
    graph = HLGExpr.from_collection(array).operand("dsk")
    wanted = {(array.name, 0, 1)}
    (last, first) = reversed(graph._toposort_layers())
    needed = needed_of_layer(graph.layers[last], wanted, graph.get_all_external_keys())
    assert needed == {(array.name, 0, 1): {("blocks", 0, 1)}}
    assert first == "blocks"
    # Of versions without the attribute all layers count as legacy.
    assert getattr(graph.layers[first], "has_legacy_tasks", True) in (True, False)
    everything = graph.get_all_external_keys()
    assert graph.layers[last].cull(wanted, everything)[1] == needed
    assert output_keys(HLGExpr.from_collection(array)) == array.__dask_keys__()


def test_a_graph_makes_a_task_of_what_was_scattered(client):
    future = client.scatter({"scattered-first": [1, 2]})["scattered-first"]
    assert future.status == "finished"
    finish(client, future.key, list)
    client.get({future.key: (list, [1, 2])}, [future.key], sync=False)

    def state(dask_scheduler):
        task = dask_scheduler.tasks["scattered-first"]
        return task.run_spec is not None, task.state, task.priority is not None

    assert eventually(lambda: client.run_on_scheduler(state) == (True, "memory", True))


def test_workers_and_the_scheduler_take_data_in():
    for method, names in (
        (distributed.Worker.update_data, {"data"}),
        (distributed.Scheduler.update_data, {"who_has", "nbytes", "client"}),
    ):
        assert names <= set(parameters(method))


def test_dask_asks_for_divisions_that_it_knows(monkeypatch):
    """Fails when FromPandas keeps them elsewhere than now."""

    def walk(*args, **kwargs):
        raise AssertionError("sorted_division_locations was called")

    frame = pd.DataFrame({"x": np.arange(10.0)})
    collection = dd.from_pandas(frame, npartitions=2)
    operands = {"npartitions": 2, "sort": True, "chunksize": None}
    assert {n: collection.expr.operand(n) for n in operands} == operands
    monkeypatch.setattr(
        "dask.dataframe.dask_expr.io.io.sorted_division_locations", walk
    )
    set_divisions((collection + 1).expr, lambda *asked: ([0, 3, 9], [0, 3, 10]))
    assert collection.divisions == (0, 3, 9)
    assert collection.expr.frame._division_info
    parts = collection.to_delayed(optimize_graph=False)
    assert [len(part.compute(scheduler="sync")) for part in parts] == [3, 7]


def test_workers_watch_memory_by_way_of_their_monitor(client):
    """Both what decides about spilling and pausing, and what the scheduler is told."""
    manager = distributed.worker_memory.WorkerMemoryManager
    for function in (
        manager.memory_monitor,
        manager._spill,
        distributed.system_monitor.SystemMonitor.update,
    ):
        source = inspect.getsource(function)
        assert "get_process_memory()" in source
        assert "rss" not in source

    def told(dask_worker):
        monitor = dask_worker.monitor
        plain = type(monitor).get_process_memory(monitor)
        monitor.__dict__["get_process_memory"] = lambda: 12345
        try:
            return plain, monitor.update()["memory"], monitor.recent()["memory"]
        finally:
            del monitor.__dict__["get_process_memory"]

    for plain, updated, recent in client.run(told).values():
        assert plain > 1e7
        assert updated == recent == 12345


def test_nannies_watch_memory_by_a_periodic_callback():
    source = inspect.getsource(distributed.worker_memory.NannyMemoryManager)
    assert 'nanny.periodic_callbacks["memory_monitor"] = pc' in source
    assert "partial(self.memory_monitor, nanny)" in source
    assert "memory / self.memory_limit <= self.memory_terminate_fraction" in source
    assert "nanny.process.process.pid" in source


def test_a_nanny_takes_a_plugin_from_its_worker():
    assert {"plugin", "name"} <= set(parameters(distributed.Nanny.plugin_add))
    source = inspect.getsource(distributed.Nanny)
    assert '"plugin_add": self.plugin_add' in source
    assert "nanny" in parameters(distributed.Worker)


def test_where_a_worker_spills_to(tmp_path):
    data = distributed.spill.SpillBuffer(str(tmp_path), target=1 << 30)
    slow = data._slow_uncached
    assert isinstance(slow, zict.Func)
    calls = []
    slow.dump = lambda value: calls.append(("dump", value)) or [b"one", b"three"]
    slow.load = lambda read: calls.append(("load", bytes(read))) or "loaded"
    data["x"] = "value"
    assert data.evict() > 0
    assert data.spilled_total.disk == len(b"onethree")
    assert list(slow.d) == ["x"]
    assert data["x"] == "loaded"
    assert calls == [("dump", "value"), ("load", b"onethree")]
    assert not slow.d


def heartbeat(dask_worker):
    callback_time = dask_worker.periodic_callbacks["heartbeat"].callback_time
    return callback_time / 1000, connections.heartbeat_seconds(dask_worker)


def test_workers_say_how_often_they_are_to_be_heard(client):
    for milliseconds, seconds in client.run(heartbeat).values():
        assert milliseconds == seconds
        assert 0 < seconds < 60


# The dashboard


def serves(dask_scheduler):
    """The pattern of tasks' pages, whether daskps serves them, and their route."""
    from distributed.http.scheduler import info

    application = dask_scheduler.http_application
    (pattern,) = [route for route, handler, _ in info.routes if handler is info.Task]
    return (
        dashboard._path_of(dask_scheduler, info.Task),
        pattern,
        len(application.applications),
        dashboard.has_dashboard(dask_scheduler),
        dask_scheduler.http_server.port,
    )


def test_pages_of_tasks_are_at_one_address(client):
    path, pattern, applications, has_dashboard, _ = client.run_on_scheduler(serves)
    assert re.fullmatch(path, "/info/task/inc-1.html").group(1) == "inc-1"
    assert pattern in path
    assert (applications, has_dashboard) == (0, False), "it was started without one"


def test_a_page_of_a_task_is_rendered_with_its_key_and_has_our_place():
    from distributed.http.scheduler import info

    source = inspect.getsource(info.Task.get)
    assert "Task=key" in source
    assert parameters(info.Task.get) == ["self", "task"]
    template = Path(info.__file__).parents[1] / "templates" / "task.html"
    assert template.read_text().count('<div id="dependencies-dependents"') == 1


def test_a_description_is_put_into_a_page():
    page = b'<table></table><div id="dependencies-dependents" class="box">'
    new = dashboard._with_description(page, "<p>here</p>")
    assert new.startswith(b"<table></table><p>here</p><div id=")
    assert dashboard._with_description(page, None) == page


def test_performance_reports_import_what_saves_them_when_they_are_made():
    report = inspect.getsource(distributed.Scheduler.performance_report)
    assert "from bokeh.plotting import output_file, save" in report
    assert "tabs = Tabs(" in report
    assert "save(tabs, filename=fn, template=template)" in report
    assert parameters(distributed.Scheduler.performance_report)[1:3] == [
        "start",
        "last_count",
    ]


def test_what_makes_dashboards():
    pytest.importorskip("bokeh", reason="Bokeh is not installed")
    from distributed.dashboard.components.scheduler import BOKEH_THEME, env
    from distributed.dashboard.core import BokehApplication
    from distributed.dashboard.scheduler import template_variables

    assert BOKEH_THEME is not None
    assert env.get_template("simple.html")
    assert parameters(BokehApplication) == [
        "applications",
        "server",
        "prefix",
        "template_variables",
    ]

    class Scheduler:
        jupyter = False

    scheduler = Scheduler()
    variables = template_variables(scheduler)
    assert template_variables(scheduler) is variables
    assert "status" in variables["pages"]
    assert {"url", "name"} == set(variables["plots"][0])


def test_plots_for_jupyterlab_are_those_of_the_first_application():
    tornado = pytest.importorskip("bokeh.server.tornado", reason="there is no Bokeh")
    from distributed.http.scheduler import info

    source = inspect.getsource(info.IndividualPlots.get)
    assert "bokeh_application.app_paths" in source, "individual-plots.json"
    application = tornado.BokehTornado({"/one": lambda doc: None})
    application.applications.update({"/individual-two": None})
    assert application.app_paths == {"/one", "/individual-two"}


# Certificates


def test_a_security_has_certificates_for_each_role(authority):
    made = security_of(authority)
    for role in "scheduler", "worker", "client":
        tls = made.get_tls_config_for_role(role)
        assert tls == {
            "ca_file": authority.certificate,
            "ciphers": None,
            "cert": getattr(made, f"tls_{role}_cert"),
            "key": getattr(made, f"tls_{role}_key"),
        }
    assert (made.tls_min_version, made.tls_max_version) == (771, None)


@pytest.fixture(scope="module")
def authority():
    return Authority()


def security_of(authority):
    files = {"tls_ca_file": authority.certificate}
    for role in "scheduler", "worker", "client":
        pems = authority.sign()
        files[f"tls_{role}_cert"], files[f"tls_{role}_key"] = pems
    return Security(**files)


def test_each_process_has_the_certificate_of_its_role(authority):
    made = security_of(authority)
    with (
        distributed.LocalCluster(
            n_workers=1,
            processes=False,
            security=made,
            protocol="tls://",
            dashboard_address=None,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        worker = cluster.workers[0]
        for server, certificate in (
            (cluster.scheduler, made.tls_scheduler_cert),
            (worker, made.tls_worker_cert),
            (client, made.tls_client_cert),
        ):
            assert security.tls_of(server).certificate == certificate
        assert security.addresses(cluster.scheduler) == [cluster.scheduler_address]
        assert cluster.scheduler_address.startswith("tls://")


def test_a_gateways_security_has_one_certificate(authority):
    """Its class does not set what Dask's own has (dask-gateway 2026.3)."""

    class GatewaySecurity(Security):
        def __init__(self, tls_key, tls_cert):
            self.tls_key, self.tls_cert = tls_key, tls_cert

    temporary = Security.temporary()
    made = GatewaySecurity(temporary.tls_client_key, temporary.tls_client_cert)
    tls = security._tls(made, "client")
    assert tls.authority == tls.certificate == temporary.tls_client_cert


def test_no_certificates(client):
    with pytest.raises(daskps.ConfigError, match="tls_client_cert"):
        security.tls_of(client)
