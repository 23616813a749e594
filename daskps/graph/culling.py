"""Which tasks of a graph are needed at all. Runs on the client.

A graph holds everything that the collection was made of, all blocks of an array of which
only a corner is wanted. Dask leaves out the rest on the scheduler, after the graph has
travelled. What is not needed is not to be stored either. Only that is decided here: layers,
keys and annotations stay as they are, for Dask's own optimisations.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from dask.core import flatten

from daskps.dask_private.graphs import (
    Blockwise,
    Expr,
    GraphNode,
    HighLevelGraph,
    HLGExpr,
    Layer,
    LLGExpr,
    MaterializedLayer,
    _HLGExprSequence,
    _MapExpr,
    has_legacy_tasks,
    needed_of_layer,
    output_keys,
    users_first,
)

logger = logging.getLogger(__name__)


def needed_keys(expr: Expr, keys: Iterable[Any]) -> set[Any] | None:
    """The keys of all tasks that are needed, and of what these depend on.

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
    if isinstance(expr, _MapExpr):
        return None  # each call is wanted
    try:
        wanted: set[Any] = set()
        layers: list[Layer] = []
        external: set[Any] = set()
        for graph, outputs in graphs_of(expr, keys):
            of_graph = _layers(graph)
            if of_graph is None:
                return None
            wanted.update(flatten(outputs))
            layers += of_graph
            if any(map(has_legacy_tasks, of_graph)):
                external |= _external_keys(graph)
        return _needed(layers, wanted, external)
    except Exception as e:  # whatever the layers of other libraries do
        logger.info("The whole graph is taken for needed: %r", e)
        return None


def graphs_of(
    expr: Expr, keys: Iterable[Any]
) -> Iterator[tuple[HighLevelGraph | Mapping[Any, Any], Any]]:
    """The graphs of an expression, each with the keys that are wanted of it."""
    if isinstance(expr, _HLGExprSequence):
        for operand in expr.operands:
            yield from graphs_of(operand, output_keys(operand))
    elif isinstance(expr, (HLGExpr, LLGExpr)):
        graph = expr.operand("dsk")
        if isinstance(graph, Expr):  # HLGFinalizeCompute
            yield from graphs_of(graph, output_keys(graph))
        else:
            yield graph, output_keys(expr) if isinstance(expr, HLGExpr) else list(keys)
    else:
        raise TypeError(f"{type(expr).__name__} has no graph")


def _layers(graph: HighLevelGraph | Mapping[Any, Any]) -> list[Layer] | None:
    """The layers of a graph, each behind those that use it; None if they are not known."""
    if isinstance(graph, HighLevelGraph):
        layers = [graph.layers[name] for name in users_first(graph)]
        return layers if all(map(_is_of_dask, layers)) else None
    if all(isinstance(task, GraphNode) for task in graph.values()):
        return [MaterializedLayer(graph)]
    return None  # only Dask knows what refers to what


def _external_keys(graph: HighLevelGraph | Mapping[Any, Any]) -> set[Any]:
    if not isinstance(graph, HighLevelGraph):
        return set(graph)
    # Of a copy, which keeps them: they would be pickled with the graph.
    keys: set[Any] = copy.copy(graph).get_all_external_keys()
    return keys


def _needed(layers: list[Layer], wanted: set[Any], external: set[Any]) -> set[Any]:
    """Follow the keys that are wanted through all layers that have them.

    Several may have a task for one key: collections that are computed together, one of
    them optimised before, say. Dask keeps the task of one of them when it merges the
    graphs, and it is not known here which. So what any of these tasks needs is needed.
    """
    owners = _Owners(layers)
    needed: set[Any] = set()
    pending: list[set[Any]] = [set() for _ in layers]

    def want(keys: Iterable[Any]) -> None:
        for key in keys:
            if key not in needed:
                needed.add(key)
                for i in owners.of(key):
                    pending[i].add(key)

    want(wanted)
    while any(pending):
        for i, layer in enumerate(layers):
            if pending[i]:
                found = needed_of_layer(layer, pending[i], external)
                pending[i] = set()
                want(found.keys())
                want(chain.from_iterable(found.values()))
                pending[i].difference_update(found)
    return needed


class _Owners:
    """Which layers have a task for a key, as positions in a list of layers."""

    def __init__(self, layers: Iterable[Layer]):
        self._by_name: dict[Any, tuple[int, ...]] = {}
        self._by_key: dict[Any, tuple[int, ...]] = {}
        for i, layer in enumerate(layers):
            if isinstance(layer, Blockwise):
                _append(self._by_name, layer.output, (i,))
            else:
                only = (i,)  # one for all keys: there may be many
                for key in layer.get_output_keys():
                    _append(self._by_key, key, only)

    def of(self, key: Any) -> tuple[int, ...]:
        name = key[0] if isinstance(key, tuple) and key else None
        return self._by_key.get(key, ()) + self._by_name.get(name, ())


def _append(lists: dict[Any, tuple[int, ...]], key: Any, item: tuple[int, ...]) -> None:
    lists[key] = lists[key] + item if key in lists else item


def _is_of_dask(layer: Any) -> bool:
    """Whether it is known what a layer makes of being culled."""
    return type(layer).__module__.partition(".")[0] == "dask"
