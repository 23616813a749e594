"""Take large values out of what a client submits. Runs on the client.

Dask submits expressions, whose names the keys of the result begin with. A changed
expression keeps its name, and with it every key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
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
    literals,
    low_level,
    lower,
    optimized_graph,
    set_divisions,
)
from daskps.graph import graphs
from daskps.graph.divisions import find_divisions
from daskps.graph.graphs import GraphPass
from daskps.safety_net import fell_back

#: A pass as Dask knew it: takes a graph and the keys that are wanted, gives a graph.
Optimization: TypeAlias = Callable[..., Any]


def contents(expr: Expr) -> Iterable[Any]:
    """The nodes and literals of an expression, for the census. Materialises nothing."""
    if isinstance(expr, _HLGExprSequence):
        return chain.from_iterable(map(contents, expr.operands))
    if isinstance(expr, (HLGExpr, LLGExpr)):
        graph = expr.operand("dsk")
        if isinstance(graph, Expr):
            return contents(graph)
        return graphs.contents(graph)
    if isinstance(expr, _MapExpr):
        kwargs = expr.operand("kwargs").values()
        return chain([expr.operand("func")], *expr.operand("iterables"), kwargs)
    return literals(expr)


def replace_large(expr: Expr, graph_pass: GraphPass) -> Expr:
    """The same expression, which was :func:`prepared`, with large values replaced."""
    try:
        return _replaced(expr, graph_pass)
    except Exception as e:
        fell_back(e, "replace what is large in an expression of type", expr)
        return expr


def _replaced(expr: Expr, graph_pass: GraphPass) -> Expr:
    if isinstance(expr, _HLGExprSequence):
        operands = [replace_large(operand, graph_pass) for operand in expr.operands]
        return clone_sequence(expr, operands)
    if isinstance(expr, (HLGExpr, LLGExpr)):
        graph = expr.operand("dsk")
        if isinstance(graph, Expr):  # HLGFinalizeCompute
            return clone_expr(expr, dsk=replace_large(graph, graph_pass))
        return clone_expr(expr, dsk=graph_pass.graph(graph))
    if isinstance(expr, _MapExpr):
        iterables = [
            list(map(graph_pass.input, iterable))
            for iterable in expr.operand("iterables")
        ]
        kwargs = {k: graph_pass.input(v) for k, v in expr.operand("kwargs").items()}
        func = graph_pass.function(expr.operand("func"))
        return clone_expr(expr, func=func, iterables=iterables, kwargs=kwargs)
    return expr


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
