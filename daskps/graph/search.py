"""One search of an expression: what is large, where, and how to replace it.

Three steps, for whoever treats a graph or looks at it: a :class:`Search` finds what is
large (:class:`~daskps.graph.findings.Found`); that is stored, or not; then the replacement
that the search gave puts nodes in its place, without another search. A changed expression
keeps its name, with which the keys of its tasks begin, and with it every key. A symbolic
layer stays symbolic.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from itertools import chain
from typing import Any

from daskps.dask_private.graphs import (
    Blockwise,
    BlockwiseDepDict,
    Expr,
    GraphNode,
    HighLevelGraph,
    HLGExpr,
    Layer,
    LLGExpr,
    MaterializedLayer,
    _HLGExprSequence,
    _MapExpr,
    clone_blockwise,
    clone_expr,
    clone_graph,
    clone_materialized,
    clone_sequence,
    map_tasks,
)
from daskps.graph.blocks import Layers, as_symbolic
from daskps.graph.contents import items
from daskps.graph.findings import Findings, Found
from daskps.graph.legacy import LegacySearch
from daskps.graph.tasks import (
    Encode,
    Replacement,
    TaskSearch,
    are_same,
    changed,
    each,
    guarded,
)
from daskps.objects.pickles import Pickles
from daskps.objects.sizes import nbytes_of
from daskps.references.nodes import ProxyNode, StoredValue

# Of a task that is not needed. Reading it is an error.
_LEFT_OUT = StoredValue(b"", [], [])


class Search:
    """Finds what is large in expressions and graphs.

    Parameters
    ----------
    findings
        Where to note it: says which values are to leave the graph.
    in_process
        Whether tasks run in this process, where an array that the user gives them to
        write to is to be that very array.
    needed
        Keys of the tasks that are needed; None: all. What others hold is not stored, and
        does not travel.
    pickles
        Keeps what had to be pickled to see what it consists of.
    together
        Whether values of one task that share objects are to be stored as one. Who only
        looks need not know, and these objects are found by pickling.
    """

    _tasks: TaskSearch
    _layers: Layers
    _legacy: LegacySearch

    def __init__(
        self,
        findings: Findings,
        in_process: bool = False,
        needed: set[Any] | None = None,
        pickles: Pickles | None = None,
        together: bool = True,
    ):
        self._findings = findings
        self._needed = needed
        self._tasks = TaskSearch(findings, in_process, pickles, together)

    @property
    def found(self) -> list[Found]:
        """What was found so far, each value once."""
        return list(self._findings)

    def to_store(self, at_least: int) -> list[Any]:
        """What is to be stored, from a size (bytes) on."""
        return self._findings.to_store(at_least)

    def expression(self, expr: Expr) -> Replacement:
        """Search an expression that was prepared (:mod:`daskps.graph.expressions`)."""
        return _or_same(self._expression(expr), expr)

    def graph(self, graph: HighLevelGraph | Mapping[Any, Any]) -> Replacement:
        """Search a graph of either kind."""
        return _or_same(self._of_graph(graph), graph)

    def _expression(self, expr: Expr) -> Replacement | None:
        search = partial(self._inside, expr)
        return guarded(search, expr, "replace what is large in an expression of type")

    def _inside(self, expr: Expr) -> Replacement | None:
        if isinstance(expr, _HLGExprSequence):
            operands = each(map(self._expression, expr.operands), expr.operands)
            if operands is None:
                return None
            return lambda encode: clone_sequence(expr, operands(encode))
        if isinstance(expr, (HLGExpr, LLGExpr)):
            graph = expr.operand("dsk")
            # HLGFinalizeCompute has an expression in the graph's place.
            search = self._expression if isinstance(graph, Expr) else self._of_graph
            dsk = search(graph)
            if dsk is None:
                return None
            return lambda encode: clone_expr(expr, dsk=dsk(encode))
        return self._map(expr) if isinstance(expr, _MapExpr) else None

    def _map(self, expr: _MapExpr) -> Replacement | None:
        names = "func", "iterables", "kwargs"
        func, iterables, kwargs = map(expr.operand, names)
        tasks = self._tasks
        self._findings.enter(None, expr)
        new_func, found = tasks.noting(partial(tasks.function, func))
        new_kwargs, found_in_kwargs = tasks.noting(
            partial(changed, kwargs, lambda key, value: tasks.input(value))
        )
        columns = [
            [self._item(expr, (i, j), value) for j, value in enumerate(iterable)]
            for i, iterable in enumerate(iterables)
        ]
        if self._share([*found, *found_in_kwargs], columns):
            # What calls have in common would be read apart from what is their own.
            return self._expression(map_tasks(expr))
        items = [
            each((replace for replace, _ in column), list(iterable))
            for column, iterable in zip(columns, iterables, strict=True)
        ]
        old = [func, iterables, kwargs]
        replace = each([new_func, each(items, iterables), new_kwargs], old)
        if replace is None:
            return None
        return lambda encode: clone_expr(
            expr, **dict(zip(names, replace(encode), strict=True))
        )

    def _item(
        self, expr: _MapExpr, place: tuple[int, int], value: Any
    ) -> tuple[Replacement | None, list[Any]]:
        self._findings.enter(place, expr)
        return self._tasks.noting(partial(self._tasks.input, value))

    def _share(
        self, common: list[Any], columns: list[list[tuple[Any, list[Any]]]]
    ) -> bool:
        """Whether what one call of a map gets shares objects.

        Parameters
        ----------
        common
            What was found in the function and the keyword arguments.
        columns
            For each iterable, what was found in its items.
        """
        if self._tasks.share(common):
            return True
        calls = zip(*columns, strict=False)  # as Dask does
        own = (list(chain.from_iterable(f for _, f in call)) for call in calls)
        return any(mine and self._tasks.share(common + mine) for mine in own)

    def _of_graph(
        self, graph: HighLevelGraph | Mapping[Any, Any]
    ) -> Replacement | None:
        self._legacy = LegacySearch(self._findings, self._tasks, graph)
        if not isinstance(graph, HighLevelGraph):
            return changed(graph, self._task)
        self._layers = Layers(graph)
        layers = changed(graph.layers, self._layer)
        if layers is None:
            return None

        def replace(encode: Encode) -> HighLevelGraph:
            new = layers(encode)
            return graph if new is graph.layers else clone_graph(graph, new)

        return replace

    # Layers

    def _layer(self, name: str, layer: Any) -> Replacement | None:
        self._findings.enter_layer(name)
        layers = self._layers

        def search() -> Replacement | None:
            replace = self._in_layer(layer)
            if replace is None:
                return None

            def replace_layer(encode: Encode) -> Any:
                new = replace(encode)
                return layer if new is layer else as_symbolic(layers, name, new)

            return replace_layer

        return guarded(search, layer, "replace what is large in a layer of type")

    def _in_layer(self, layer: Any) -> Replacement | None:
        if isinstance(layer, Blockwise):
            return self._blockwise(layer)
        if isinstance(layer, MaterializedLayer):
            return self._materialized(layer)
        if not isinstance(layer, Layer):
            return changed(layer, self._task)
        # A layer that is known to hold something large, nobody knows where.
        if nbytes_of(list(vars(layer).values())) < self._findings.at_least:
            return None
        tasks = dict(items(layer))
        replace = _or_same(changed(tasks, self._task), tasks)
        return lambda encode: clone_materialized(layer, replace(encode))

    def _materialized(self, layer: MaterializedLayer) -> Replacement | None:
        tasks = changed(layer.mapping, self._task)
        if tasks is None:
            return None

        def replace(encode: Encode) -> MaterializedLayer:
            new = tasks(encode)
            return layer if new is layer.mapping else clone_materialized(layer, new)

        return replace

    def _blockwise(self, layer: Blockwise) -> Replacement | None:
        if self._tasks.stays(layer.task):
            return None
        self._findings.enter(None, layer)
        literals = [value for value, _ in layer.indices]
        deps = list(layer.io_deps.values())
        old = [[layer.task, *literals], deps]

        def in_task() -> Replacement | None:
            return each(
                [
                    self._tasks.node(layer.task),
                    *(
                        self._tasks.argument(value) if index is None else None
                        for value, index in layer.indices
                    ),
                ],
                old[0],
            )

        replace = each(
            [
                self._tasks.task(in_task),
                each((self._io_dep(layer, name) for name in layer.io_deps), deps),
            ],
            old,
        )
        if replace is None:
            return None

        def replace_layer(encode: Encode) -> Blockwise:
            (task, *values), new_deps = replace(encode)
            if are_same([task, *values, *new_deps], [*old[0], *deps]):
                return layer
            indices = tuple(
                (value, index)
                for value, (_, index) in zip(values, layer.indices, strict=True)
            )
            io_deps = dict(zip(layer.io_deps, new_deps, strict=True))
            return clone_blockwise(layer, task, indices, io_deps)

        return replace_layer

    def _io_dep(self, layer: Blockwise, name: str) -> Replacement | None:
        dep = layer.io_deps[name]
        if not isinstance(dep, BlockwiseDepDict):
            return None

        def search_block(block: Any, value: Any) -> Replacement | None:
            self._findings.enter((name, block), layer)
            return self._tasks.argument(value)

        mapping = changed(dep.mapping, search_block)
        if mapping is None:
            return None

        def replace(encode: Encode) -> Any:
            new = mapping(encode)
            if new is dep.mapping:
                return dep
            clone = copy.copy(dep)
            clone.mapping = new
            return clone

        return replace

    # Tasks

    def _task(self, key: Any, task: Any) -> Replacement | None:
        if self._needed is None or key in self._needed:
            inside = partial(self._needed_task, key, task)
            search = partial(self._tasks.task, inside)
            return guarded(search, task, "replace what is large in a task of type")
        # The key stays, so that the layer is what it was to Dask, which will leave it out.
        if self._findings.nbytes(task) < self._findings.at_least:
            return None
        return lambda encode: ProxyNode(key, _LEFT_OUT)

    def _needed_task(self, key: Any, task: Any) -> Replacement | None:
        self._findings.enter(key, task)
        if isinstance(task, GraphNode):
            return self._tasks.node(task)
        return self._legacy.task(key, task)


def _or_same(replacement: Replacement | None, thing: Any) -> Replacement:
    return (lambda encode: thing) if replacement is None else replacement
