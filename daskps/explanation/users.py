"""Which tasks take what is a task, or a block, of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from daskps.dask_private.graphs import Blockwise, Expr, GraphNode, HighLevelGraph
from daskps.explanation.arguments import Argument, Arguments
from daskps.explanation.tasks import graphs_in
from daskps.graph.contents import items


class Users:
    """Users of tasks of one expression.

    Parameters
    ----------
    expr
        As :func:`daskps.graph.expressions.prepared` gives it.
    arguments
        Knows the arguments of tasks.
    """

    def __init__(self, expr: Expr, arguments: Arguments):
        self._graphs = graphs_in(expr)
        self._arguments = arguments
        self._by_key: dict[Any, GraphNode] | None = None

    def argument(self, layer: Any, key: Any) -> Argument | None:
        """Which argument, of one that takes it, a task is.

        Parameters
        ----------
        layer
            The name of its layer.
        key
            Of the task.
        """
        for graph in self._graphs:
            # Where tasks of a layer take it, they name it; where a layer does, its name.
            if isinstance(graph, HighLevelGraph) and _is_in(key, layer):
                found = self._in_layers(graph, layer)
                if found is not None:
                    return found
        node = self._users().get(key)
        return None if node is None else self._arguments.of_key(node, key)

    def _in_layers(self, graph: HighLevelGraph, name: str) -> Argument | None:
        for user in sorted(graph.dependents.get(name, ())):
            layer = graph.layers[user]
            if isinstance(layer, Blockwise):
                return self._arguments.of_key(layer, name)
        return None

    def _users(self) -> dict[Any, GraphNode]:
        """For each key one task that takes it; of tasks that are there already."""
        if self._by_key is None:
            self._by_key = {}
            for graph in self._graphs:
                for tasks in _materialized(graph):
                    for _, node in items(tasks):
                        for key in getattr(node, "dependencies", ()):
                            self._by_key.setdefault(key, node)
        return self._by_key


def _is_in(key: Any, layer: Any) -> bool:
    return key == layer or (type(key) is tuple and key[:1] == (layer,))


def _materialized(
    graph: HighLevelGraph | Mapping[Any, Any],
) -> list[Mapping[Any, Any]]:
    if not isinstance(graph, HighLevelGraph):
        return [graph]
    layers = (getattr(layer, "mapping", None) for layer in graph.layers.values())
    return [mapping for mapping in layers if isinstance(mapping, dict)]
