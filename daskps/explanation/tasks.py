"""The graphs of an expression, and how many tasks these have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from daskps.dask_private.graphs import (
    Blockwise,
    Expr,
    HighLevelGraph,
    _MapExpr,
    blocks_along,
)
from daskps.graph.culling import graphs_of


def graphs_in(expr: Expr) -> list[HighLevelGraph | Mapping[Any, Any]]:
    """The graphs of an expression, as far as they are known."""
    try:
        return [graph for graph, _ in graphs_of(expr, ())]
    except TypeError:  # of another library, or Dask cannot say what is wanted
        return []


def count_tasks(expr: Expr, needed: set[Any] | None) -> int:
    """Tasks of an expression, those of symbolic layers included.

    Parameters
    ----------
    expr
        As :func:`daskps.graph.expressions.prepared` gives it.
    needed
        Keys of those that are needed; None: all.
    """
    if isinstance(expr, _MapExpr):
        return len(list(expr.keys))
    if needed is not None:
        return len(needed)
    return sum(map(_count, graphs_in(expr)))


def _count(graph: Any) -> int:
    if not isinstance(graph, HighLevelGraph):
        return len(graph)
    return sum(map(_count_layer, graph.layers.values()))


def _count_layer(layer: Any) -> int:
    if isinstance(layer, Blockwise):
        return blocks_along(layer, range(len(layer.output_indices)))
    return len(layer)
