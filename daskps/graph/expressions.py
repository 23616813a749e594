"""Expressions in a form in which their tasks can be changed. Runs on the client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from dask.highlevelgraph import HighLevelGraph

from daskps.dask_private.graphs import (
    Expr,
    HLGExpr,
    LLGExpr,
    _HLGExprSequence,
    _MapExpr,
    clone_expr,
    clone_sequence,
    low_level,
    lower,
    optimized_graph,
    set_divisions,
)
from daskps.graph.divisions import find_divisions

#: A pass as Dask knew it: takes a graph and the keys that are wanted, gives a graph.
Optimization: TypeAlias = Callable[..., Any]


def prepared(expr: Expr) -> Expr:
    """An expression whose tasks can be changed.

    A dataframe, or anything else that is made of expressions, makes its tasks here rather
    than on the scheduler: only the expression knows what each task takes of its operands
    (some columns, some rows). To be called only for what holds something large.
    """
    if isinstance(expr, (_HLGExprSequence, HLGExpr, LLGExpr, _MapExpr)):
        return expr
    set_divisions(expr, find_divisions)
    return lower(expr)


def apply(optimization: Optimization, expr: Expr, keys: list[Any]) -> Expr:
    """Apply a pass as Dask did until 2025.3.1.

    The pass gets the graph of a collection, after the collection's own optimisation, and
    the collection's keys. Where there is no such graph, as for futures and dataframes, it
    gets the low-level graph.

    Parameters
    ----------
    optimization
        ``f(dsk, keys, **kwargs)``.
    expr
        What is about to be submitted.
    keys
        The keys that are wanted of it.
    """
    if isinstance(expr, _HLGExprSequence):
        operands = [
            apply(optimization, operand, operand.__dask_keys__())
            for operand in expr.operands
        ]
        return clone_sequence(expr, operands)
    if isinstance(expr, HLGExpr):
        graph = expr.operand("dsk")
        if isinstance(graph, Expr):  # HLGFinalizeCompute
            inner = apply(optimization, graph, graph.__dask_keys__())
            return clone_expr(expr, dsk=inner, low_level_optimizer=None)
        graph = optimization(optimized_graph(expr), keys)
        # The end of a computation looks for layers.
        if not isinstance(graph, HighLevelGraph):
            graph = HighLevelGraph.merge(graph)
        return clone_expr(expr, dsk=graph, low_level_optimizer=None)
    graph = optimization(expr.__dask_graph__(), keys)
    return low_level(graph, expr)
