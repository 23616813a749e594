"""Which argument of which function a value is."""

from __future__ import annotations

import inspect
import os
import site
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any, NamedTuple

from dask.utils import apply, funcname

from daskps.dask_private.graphs import (
    Blockwise,
    DataNode,
    Dict,
    NestedContainer,
    Task,
    TaskRef,
    _MapExpr,
    blockwise_token,
    has_nodes,
)

#: What people call the arguments of some functions whose own names say little.
_KNOWN_NAMES = {
    ("getitem", 1): "index",
    ("getter", 1): "index",
    ("getter_inline", 1): "index",
    ("getter_nofancy", 1): "index",
}
#: Layers that Dask makes for an index.
_INDEX_LAYERS = ("shuffle-taker", "shuffle-sorter", "shuffle-split", "vindex-slice")


class Argument(NamedTuple):
    """Where in a task a value is.

    Attributes
    ----------
    function
        The user's function, or Dask's; None: the task is only data.
    name
        Of the argument, as a Python expression; "" for the function itself, or data.
    key
        Of the node that is data and nothing else, within a fused task.
    """

    function: Any
    name: str
    key: Any = None

    def text(self, where: str) -> str:
        """For people, who know where it is."""
        if self.function is None:
            return ""
        name = function_name(self.function)
        of = "" if name == where else f" of {name}"
        return f"argument {self.name}{of}" if self.name else "carried by the function"

    def item(self, name: Any) -> Argument:
        """The place of an item of what is here."""
        return self._replace(name=f"{self.name}[{name!r}]")

    @property
    def taken(self) -> str:
        """The same of a task whose result is the argument."""
        if self.function is None:
            return ""
        return f"taken by {function_name(self.function)} as {self.name}"


class Arguments:
    """The arguments of what holds values: by the values' ids, and by keys of other tasks.

    Keeps what it was asked last: a task may have thousands of arguments.
    """

    def __init__(self) -> None:
        self._last: tuple[Any, _Index] | None = None

    def of_value(self, holder: Any, key: Any, value: Any) -> Argument:
        """Where a value is.

        Parameters
        ----------
        holder, key
            As for :meth:`~daskps.graph.findings.Findings.enter`.
        value
            What was found there.
        """
        if isinstance(key, tuple) and isinstance(holder, Blockwise):
            # A block of what it depends on.
            return self._index(holder).keys.get(key[0], Argument(None, ""))
        if isinstance(key, tuple) and isinstance(holder, _MapExpr):
            names = _Names(holder.operand("func"))
            return Argument(names.function, names.positional(key[0]))
        return self._index(holder).of_value(value) or Argument(None, "")

    def of_key(self, holder: Any, key: Any) -> Argument | None:
        """Where the result of another task, or layer, is an argument."""
        return self._index(holder).keys.get(key)

    def _index(self, holder: Any) -> _Index:
        if self._last is None or self._last[0] is not holder:
            index = _Index()
            for thing, argument in _walk_holder(holder):
                index.add(thing, argument)
            if isinstance(holder, Blockwise):
                for i, (thing, axes) in enumerate(holder.indices):
                    known = index.keys.get(blockwise_token(i), Argument(None, ""))
                    if axes is None:
                        data = isinstance(thing, DataNode)
                        index.values[id(thing.value if data else thing)] = known
                    else:
                        index.keys[thing] = known
            self._last = holder, index
        return self._last[1]


class _Index:
    """What one holder has, each with its place.

    Attributes
    ----------
    values
        Places by the values' ids.
    keys
        Places of other tasks' results, by key.
    """

    values: dict[int, Argument]
    keys: dict[Any, Argument]

    def __init__(self) -> None:
        self.values = {}
        self.keys = {}
        self._lists: list[tuple[Sequence[Any], Argument]] = []
        #: By items' ids: which list, and where in it. Made when one is asked for: a list
        #: may have millions, none of them large.
        self._items: dict[int, tuple[int, int]] | None = None

    def add(self, thing: Any, argument: Argument) -> None:
        """Note where something is; what comes first counts."""
        if isinstance(thing, TaskRef):
            self.keys.setdefault(thing.key, argument)
            return
        self.values.setdefault(id(thing), argument)
        if type(thing) in (list, tuple):
            self._lists.append((thing, argument))
            if TaskRef in set(map(type, thing)):
                for i, item in enumerate(thing):
                    self.add(item, argument.item(i))

    def of_value(self, value: Any) -> Argument | None:
        """The place of a value."""
        if id(value) in self.values:
            return self.values[id(value)]
        if self._items is None:
            self._items = {}
            for i, (items, _) in enumerate(self._lists):
                places = {id(items[j]): (i, j) for j in reversed(range(len(items)))}
                self._items = places | self._items
        if id(value) not in self._items:
            return None
        i, j = self._items[id(value)]
        return self._lists[i][1].item(j)


_Found = Iterator[tuple[Any, Argument]]


def _walk_holder(holder: Any) -> _Found:
    if isinstance(holder, Blockwise):
        yield from _walk(holder.task, Argument(None, ""))
    elif isinstance(holder, _MapExpr):
        function = holder.operand("func")
        yield function, Argument(function, "")
        names = _Names(function)
        for name, value in holder.operand("kwargs").items():
            yield value, Argument(names.function, names.keyword(name))
    elif isinstance(holder, DataNode):
        yield holder.value, Argument(None, "")
    else:
        yield from _walk(holder, Argument(None, ""))


def _walk(node: Any, here: Argument) -> _Found:
    """What is in a node, each with its place; `here` is that of the node."""
    if isinstance(node, DataNode):
        at = here._replace(key=node.key) if here.function is None else here
        yield node.value, at
    elif isinstance(node, NestedContainer):
        yield from _walk_container(node, here)
    elif isinstance(node, Task):
        yield from _walk_task(node)
    elif type(node) is tuple and node and callable(node[0]):
        yield from _walk_call(node[0], node[1:], {})
    elif type(node) is dict and has_nodes(node):
        for inner in node.values():  # the graph within a fused task
            yield from _walk(inner, Argument(None, ""))
    else:
        yield node, here


def _walk_container(node: NestedContainer, here: Argument) -> _Found:
    if isinstance(node, Dict):
        names = node.args[::2]
        items = zip(names, node.args[1::2], strict=True)
    else:
        items = zip(count(), node.args, strict=False)
    for name, item in items:
        yield from _walk(item, here.item(name))


def _walk_task(task: Task) -> _Found:
    function, args, kwargs = task.func, list(task.args), dict(task.kwargs)
    if function is apply and args:
        # dask.utils.apply(function, args, kwargs)
        function, *rest = args
        args = list(getattr(rest[0], "args", rest[0])) if rest else []
        given = rest[1] if len(rest) > 1 else {}
        if isinstance(given, Dict):
            kwargs = dict(zip(given.args[::2], given.args[1::2], strict=True))
        elif isinstance(given, dict):
            kwargs = given
    yield from _walk_call(function, args, kwargs)


def _walk_call(function: Any, args: Any, kwargs: dict[str, Any]) -> _Found:
    yield function, Argument(function, "")
    # Dask's dataframes pass the user's function to one of their own.
    inner = kwargs.get("_func")
    if callable(inner):
        yield inner, Argument(inner, "")
    names = _Names(inner if callable(inner) else function)
    for i, arg in enumerate(args):
        yield from _walk(arg, Argument(names.function, names.positional(i)))
    for name, arg in kwargs.items():
        yield from _walk(arg, Argument(names.function, names.keyword(name)))


class _Names:
    """The names of a function's arguments.

    Parameters
    ----------
    function
        The function, or what Dask has wrapped it in.
    """

    def __init__(self, function: Any):
        self.function = function
        self._positional: list[str] = []
        self._star = "args"
        self._named: set[str] = set()
        parameters: Mapping[str, inspect.Parameter]
        try:
            parameters = inspect.signature(function).parameters
        except (TypeError, ValueError):  # written in C
            parameters = {}
        for parameter in parameters.values():
            if parameter.kind is parameter.VAR_POSITIONAL:
                self._star = parameter.name
            elif parameter.kind is not parameter.VAR_KEYWORD:
                self._named.add(parameter.name)
                if parameter.kind is not parameter.KEYWORD_ONLY:
                    self._positional.append(parameter.name)
        self._name = function_name(_wrapped(function))

    def positional(self, i: int) -> str:
        """The name of an argument, given its position."""
        known = _KNOWN_NAMES.get((self._name, i))
        if known is not None:
            return known
        if i < len(self._positional):
            return self._positional[i]
        return f"{self._star}[{i - len(self._positional)}]"

    def keyword(self, name: str) -> str:
        """The name of a keyword argument."""
        return name if name in self._named else f"kwargs[{name!r}]"


def _wrapped(function: Any) -> Any:
    """The function that a ``functools.partial`` calls, or the function itself."""
    while isinstance(function, partial):
        function = function.func
    return function


def index_layer(name: str) -> bool:
    """Whether Dask makes layers of this name for an index."""
    return name in _INDEX_LAYERS


def function_name(function: Callable[..., Any]) -> str:
    """What people call a function."""
    name = getattr(inspect.unwrap(function), "__name__", None)
    return name if isinstance(name, str) else str(funcname(function))


def line_of(function: Any) -> str:
    """File and line of a user's function; "" for one of a library.

    Found in what Python has compiled: no file is read.
    """
    function = _wrapped(function)
    function = inspect.unwrap(getattr(function, "__func__", function))
    code = getattr(function, "__code__", None)
    if code is None:
        # An instance that is called.
        code = getattr(vars(type(function)).get("__call__"), "__code__", None)
    if code is None or _is_of_library(code.co_filename):
        return ""
    return f"{_short(code.co_filename)}:{code.co_firstlineno}"


def _is_of_library(path: str) -> bool:
    return path.startswith("<frozen") or path.startswith(_LIBRARIES)


def _short(path: str) -> str:
    here = os.getcwd() + os.sep
    return path.removeprefix(here)


_LIBRARIES = tuple(
    {
        os.path.join(place, "")
        for place in (
            *map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")),
            *site.getsitepackages(),
            os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
        )
    }
)
