"""What an expression or a graph holds, for the census. Runs on the client.

Materialises nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

from daskps.dask_private.graphs import (
    Blockwise,
    BlockwiseDepDict,
    Expr,
    HighLevelGraph,
    HLGExpr,
    Layer,
    LLGExpr,
    MaterializedLayer,
    _HLGExprSequence,
    _MapExpr,
    literals,
)
from daskps.safety_net import fell_back


def contents(expr: Expr) -> Iterable[Any]:
    """The nodes and literals of an expression."""
    if isinstance(expr, _HLGExprSequence):
        return chain.from_iterable(map(contents, expr.operands))
    if isinstance(expr, (HLGExpr, LLGExpr)):
        graph = expr.operand("dsk")
        return contents(graph) if isinstance(graph, Expr) else graph_contents(graph)
    if isinstance(expr, _MapExpr):
        kwargs = expr.operand("kwargs").values()
        return chain([expr.operand("func")], *expr.operand("iterables"), kwargs)
    return literals(expr)


def graph_contents(graph: HighLevelGraph | Mapping[Any, Any]) -> Iterable[Any]:
    """The nodes and literals of a graph."""
    if not isinstance(graph, HighLevelGraph):
        return _contents_or_nothing(graph)
    return chain.from_iterable(map(_contents_or_nothing, graph.layers.values()))


def _contents_or_nothing(layer: Any) -> Iterable[Any]:
    try:
        return _layer_contents(layer)
    except Exception as e:
        fell_back(e, "look into a layer of type", layer)
        return ()


def _layer_contents(layer: Any) -> Iterable[Any]:
    if isinstance(layer, Blockwise):
        values = [value for value, index in layer.indices if index is None]
        deps = (d for d in layer.io_deps.values() if isinstance(d, BlockwiseDepDict))
        return chain([layer.task], values, *(_values(dep.mapping) for dep in deps))
    if isinstance(layer, MaterializedLayer):
        return _values(layer.mapping)
    return vars(layer).values() if isinstance(layer, Layer) else _values(layer)


def _values(mapping: Mapping[Any, Any]) -> Iterable[Any]:
    if type(mapping) is dict:
        return mapping.values()  # as it is: a list would double the census's time
    return [value for _, value in items(mapping)]


def items(mapping: Mapping[Any, Any]) -> Iterable[tuple[Any, Any]]:
    """Keys and values of a mapping of any library.

    Some iterate over values (dask-awkward's), or make their tasks as they are asked.
    """
    if type(mapping) is dict:
        return mapping.items()
    return [(key, mapping[key]) for key in mapping.keys()]  # noqa: SIM118
