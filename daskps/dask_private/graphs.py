"""Expressions, graphs, layers and tasks.

Checked with dask and distributed 2025.4.0 and 2026.8.0. What is used:

``loose_restrictions``
    Which workers may run a task; looked at whenever one is chosen for it.
``distributed.Worker.update_data(data=)``
    What scattering comes to. A graph that has such a key gives it a task.
``dask._expr.Expr.operands``, ``_determ_token``, ``_name``
    An expression, and the name that its tasks' keys begin with.
``dask.dataframe.dask_expr.io.io.FromPandas``
    Its operands ``npartitions``, ``sort`` and ``chunksize``; ``frame._data``, and
    ``frame._division_info``, where it keeps divisions once it has found them.
``dask.dataframe.io.io.sorted_division_locations``
    Finds them. Not called: daskps finds the same.
``HLGExpr``, ``_HLGExprSequence``, ``LLGExpr``, ``distributed.client._MapExpr``
    What arrays, bags, delayed values and futures are when they are submitted.
``_MapExpr.keys``, ``func``, ``iterables``, ``kwargs``
    Of which the scheduler makes a task for each key, as ``map_tasks`` does here.
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
``dask.blockwise.Blockwise.output``, ``output_indices``, ``output_blocks``, ``dims``
    Which tasks a symbolic layer stands for, and which blocks each of them takes.
``dask.sizeof.sizeof``, as ``_MapExpr`` asks it
    Which keyword arguments of ``Client.map`` become tasks of their own.
``dask._task_spec.NestedContainer``, ``Dict``, ``TaskRef.key``
    Containers in tasks, and references to other tasks.
``distributed.Client.submit``, ``map``
    The expressions that they make.
``dask.base.collections_to_expr``
    The expression that ``compute`` makes of collections.
``HLGExpr._optimized_dsk``
    The graph of an expression after the collection's own optimisation.
"""

from __future__ import annotations

import copy
import math
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from dask._expr import Expr, FinalizeCompute, HLGExpr, LLGExpr, _HLGExprSequence
from dask._task_spec import (
    Alias,
    DataNode,
    Dict,
    GraphNode,
    NestedContainer,
    Task,
    TaskRef,
    convert_legacy_graph,
    convert_legacy_task,
    parse_input,
)
from dask.base import collections_to_expr
from dask.blockwise import Blockwise, BlockwiseDepDict, blockwise_token
from dask.highlevelgraph import HighLevelGraph, Layer, MaterializedLayer
from dask.sizeof import sizeof
from dask.utils import funcname
from distributed.client import _MapExpr
from toolz import identity

__all__ = [
    "Alias",
    "Blockwise",
    "BlockwiseDepDict",
    "DataNode",
    "Dict",
    "Expr",
    "GraphNode",
    "HLGExpr",
    "HighLevelGraph",
    "LLGExpr",
    "Layer",
    "MaterializedLayer",
    "NestedContainer",
    "Task",
    "TaskRef",
    "_HLGExprSequence",
    "_MapExpr",
    "blockwise_token",
    "convert_legacy_task",
    "parse_input",
]


def has_nodes(mapping: Mapping[Any, Any]) -> bool:
    """Whether a dictionary is the graph within a fused task, or has nodes otherwise."""
    # By their types, in one pass in C: it may be a user's, with millions of items.
    return any(issubclass(t, GraphNode) for t in set(map(type, mapping.values())))


def writes_to_argument(function: Any) -> bool:
    """Whether this is the function of ``dask.array.store``, which writes to an argument."""
    core = sys.modules.get("dask.array.core")
    return core is not None and function is core.load_store_chunk


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
        annotations: dict[str, dict[Any, Any]] = self.operand("annotations")
        return annotations


def lower(expr: Expr) -> LoweredExpr:
    """What the scheduler makes of an expression, made here."""
    graph = convert_legacy_graph(expr.__dask_graph__())
    return LoweredExpr(
        graph, expr.__dask_annotations__(), _determ_token=expr._determ_token
    )


def map_tasks(expr: Expr) -> LoweredExpr:
    """The tasks that the scheduler makes of ``Client.map``, made here.

    But for large keyword arguments, of which Dask makes tasks with the bare keyword as a
    key: every task has all of its arguments.
    """
    func, kwargs = expr.operand("func"), expr.operand("kwargs")
    named = {name: parse_input(value) for name, value in kwargs.items()}
    calls = zip(*expr.operand("iterables"), strict=False)
    graph = {
        key: Task(key, func, *map(parse_input, args), **named)
        for key, args in zip(expr.keys, calls, strict=False)
    }
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


def frames_of(expr: Expr) -> dict[str, Any]:
    """Frames that ``dask.dataframe.from_pandas`` took, by the names of their layers."""
    io = sys.modules.get("dask.dataframe.dask_expr.io.io")
    if io is None:
        return {}
    nodes = _expressions(expr)
    return {n._name: n.frame._data for n in nodes if isinstance(n, io.FromPandas)}


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


def users_first(graph: HighLevelGraph) -> list[str]:
    """The names of a graph's layers, each behind those that use it."""
    return list(reversed(graph._toposort_layers()))


def has_legacy_tasks(layer: Layer) -> bool:
    """Whether Dask looks for keys in a layer's tasks."""
    return bool(getattr(layer, "has_legacy_tasks", True))


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
    # Of a copy: what layers keep for the next time would be pickled with them.
    needed: Mapping[Any, set[Any]] = copy.copy(layer).cull(set(keys), external)[1]
    return needed


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


def blocks_along(layer: Blockwise, axes: Iterable[int]) -> int:
    """How many blocks a symbolic layer has along some axes of its result."""
    axes = list(axes)
    if layer.output_blocks and len(axes) == len(layer.output_indices):
        return len(layer.output_blocks)
    # Of a copy, which keeps them: they would be pickled with the layer.
    dims = copy.copy(layer).dims
    return math.prod(dims[layer.output_indices[axis]] for axis in axes)


def index_of_dependency(layer: Blockwise, name: str) -> list[tuple[int, int]]:
    """Which axes of a layer's result tell apart the blocks of what it depends on.

    Returns
    -------
    list of tuple of int
        The axis of the result, and that of the dependency. Along others there is one block,
        or each task takes all of them.
    """
    index = next(i for dependency, i in layer.indices if dependency == name)
    numblocks = layer.numblocks[name]
    place = {symbol: axis for axis, symbol in enumerate(layer.output_indices)}
    return [
        (place[symbol], axis)
        for axis, symbol in enumerate(index)
        if symbol in place and numblocks[axis] > 1
    ]


#: Dask makes a task of its own of each keyword of ``Client.map`` above this size (bytes, by
#: ``dask.sizeof``), with the bare keyword as its key: the second such map fails or hangs.
MAP_KEYWORD_NBYTES = 100_000


def is_map_task(expr: Any, value: Any) -> bool:
    """Whether Dask makes a task of its own of a value that each call of a map takes."""
    if not isinstance(expr, _MapExpr):
        return False
    given = any(value is argument for argument in expr.operand("kwargs").values())
    return given and sizeof(value) > MAP_KEYWORD_NBYTES


def submitted(
    function: Callable[..., Any], args: Iterable[Any], kwargs: Mapping[str, Any]
) -> LLGExpr:
    """What ``Client.submit`` would submit, with a token of its own, as there."""
    key = funcname(function)
    named = {name: parse_input(value) for name, value in kwargs.items()}
    task = Task(key, function, *map(parse_input, args), **named)
    return LLGExpr({key: task}, _determ_token=uuid.uuid4().hex)


def mapped(
    function: Callable[..., Any],
    iterables: Iterable[Iterable[Any]],
    kwargs: Mapping[str, Any],
) -> _MapExpr:
    """What ``Client.map`` would submit."""
    return _MapExpr(
        function,
        list(map(list, iterables)),
        key=funcname(function),
        pure=False,
        annotations={},
        kwargs=dict(kwargs),
    )


def expression_of(collections: Any) -> Expr:
    """What ``dask.compute`` would submit of some collections."""
    return FinalizeCompute(collections_to_expr(collections)).optimize()


def optimized_graph(expr: HLGExpr) -> HighLevelGraph:
    """The graph of an expression, after the collection's own optimisation."""
    return expr._optimized_dsk


def low_level(graph: Mapping[Any, Any], like: Expr) -> LLGExpr:
    """An expression of a low-level graph, with the name of another one."""
    return LLGExpr(graph, _determ_token=like._determ_token)
