"""Take large values out of tasks and layers. Runs on the client.

What is changed is copied, what is not stays the same object; keys, annotations and
dependencies stay as they are. A symbolic layer stays symbolic.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any

from dask.utils import funcname
from distributed.utils import iscoroutinefunction

from daskps.dask_private.graphs import (
    Alias,
    Blockwise,
    BlockwiseDepDict,
    DataNode,
    GraphNode,
    HighLevelGraph,
    Layer,
    MaterializedLayer,
    Task,
    TaskRef,
    all_keys,
    clone_blockwise,
    clone_graph,
    clone_materialized,
    clone_task,
    convert_legacy_task,
    parse_input,
    symbolic_blocks,
    writes_to_argument,
)
from daskps.objects.encoder import ValueEncoder
from daskps.objects.sizes import FREE, nbytes_of
from daskps.references.nodes import (
    ProxyFunction,
    ProxyNode,
    SharingFunction,
    StoredValue,
    children,
)
from daskps.references.proxies import is_proxy
from daskps.safety_net import fell_back

# Characters. A longer string in a legacy graph is data, although it could be a key.
LONGEST_KEY = 1 << 12
# Dask looks for keys and tasks in these, and in what is derived from them.
_CONTAINERS = (list, tuple, set, frozenset)


def contents(graph: HighLevelGraph | Mapping[Any, Any]) -> Iterable[Any]:
    """The nodes and literals of a graph, for the census. Materialises nothing."""
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
        literals = [value for value, index in layer.indices if index is None]
        deps = (d for d in layer.io_deps.values() if isinstance(d, BlockwiseDepDict))
        return chain([layer.task], literals, *(_values(dep.mapping) for dep in deps))
    if isinstance(layer, MaterializedLayer):
        return _values(layer.mapping)
    return vars(layer).values() if isinstance(layer, Layer) else _values(layer)


def _values(mapping: Mapping[Any, Any]) -> Iterable[Any]:
    if type(mapping) is dict:
        return mapping.values()  # as it is: a list would double the census's time
    return [value for _, value in _items(mapping)]


def _items(mapping: Mapping[Any, Any]) -> Iterable[tuple[Any, Any]]:
    """Keys and values of a mapping of any library.

    Some iterate over values (dask-awkward's), or make their tasks as they are asked.
    """
    if type(mapping) is dict:
        return mapping.items()
    return [(key, mapping[key]) for key in mapping.keys()]  # noqa: SIM118


class GraphPass:
    """Replaces the large values of a graph by proxy nodes.

    Parameters
    ----------
    encoder
        Stores them.
    in_process
        Whether tasks run in this process, where an array that the user gives them to
        write to is to be that very array.
    sizes
        Sizes of values by id, with the value, which another pass over the same graph has
        found.
    needed
        Keys of the tasks that are needed; None: all. What others hold is not stored, and
        does not travel.

    Attributes
    ----------
    where
        The layer or task that the pass is at.
    sizes
        What this pass has found, too.
    """

    where: Any
    sizes: dict[int, tuple[Any, int]]
    _encoder: ValueEncoder
    _functions: dict[int, tuple[Any, Any]]
    _graph: HighLevelGraph | Mapping[Any, Any]
    _keys: set[Any] | None

    def __init__(
        self,
        encoder: ValueEncoder,
        in_process: bool = False,
        sizes: dict[int, tuple[Any, int]] | None = None,
        needed: set[Any] | None = None,
    ):
        self.where = ""
        self._needed = needed
        self.sizes = {} if sizes is None else sizes
        self._in_process = in_process
        self._encoder = encoder
        self._functions = {}
        self._graph, self._keys = {}, None

    def graph(
        self, graph: HighLevelGraph | Mapping[Any, Any]
    ) -> HighLevelGraph | Mapping[Any, Any]:
        """A graph of either kind."""
        self._graph, self._keys = graph, None
        if not isinstance(graph, HighLevelGraph):
            new = {}
            for key, task in _items(graph):
                self.where = key
                new[key] = self._task_or_nothing(key, task)
            return new
        layers = {}
        for name, layer in graph.layers.items():
            self.where = name
            layers[name] = self._layer(name, layer)
        if all(layers[name] is layer for name, layer in graph.layers.items()):
            return graph
        return clone_graph(graph, layers)

    def argument(self, value: Any) -> Any:
        """An argument of a task: a node, a reference to a task, or a literal."""
        if not is_proxy(value) and isinstance(value, GraphNode):
            return self._node(value)
        if not is_proxy(value) and isinstance(value, TaskRef):
            return value
        return self._literal(None, value, otherwise=value)

    def input(self, value: Any) -> Any:
        """An argument as the user gave it, perhaps with futures in it."""
        if is_proxy(value):
            return self.argument(value)
        try:
            # Dask does this on the scheduler, where what is stored cannot be searched.
            parsed = parse_input(value)
            argument = self.argument(parsed)
        except Exception as e:
            fell_back(e, "replace what is large in", value)
            return value
        return value if argument is parsed else argument

    def function(self, function: Any) -> Any:
        """A task's function, which may carry a large value."""
        if id(function) not in self._functions:
            try:
                new = self._function(function)
            except Exception as e:
                fell_back(e, "store a function of type", function)
                new = function
            # The function is kept, so that its id stays its own.
            self._functions[id(function)] = function, new
        return self._functions[id(function)][1]

    def _function(self, function: Any) -> Any:
        if iscoroutinefunction(function):
            return function  # Dask looks at it to know how to run it
        if nbytes_of(function) < self._encoder.at_least:
            return function
        stored = self._encoder.encode(function)
        return function if stored is None else ProxyFunction(stored, funcname(function))

    def _tasks(self, tasks: Mapping[Any, Any]) -> Mapping[Any, Any]:
        return _changed(tasks, self._task)

    def _tasks_of_layer(self, tasks: Mapping[Any, Any]) -> Mapping[Any, Any]:
        return _changed(tasks, self._task_or_nothing)

    def _task_or_nothing(self, key: Any, task: Any) -> Any:
        if self._needed is None or key in self._needed:
            return self._task(key, task)
        # The key stays, so that the layer is what it was to Dask, which will leave it out.
        small = self._nbytes(task) < self._encoder.at_least
        return task if small else ProxyNode(key, _LEFT_OUT)

    def _task(self, key: Any, task: Any) -> Any:
        try:
            if isinstance(task, GraphNode):
                return self._node(task)
            return self._legacy(key, task)
        except Exception as e:
            fell_back(e, "replace what is large in a task of type", task)
            return task

    def _node(self, node: GraphNode) -> GraphNode:
        if isinstance(node, DataNode):
            return self._literal(node.key, node.value, otherwise=node)
        if not isinstance(node, Task) or self._stays(node):
            return node
        func = self.function(node.func)
        args = self._arguments(node)
        kwargs = {k: self.argument(v) for k, v in node.kwargs.items()}
        same = (
            func is node.func
            and all(map(_is, args, node.args))
            and all(kwargs[k] is v for k, v in node.kwargs.items())
        )
        return node if same else clone_task(node, *_shared(func, args, kwargs))

    def _arguments(self, task: Task) -> tuple[Any, ...]:
        if not task.has_subgraph():
            return tuple(map(self._within_task, task.args))
        # Dask's own optimisations look for tasks by these keys.
        graph, *its_keys = task.args[:3]
        return (self._tasks(graph), *its_keys, *map(self.argument, task.args[3:]))

    def _stays(self, task: Any) -> bool:
        """Whether a task, or one within it, must get the very objects that it was given."""
        stack = [task] if self._in_process else []
        while stack:
            node = stack.pop()
            if writes_to_argument(node):
                return True
            stack.extend(children(node))
        return False

    def _within_task(self, arg: Any) -> Any:
        # The graph within a fused task.
        if type(arg) is dict and any(isinstance(v, GraphNode) for v in arg.values()):
            return self._tasks(arg)
        return self.argument(arg)

    def _literal(
        self,
        key: Any,
        value: Any,
        otherwise: Any,
        unless: Callable[[Any], bool] | None = None,
    ) -> Any:
        if not is_proxy(value) and self._nbytes(value) < self._encoder.at_least:
            return otherwise
        if unless is not None and unless(value):
            return otherwise
        stored = self._encoder.encode(value)
        return otherwise if stored is None else ProxyNode(key, stored)

    def _nbytes(self, value: Any) -> int:
        if type(value) in FREE:
            return 0
        if id(value) not in self.sizes:
            self.sizes[id(value)] = value, nbytes_of(value)
        return self.sizes[id(value)][1]

    def _legacy(self, key: Any, task: Any) -> Any:
        """A task as a tuple, or a value, as Dask's graphs were before 2024.

        Dask converts these on the scheduler, once it knows all keys. Strings, numbers
        and tuples may be keys, and so may what is in a list, a tuple or a set: only what
        cannot be a key is replaced.
        """
        if type(task) is tuple and task and callable(task[0]):
            arguments = tuple(map(self._legacy_argument, task[1:]))
            func, arguments, _ = _shared(self.function(task[0]), arguments, {})
            new = (func, *arguments)
            return new if not all(map(_is, new, task)) else task
        if isinstance(task, GraphNode):
            return self._node(task)
        if isinstance(task, _CONTAINERS):
            whole = self._literal(key, task, otherwise=None, unless=self._refers)
            if whole is not None:
                return whole
            if self._is_key(task) or type(task) not in _CONTAINERS:
                return task  # only Dask knows how to make another of a derived type
            old = list(task)
            items = [self._legacy(None, item) for item in old]
            if all(map(_is, items, old)):
                return task
            if type(task) is tuple:
                return (tuple, items)  # as it is, it could look like a task
            return type(task)(items)
        if isinstance(task, TaskRef) or (
            isinstance(task, str) and len(task) < LONGEST_KEY
        ):
            return task
        return self._literal(key, task, otherwise=task)

    def _refers(self, value: Any) -> bool:
        """Whether Dask would find keys or tasks in a container of a legacy graph."""
        if self._keys is None:
            self._keys = all_keys(self._graph)
        converted = convert_legacy_task(None, value, self._keys)
        if not isinstance(converted, GraphNode):
            return False
        if isinstance(converted, Alias) or not isinstance(value, _CONTAINERS):
            return True
        if type(value) is tuple and callable(value[0]):
            return True
        # Dask makes a task of every namedtuple.
        return any(map(self._refers, value))

    def _is_key(self, value: Any) -> bool:
        """Whether a container of a legacy graph is itself the key of a task."""
        return type(value) is tuple and isinstance(
            convert_legacy_task(None, value, self._keys or ()), Alias
        )

    def _legacy_argument(self, arg: Any) -> Any:
        # Dask makes a node of a dictionary, if it is an argument, and looks for
        # references in its values.
        if not isinstance(arg, dict):
            return self._legacy(None, arg)
        new = {k: self.input(v) for k, v in arg.items()}
        return new if not all(map(_is, new.values(), arg.values())) else arg

    def _layer(self, name: str, layer: Any) -> Any:
        """A layer of the graph; the same one if nothing in it is large."""
        try:
            new = self._replaced(layer)
            return layer if new is layer else _symbolic(self._graph, name, new)
        except Exception as e:
            fell_back(e, "replace what is large in a layer of type", layer)
            return layer

    def _replaced(self, layer: Any) -> Any:
        if isinstance(layer, Blockwise):
            return self._blockwise(layer)
        if isinstance(layer, MaterializedLayer):
            mapping = self._tasks_of_layer(layer.mapping)
            same = mapping is layer.mapping
            return layer if same else clone_materialized(layer, mapping)
        if not isinstance(layer, Layer):
            return self._tasks_of_layer(layer)
        # A layer that is known to hold something large, nobody knows where.
        if nbytes_of(list(vars(layer).values())) >= self._encoder.at_least:
            return clone_materialized(layer, self._tasks_of_layer(dict(_items(layer))))
        return layer

    def _blockwise(self, layer: Blockwise) -> Blockwise:
        if self._stays(layer.task):
            return layer
        task = self._node(layer.task)
        indices = tuple(
            (value if index is not None else self.argument(value), index)
            for value, index in layer.indices
        )
        io_deps = {name: self._io_dep(dep) for name, dep in layer.io_deps.items()}
        same = (
            task is layer.task
            and all(
                new[0] is old[0]
                for new, old in zip(indices, layer.indices, strict=True)
            )
            and all(io_deps[name] is dep for name, dep in layer.io_deps.items())
        )
        return layer if same else clone_blockwise(layer, task, indices, io_deps)

    def _io_dep(self, dep: Any) -> Any:
        if not isinstance(dep, BlockwiseDepDict):
            return dep
        old = dict(_items(dep.mapping))
        mapping = {block: self.argument(value) for block, value in old.items()}
        if all(mapping[block] is value for block, value in old.items()):
            return dep
        dep = copy.copy(dep)
        dep.mapping = mapping
        return dep


def _changed(
    tasks: Mapping[Any, Any], change: Callable[[Any, Any], Any]
) -> Mapping[Any, Any]:
    """Tasks, each changed given its key; the same mapping if none is another."""
    old = dict(_items(tasks))
    new = {key: change(key, task) for key, task in old.items()}
    return new if any(new[k] is not t for k, t in old.items()) else tasks


def _symbolic(graph: Any, name: str, layer: Any) -> Any:
    """A layer of stored blocks in a form that Dask fuses with what uses them, if it can.

    Dask fuses materialised tasks too, on the scheduler, but leaves a task behind for each
    that only gives the result another name.
    """
    users = graph.dependents[name]
    if type(layer) is not MaterializedLayer or len(users) != 1:
        return layer
    (user,) = users
    if not isinstance(graph.layers[user], Blockwise):
        return layer
    numblocks = _numblocks(name, layer.mapping)
    return layer if numblocks is None else symbolic_blocks(layer, name, numblocks)


def _numblocks(name: str, mapping: Mapping[Any, Any]) -> tuple[int, ...] | None:
    """Blocks along each axis, if a layer is data and nothing else."""
    if not all(isinstance(node, (ProxyNode, DataNode)) for node in mapping.values()):
        return None
    for key in mapping:
        if type(key) is not tuple or key[0] != name:
            return None
    blocks = [key[1:] for key in mapping]
    if len(set(map(len, blocks))) != 1 or not all(
        type(index) is int for block in blocks for index in block
    ):
        return None
    numblocks = tuple(max(indices) + 1 for indices in zip(*blocks, strict=True))
    return numblocks if math.prod(numblocks) == len(blocks) else None


def _shared(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Function and arguments such that what was one object is one for the function."""
    places: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
    first: dict[int, int | str] = {}
    same: dict[int | str, int | str] = {}
    for place, argument in places:
        if isinstance(argument, ProxyNode):
            at = first.setdefault(id(argument.value), place)
            if at != place:
                same[place] = at
    if not same or iscoroutinefunction(func):
        return func, args, kwargs
    return (
        SharingFunction(func, same),
        tuple(None if i in same else arg for i, arg in enumerate(args)),
        {name: None if name in same else arg for name, arg in kwargs.items()},
    )


def _is(a: Any, b: Any) -> bool:
    return a is b


class Collector:
    """Takes the place of an encoder, to learn which values it will be asked to store."""

    at_least: int
    values: list[Any]

    def __init__(self, at_least: int):
        self.at_least = at_least
        self.values = []
        self._seen: set[int] = set()

    def encode(self, value: Any) -> StoredValue:
        """Note a value; gives something that is not used, so that it counts as stored."""
        if id(value) not in self._seen:
            self._seen.add(id(value))
            self.values.append(value)
        return _NOTED


_NOTED = StoredValue(b"", [], [])
# Of a task that is not needed. Reading it is an error.
_LEFT_OUT = StoredValue(b"", [], [])
