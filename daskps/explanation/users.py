"""Which tasks take what is a task, or a block, of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from daskps.dask_private.graphs import Blockwise, Expr, GraphNode, HighLevelGraph
from daskps.explanation.arguments import Argument, Arguments
from daskps.explanation.tasks import graphs_in
from daskps.graph.blocks import Layers
from daskps.graph.contents import items


class Taken(NamedTuple):
    """Who takes a task's result.

    Attributes
    ----------
    argument
        Which argument it is, of one of them.
    tasks
        How many tasks take it.
    """

    argument: Argument
    tasks: int

    def __str__(self) -> str:
        many = f" in {self.tasks} tasks" if self.tasks > 1 else ""
        return f"{self.argument.taken}{many}" if self.argument.taken else ""


class Users:
    """Users of tasks of one expression.

    Parameters
    ----------
    expr
        As :func:`daskps.graph.expressions.prepared` gives it.
    arguments
        Knows the arguments of tasks.
    using
        Gives how many tasks of a symbolic layer use a block of what it depends on; None: a
        literal.
    """

    def __init__(
        self,
        expr: Expr,
        arguments: Arguments,
        using: Callable[[Blockwise, tuple[str, Any] | None], int],
    ):
        self._graphs = graphs_in(expr)
        self._layers = list(map(Layers, self._graphs))
        self._arguments = arguments
        self._using = using
        self._by_key: dict[Any, GraphNode] | None = None
        self._counts: Counter[Any] = Counter()

    def taken(self, layer: Any, key: Any) -> Taken | None:
        """Who takes a task, and as which argument; None: nobody, or not known.

        Parameters
        ----------
        layer
            The name of its layer.
        key
            Of the task.
        """
        for graph, layers in zip(self._graphs, self._layers, strict=True):
            # Where tasks of a layer take it, they name it; where a layer does, its name.
            if isinstance(graph, HighLevelGraph) and _is_in(key, layer):
                found = self._in_layers(graph, layers, layer, key)
                if found is not None:
                    return found
        node = self._users().get(key)
        argument = None if node is None else self._arguments.of_key(node, key)
        return None if argument is None else Taken(argument, self._counts[key])

    def _in_layers(
        self, graph: HighLevelGraph, layers: Layers, name: str, key: Any
    ) -> Taken | None:
        block = None if key == name else (name, key[1:])
        first, tasks = None, 0
        for user in layers.users(name):
            layer = graph.layers[user]
            if not isinstance(layer, Blockwise):
                continue
            argument = self._arguments.of_key(layer, name)
            if argument is not None:
                first = first or argument
                tasks += self._using(layer, block)
        return None if first is None else Taken(first, tasks)

    def _users(self) -> dict[Any, GraphNode]:
        """For each key one task that takes it; of tasks that are there already."""
        if self._by_key is None:
            self._by_key = {}
            for graph in self._graphs:
                for tasks in _materialized(graph):
                    for _, node in items(tasks):
                        for key in getattr(node, "dependencies", ()):
                            self._by_key.setdefault(key, node)
                            self._counts[key] += 1
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
