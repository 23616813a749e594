"""Every use that daskps makes of what Dask does not document.

Checked with dask and distributed 2025.4.0 and 2026.8.0; ``tests/test_dask_private.py``
fails when one of them changes. What is used:

``distributed.Client._graph_to_futures(expr, keys, ...)``
    Where ``compute``, ``persist``, ``get``, ``submit`` and ``map`` meet, before the graph
    is pickled. Keys are fixed by then.
``distributed.Client._send_to_scheduler_safe(message)``, ``loop``
    Called on the event loop, puts a message on the connection on which graphs travel. The
    client sends graphs in the same way, so they stay in order.
``distributed.Client.scheduler_comm``
    That connection; another object if it was lost and the client has connected again.
    What is in its ``buffer`` is sent with the next message.
``distributed.scheduler.TaskState._queueable``
    Whether a task without dependencies waits on the scheduler until a thread is free.
``distributed.scheduler.TaskState.worker_restrictions``, ``host_restrictions``,
``loose_restrictions``
    Which workers may run a task; looked at whenever one is chosen for it.
``distributed.Scheduler.transitions(...)`` to ``processing``
    Has a task in the state ``no-worker`` looked at again.
``distributed.Scheduler.stimulus_queue_slots_maybe_opened(...)``
    Gives queued tasks to workers that have a free thread; Dask does not do so when a worker
    gives back a task.
``distributed.scheduler.WorkerState.actors``
    The actors that a worker has or is about to make.
``distributed.Scheduler.handle_task_erred(...)``
    A worker says that a task has failed; with what ``distributed.core.error_message`` gives.
``distributed.Worker.state.tasks``, ``TaskState.run_id``, ``batched_send(message)``
    Which run of a task this is, and the stream on which its outcome goes.
``distributed.Worker.active_keys``, names of its ``asyncio`` tasks
    Which task runs on the event loop, if that is a coroutine.
``distributed.Client._gather_remote(...)``
    Fetches results. What it returns with status "error" is fetched again.
``distributed.Client.futures``
    States of futures, by key. ``finish(type=)`` is what ``Client.scatter`` does to them.
``distributed.Scheduler.update_data(who_has=, nbytes=, client=)``,
``distributed.Worker.update_data(data=)``
    What scattering comes to. A graph that has such a key gives it a task.
``distributed.Client.rpc.serializers``, ``deserializers``
    Which families the user allows.
``distributed.Worker.rpc.deserializers``
    Which families a worker can read, when it fetches what its tasks depend on.
``dask.base.get_scheduler``
    Where ``dask.compute`` and ``dask.persist`` find a local scheduler.
``dask.multiprocessing.get(func_loads=)``, ``dask.local.get_async(loads=)``
    Called in child processes before each task, on what describes it.
``dask._expr.Expr.operands``, ``_determ_token``, ``_name``
    An expression, and the name that its tasks' keys begin with.
``dask.dataframe.dask_expr.io.io.FromPandas``
    Its operands ``npartitions``, ``sort`` and ``chunksize``; ``frame._data``, and
    ``frame._division_info``, where it keeps divisions once it has found them.
``dask.dataframe.io.io.sorted_division_locations``
    Finds them. Not called: daskps finds the same.
``HLGExpr``, ``_HLGExprSequence``, ``LLGExpr``, ``distributed.client._MapExpr``
    What arrays, bags, delayed values and futures are when they are submitted.
``HLGExpr.operand("output_keys")``, ``HighLevelGraph._toposort_layers``
    What is wanted of a graph, and its layers in order, each before those that use it.
``Layer.cull(keys, all_hlg_keys)``, ``Layer.has_legacy_tasks``
    What of a layer is needed. Whether Dask looks for keys in its tasks, as it always does in
    versions without the attribute.
``Expr.__dask_graph__``, ``Expr.__dask_annotations__``, ``convert_legacy_graph``
    What the scheduler makes of an expression (``distributed.scheduler._materialize_graph``).
``dask._task_spec.parse_input``
    How references within an argument become nodes.
``dask._task_spec.Task.__getstate__``, ``has_subgraph``
    All that makes up a task, whatever its class. Whether it is a fused one, whose
    arguments are tasks by key, the key of the last one, keys of others, and values.
``dask.array.core.load_store_chunk``
    What ``dask.array.store`` runs for each chunk.
``dask.blockwise.Blockwise.indices``, ``task``, ``io_deps``, ``blockwise_token``
    The literals of a symbolic layer, and what stands for them in its task.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, TypeAlias

import cloudpickle
import dask.base
import dask.local
import dask.multiprocessing
import dask.threaded
import distributed
import distributed.core
from dask._expr import Expr, FinalizeCompute, HLGExpr, LLGExpr, _HLGExprSequence
from dask._task_spec import (
    Alias,
    DataNode,
    GraphNode,
    Task,
    TaskRef,
    convert_legacy_graph,
    convert_legacy_task,
    parse_input,
)
from dask.blockwise import Blockwise, BlockwiseDepDict, blockwise_token
from dask.highlevelgraph import HighLevelGraph, Layer, MaterializedLayer
from distributed.client import _MapExpr
from toolz import identity

__all__ = [
    "Alias",
    "Blockwise",
    "BlockwiseDepDict",
    "DataNode",
    "Expr",
    "FinalizeCompute",
    "GraphNode",
    "HLGExpr",
    "HighLevelGraph",
    "LLGExpr",
    "Layer",
    "MaterializedLayer",
    "Task",
    "TaskRef",
    "_HLGExprSequence",
    "_MapExpr",
    "convert_legacy_task",
    "parse_input",
]

#: Called with client, expression and keys; gives the expression to submit, the one to submit
#: if that fails, and whatever has to stay alive until it is on its way.
BeforeSubmission: TypeAlias = Callable[
    [distributed.Client, Expr, Iterable[Any]], tuple[Expr, Expr, Any]
]
#: The same for a local scheduler, given the scheduler's ``get`` and the options for it;
#: gives the options to call it with, too.
BeforeLocal: TypeAlias = Callable[
    [Callable[..., Any], Expr, Iterable[Any], dict[str, Any]],
    tuple[Expr, dict[str, Any], Any],
]


def hook_clients(
    before: BeforeSubmission, failed: Callable[[Exception, Expr], None]
) -> None:
    """Call `before` whenever a client is about to submit a graph.

    Parameters
    ----------
    before
        The hook.
    failed
        Given the error and the expression if that could not be submitted, but the other
        one could. Nothing is sent before the whole expression is pickled.
    """
    original = distributed.Client._graph_to_futures

    @functools.wraps(original)
    def _graph_to_futures(
        self: distributed.Client, expr: Any, keys: Any, *args: Any, **kwargs: Any
    ) -> Any:
        # Client.recreate_task_locally passes a dict.
        if not isinstance(expr, Expr):
            return original(self, expr, keys, *args, **kwargs)
        expr, otherwise, _alive = before(self, expr, keys)
        try:
            return original(self, expr, keys, *args, **kwargs)
        except Exception as e:
            if expr is otherwise:
                raise
            # What plain Dask cannot submit either raises again.
            futures = original(self, otherwise, keys, *args, **kwargs)
            failed(e, expr)
            return futures

    distributed.Client._graph_to_futures = _graph_to_futures


def hook_gather(
    before: Callable[[distributed.Client], bool],
    failed: Callable[[distributed.Client, Exception], bool],
) -> None:
    """Call `before` when a client fetches results, and `failed` if that fails.

    Parameters
    ----------
    before
        Given the client; says whether a failure is to be told.
    failed
        Given the client and the error; says whether to fetch the results again.
    """
    original = distributed.Client._gather_remote

    @functools.wraps(original)
    async def _gather_remote(
        self: distributed.Client, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        tell = before(self)
        try:
            return await original(self, *args, **kwargs)
        except Exception as e:
            if not tell or not failed(self, e):
                raise
            # Whoever waits for this batch asks for his results again.
            return {"status": "error", "keys": []}

    distributed.Client._gather_remote = _gather_remote


def gather_with(client: distributed.Client, deserializers: list[str] | None) -> None:
    """Have results that come by way of the scheduler answered with these families.

    And nothing else: what ``Client.run`` or a method of an actor returns is kept nowhere,
    and so cannot be referred to.
    """
    scheduler = client.scheduler
    scheduler.__dict__.pop("gather", None)
    if deserializers is not None:
        gather = functools.partial(scheduler.gather, deserializers=deserializers)
        scheduler.gather = gather


def families_allowed(
    client: distributed.Client,
) -> tuple[list[str] | None, list[str] | None]:
    """The families that the user allows for writing and reading; None: Dask's own."""
    return client.rpc.serializers, client.rpc.deserializers


def gather_from_workers_with(
    worker: distributed.Worker, deserializers: list[str] | None
) -> None:
    """Have results that come from other workers answered with these families.

    None: as ever.
    """
    worker.rpc.deserializers = deserializers


def hook_scatter(scatter: Callable[..., Any]) -> None:
    """Call `scatter` with the client, Dask's own method and the arguments instead."""
    original = distributed.Client.scatter

    @functools.wraps(original)
    def scatter_after_hook(
        self: distributed.Client, data: Any, *args: Any, **kwargs: Any
    ) -> Any:
        arguments = inspect.signature(original).bind(self, data, *args, **kwargs)
        del arguments.arguments["self"], arguments.arguments["data"]
        return scatter(self, original, data, **arguments.arguments)

    distributed.Client.scatter = scatter_after_hook


def hook_local_schedulers(before: BeforeLocal, wanted: Callable[[], bool]) -> None:
    """Call `before` whenever a local scheduler is about to run a graph.

    Only ``dask.compute`` and ``dask.persist`` get the hooked function. Others ask which
    scheduler it is, and compare: Dask itself does, to choose a lock that works across
    processes (``dask.utils.get_scheduler_lock``), and xarray.

    Parameters
    ----------
    before
        The hook.
    wanted
        While this is False, Dask's own function is given out, untouched.
    """
    original = dask.base.get_scheduler
    run = {inspect.unwrap(f).__code__ for f in (dask.base.compute, dask.base.persist)}

    @functools.wraps(original)
    def get_scheduler(*args: Any, **kwargs: Any) -> Any:
        get = original(*args, **kwargs)
        client = getattr(get, "__self__", None)
        if get is None or isinstance(client, distributed.Client):
            return get
        if sys._getframe(1).f_code not in run or not wanted():
            return get

        @functools.wraps(get)
        def get_after_hook(dsk: Any, keys: Any, **kwargs: Any) -> Any:
            if isinstance(dsk, Expr):
                dsk, kwargs, _alive = before(get, dsk, keys, kwargs)
            return get(dsk, keys, **kwargs)

        if client is not None:
            # A scheduler of another kind, which Dask asks for its persist method.
            get_after_hook.__self__ = client  # type: ignore[attr-defined]
        return get_after_hook

    dask.base.get_scheduler = get_scheduler


def runs_in_threads(get: Callable[..., Any]) -> bool:
    """Whether this is the ``get`` of a scheduler whose tasks run in this process."""
    return get in (dask.threaded.get, dask.local.get_sync)


def loads_in_processes(get: Callable[..., Any], options: dict[str, Any]) -> Any:
    """How a scheduler that may run tasks in other processes unpickles there.

    Returns
    -------
    tuple of str and callable, or None
        The option of `get` that says so, and what applies if it is not changed. None for
        a scheduler that is not known.
    """
    if get is dask.multiprocessing.get:
        configured = dask.config.get("func_loads", None) or cloudpickle.loads
        return "func_loads", options.get("func_loads") or configured
    if isinstance(get, functools.partial) and get.func is dask.local.get_async:
        # An executor, which pickles by itself.
        return "loads", options.get("loads") or dask.local.identity
    return None


def writes_to_argument(function: Any) -> bool:
    """Whether this is the function of ``dask.array.store``, which writes to an argument."""
    core = sys.modules.get("dask.array.core")
    return core is not None and function is core.load_store_chunk


def finish(client: distributed.Client, key: Any, type_: type) -> None:
    """Have a future know that its value is on a worker, and of which type it is."""
    client.futures[key].finish(type=type_)


def connection(client: distributed.Client) -> Any:
    """What stands for the client's connection to the scheduler, or None if it has none."""
    return client.scheduler_comm


def send_to_scheduler(
    client: distributed.Client,
    over: Any,
    message: dict[str, Any],
    with_next: bool = False,
    done: Callable[[bool], None] | None = None,
) -> None:
    """Send a message in order with the graphs that this client submits.

    Parameters
    ----------
    over
        The connection. If the client has another one by the time, the message is
        dropped: a scheduler ends the connection at a message that it does not know.
        None: the first one, on which Dask sends what has waited for it.
    with_next
        Whether another message follows, to send them together. The client sends at once
        what it is given, but then nothing more for 10 ms: the graph would have to wait.
    done
        Called on the event loop: whether the message is on the connection, or dropped.
    """

    def send() -> None:
        current = over is None or client.scheduler_comm is over
        if over is not None and current and with_next and client.status == "running":
            over.buffer.append(message)
        elif current:
            client._send_to_scheduler_safe(message)
        if done is not None:
            done(current)

    client.loop.add_callback(send)


def do_not_queue(task: Any) -> None:
    """Have the scheduler give a task to a worker at once, even if all are busy.

    Parameters
    ----------
    task
        A ``distributed.scheduler.TaskState``.
    """
    task._queueable = False


def current_task(worker: distributed.Worker) -> Any:
    """The key of the task that runs here, coroutines included; None if there is none."""
    try:
        return worker.get_current_task()
    except (AttributeError, KeyError, ValueError):
        pass  # on the event loop, or not in a task
    try:
        running = asyncio.current_task()
    except RuntimeError:
        return None
    name = "" if running is None else running.get_name()
    keys = (key for key in list(worker.active_keys) if name == f"execute({key!r})")
    return next(keys, None)


def tell_before_outcome(
    worker: distributed.Worker, key: Any, error: Exception, message: dict[str, Any]
) -> bool:
    """Send a message to the scheduler that arrives before the outcome of a task.

    To be called while `error` is handled.

    Parameters
    ----------
    worker
        Where the task runs.
    key
        The task, which runs in this thread.
    error
        What the scheduler needs to have the task fail with it (:func:`fail`).
    message
        What else is to be said.

    Returns
    -------
    bool
        Whether it was sent: the worker has not dropped the task.
    """
    ts = worker.state.tasks.get(key)
    if ts is None:
        return False
    failure = distributed.core.error_message(error)
    failure["run_id"] = ts.run_id
    del failure["status"]
    message = {**message, "key": key, "failure": failure}
    worker.loop.add_callback(worker.batched_send, message)
    return True


def fail(
    scheduler: distributed.Scheduler,
    key: Any,
    worker: str,
    failure: dict[str, Any],
) -> None:
    """Have a task fail as if its worker had said so, retries included."""
    scheduler.handle_task_erred(
        key=key,
        worker=worker,
        stimulus_id=f"daskps-failed-{time.time()}",
        **failure,
    )


class Placement:
    """Which workers may run a task.

    Parameters
    ----------
    task
        A ``distributed.scheduler.TaskState``. As it is now, so it is again after
        :meth:`restore`.

    Attributes
    ----------
    loose
        Whether the user wrote that others may run it, too, if those are not there.
    """

    def __init__(self, task: Any):
        self.task = task
        self._workers = task.worker_restrictions
        self._hosts = task.host_restrictions
        self.loose: bool = task.loose_restrictions

    def allows(self, scheduler: distributed.Scheduler, worker: Any) -> bool:
        """Whether what the user wrote allows a ``distributed.scheduler.WorkerState``."""
        wanted = (self.task.resource_restrictions or {}).items()
        if any(worker.resources.get(name, 0) < amount for name, amount in wanted):
            return False
        hosts = {scheduler.coerce_hostname(host) for host in self._hosts or ()}
        named = bool(self._workers or hosts)
        return (
            not named or worker.address in (self._workers or ()) or worker.host in hosts
        )

    def restrict(self, addresses: Iterable[str]) -> None:
        """Allow these workers alone."""
        self.task.worker_restrictions = set(addresses)
        self.task.host_restrictions = None
        self.task.loose_restrictions = False

    def restore(self) -> None:
        """Allow what the user wrote."""
        self.task.worker_restrictions = self._workers
        self.task.host_restrictions = self._hosts
        self.task.loose_restrictions = self.loose


def leave_worker(task: Any) -> None:
    """Count a task, which is about to run elsewhere, as no actor of its worker."""
    if task.actor:
        task.processing_on.actors.discard(task)


def place_again(scheduler: distributed.Scheduler, task: Any) -> None:
    """Look for a worker again for a task that had none."""
    if task.state == "no-worker":
        scheduler.transitions(
            {task.key: "processing"}, stimulus_id=f"daskps-placed-{time.time()}"
        )


def fill_slots(scheduler: distributed.Scheduler) -> None:
    """Give queued tasks to workers that have a free thread."""
    scheduler.stimulus_queue_slots_maybe_opened(
        stimulus_id=f"daskps-returned-{time.time()}"
    )


def clone_expr(expr: Expr, **operands: Any) -> Expr:
    """A copy of an expression with some operands replaced, and the same name."""
    new = object.__new__(type(expr))
    values = list(expr.operands)
    for name, value in operands.items():
        values[type(expr)._parameters.index(name)] = value
    new.operands = values
    new._determ_token = expr._determ_token
    if "_name" in expr.__dict__:
        new.__dict__["_name"] = expr.__dict__["_name"]
    return new


def clone_sequence(expr: Expr, operands: list[Any]) -> Expr:
    """A copy of a sequence of expressions, with the same name."""
    new = clone_expr(expr)
    new.operands = operands
    return new


class LoweredExpr(LLGExpr):
    """A low-level graph, with the annotations of the expression that it came from."""

    _parameters = ["dsk", "annotations"]

    def __dask_annotations__(self) -> dict[str, dict[Any, Any]]:
        return self.operand("annotations")


def lower(expr: Expr) -> LoweredExpr:
    """What the scheduler makes of an expression, made here."""
    graph = convert_legacy_graph(expr.__dask_graph__())
    return LoweredExpr(
        graph, expr.__dask_annotations__(), _determ_token=expr._determ_token
    )


def literals(expr: Expr) -> Iterator[Any]:
    """The operands of an expression, and of all that it depends on."""
    for node in _expressions(expr):
        for operand in node.operands:
            if not _expressions_in(operand):
                # FromPandas wraps its frame.
                yield getattr(operand, "_data", operand)


def _expressions(expr: Expr) -> Iterator[Expr]:
    """An expression, and all that it depends on."""
    stack, seen = [expr], set()
    while stack:
        node = stack.pop()
        if id(node) not in seen:
            seen.add(id(node))
            yield node
            stack += chain.from_iterable(map(_expressions_in, node.operands))


def _expressions_in(operand: Any) -> list[Expr]:
    if isinstance(operand, Expr):
        return [operand]
    if isinstance(operand, list) and operand and isinstance(operand[0], Expr):
        return operand  # Fused keeps its members in a list
    return []


def set_divisions(expr: Expr, find: Callable[[Any, Any, Any], Any]) -> None:
    """Have Dask know the divisions of pandas frames, so that it need not look for them.

    Parameters
    ----------
    expr
        About to be lowered.
    find
        Given an index that is not empty, ``npartitions`` and ``chunksize``; gives what
        ``sorted_division_locations`` gives, or None.
    """
    io = sys.modules.get("dask.dataframe.dask_expr.io.io")
    if io is None:
        return
    for node in _expressions(expr):
        if type(node) is not io.FromPandas:
            continue
        npartitions, sort = node.operand("npartitions"), node.operand("sort")
        frame = node.frame
        key = npartitions, sort
        if key in frame._division_info or not len(frame._data):
            continue
        index = frame._data.index
        if sort or index.is_monotonic_increasing:
            found = find(index, npartitions, node.operand("chunksize"))
            if found is not None:
                frame._division_info[key] = found


def all_keys(graph: HighLevelGraph | Mapping[Any, Any]) -> set[Any]:
    """The keys of a graph, found without materialising symbolic layers."""
    if not isinstance(graph, HighLevelGraph):
        return set(graph)
    layers = graph.layers.values()
    return {
        key
        for layer in layers
        for key in (layer.get_output_keys() if isinstance(layer, Layer) else layer)
    }


def output_keys(expr: HLGExpr) -> Any:
    """The keys that are wanted of an expression, nested in lists."""
    keys = expr.operand("output_keys")
    if keys is None:
        raise TypeError("Dask would make all tasks to find out what is wanted")
    return keys


def needed_of_layer(
    layer: Layer, keys: set[Any], external: set[Any]
) -> Mapping[Any, set[Any]]:
    """What is needed of a layer: keys, each with the keys that it depends on.

    Parameters
    ----------
    layer
        The layer.
    keys
        What is wanted, of this layer and others.
    external
        All keys of the graph that other layers may refer to, if there are legacy tasks.
    """
    return layer.cull(set(keys), external)[1]


def clone_task(
    task: Task, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Task:
    """A copy of a task, of its own class, with another function and arguments.

    The arguments must depend on the same tasks as before.
    """
    new = object.__new__(type(task))
    new.__setstate__(task.__getstate__())
    new.func = func
    new.args = args
    # Containers keep their constructor among the keyword arguments.
    new.kwargs = {**new.kwargs, **kwargs}
    new._token = None
    new._repr = None
    return new


def clone_materialized(layer: Layer, mapping: Mapping[Any, Any]) -> MaterializedLayer:
    """A copy of a materialised layer with other tasks."""
    new = MaterializedLayer(mapping, annotations=layer.annotations)
    new.collection_annotations = layer.collection_annotations
    return new


def clone_blockwise(
    layer: Blockwise, task: Task, indices: tuple[Any, ...], io_deps: Mapping[str, Any]
) -> Blockwise:
    """A copy of a symbolic layer with other literals, still symbolic."""
    new = object.__new__(type(layer))
    new.__dict__.update(layer.__dict__)
    new.__dict__.pop("_cached_dict", None)
    new.task = task
    new.indices = indices
    new.io_deps = io_deps
    return new


def symbolic_blocks(
    layer: MaterializedLayer, name: str, numblocks: tuple[int, ...]
) -> Blockwise:
    """A symbolic layer of the same blocks.

    Parameters
    ----------
    layer
        A layer that is only data: for each block, the value or what stands for it.
    name, numblocks
        Of the layer: its keys are `name` and the block's indices.
    """
    indices = tuple(f"i{axis}" for axis in range(len(numblocks)))
    blocks = {key[1:]: value for key, value in layer.mapping.items()}
    new = Blockwise(
        output=name,
        output_indices=indices,
        task=Task(name, identity, TaskRef(blockwise_token(0)), _data_producer=True),
        indices=[(BlockwiseDepDict(blocks, numblocks), indices)],
        numblocks={},
        annotations=layer.annotations,
    )
    new.collection_annotations = layer.collection_annotations
    return new


def clone_graph(graph: HighLevelGraph, layers: Mapping[str, Any]) -> HighLevelGraph:
    """A copy of a graph with other layers of the same names."""
    return HighLevelGraph(
        layers, dependencies=graph.dependencies, key_dependencies=graph.key_dependencies
    )
