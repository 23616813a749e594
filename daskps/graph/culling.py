"""Which tasks of a graph are needed at all. Runs on the client.

A graph holds everything that the collection was made of, all blocks of an array of which
only a corner is wanted. Dask leaves out the rest on the scheduler, after the graph has
travelled. What is not needed is not to be stored either. Only that is decided here: layers,
keys and annotations stay as they are, for Dask's own optimisations.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dask.core import flatten

from daskps.dask_private.graphs import (
    Expr,
    GraphNode,
    HighLevelGraph,
    HLGExpr,
    LLGExpr,
    _HLGExprSequence,
    has_legacy_tasks,
    needed_of_layer,
    output_keys,
    users_first,
)

logger = logging.getLogger(__name__)


def needed_keys(expr: Expr, keys: Iterable[Any]) -> set[Any] | None:
    """The keys of all tasks that are needed.

    Parameters
    ----------
    expr
        What is about to be submitted, as :func:`daskps.graph.expressions.prepared` gives
        it. To be called only for what holds something large.
    keys
        The keys that are wanted of it.

    Returns
    -------
    set or None
        None: not known. All are to be taken for needed.
    """
    try:
        found: set[Any] = set()
        # Graphs that are submitted together are merged: what one of them needs, all have.
        for graph, wanted in _graphs(expr, keys):
            needed = _needed(graph, set(flatten(wanted)))
            if needed is None:
                return None
            found |= needed
        return found
    except Exception as e:  # whatever the layers of other libraries do
        logger.info("The whole graph is taken for needed: %r", e)
        return None


def _graphs(
    expr: Expr, keys: Iterable[Any]
) -> Iterator[tuple[HighLevelGraph | Mapping[Any, Any], Any]]:
    """The graphs of an expression, each with the keys that are wanted of it."""
    if isinstance(expr, _HLGExprSequence):
        for operand in expr.operands:
            yield from _graphs(operand, output_keys(operand))
    elif isinstance(expr, (HLGExpr, LLGExpr)):
        graph = expr.operand("dsk")
        if isinstance(graph, Expr):  # HLGFinalizeCompute
            yield from _graphs(graph, output_keys(graph))
        else:
            yield graph, output_keys(expr) if isinstance(expr, HLGExpr) else list(keys)
    else:
        raise TypeError(f"{type(expr).__name__} has no graph")


def _needed(
    graph: HighLevelGraph | Mapping[Any, Any], wanted: set[Any]
) -> set[Any] | None:
    if isinstance(graph, HighLevelGraph):
        return _needed_of_layers(graph, wanted)
    if not all(isinstance(task, GraphNode) for task in graph.values()):
        return None  # only Dask knows what refers to what
    needed: set[Any] = set()
    while wanted:
        key = wanted.pop()
        if key in graph and key not in needed:
            needed.add(key)
            wanted |= graph[key].dependencies
    return needed


def _needed_of_layers(graph: HighLevelGraph, wanted: set[Any]) -> set[Any] | None:
    names = users_first(graph)
    if not all(_is_of_dask(graph.layers[name]) for name in names):
        return None
    legacy = any(map(has_legacy_tasks, graph.layers.values()))
    external = graph.get_all_external_keys() if legacy else set()
    needed: set[Any] = set()
    for name in names:
        dependencies = needed_of_layer(graph.layers[name], wanted, external)
        needed |= dependencies.keys()
        wanted = wanted.union(*dependencies.values()) - dependencies.keys()
    return needed


def _is_of_dask(layer: Any) -> bool:
    """Whether it is known what a layer makes of being culled."""
    return type(layer).__module__.partition(".")[0] == "dask"
