"""Find what is large in tasks, and replace it by nodes. Runs on the client.

What is changed is copied, what is not stays the same object; keys, annotations and
dependencies stay as they are. Nothing is stored here: a search gives a
:data:`Replacement`, which is called when what was found is in a store.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from dask.utils import funcname
from distributed.utils import iscoroutinefunction

from daskps.dask_private.graphs import (
    DataNode,
    GraphNode,
    Task,
    TaskRef,
    clone_task,
    has_nodes,
    parse_input,
    writes_to_argument,
)
from daskps.graph.contents import items
from daskps.graph.findings import Findings, Together
from daskps.graph.sharing import Sharing, is_one_object, may_share
from daskps.objects.pickles import Pickles
from daskps.references.nodes import (
    ProxyFunction,
    ProxyNode,
    children,
)
from daskps.references.proxies import is_proxy
from daskps.references.together import Readable, StoredPart, StoredTogether
from daskps.safety_net import fell_back

#: What stands for a value, or None if it is to stay in the graph.
Encode: TypeAlias = Callable[[Any], Readable | None]
#: Makes what takes the place of a part of a graph; the same part if nothing was stored.
Replacement: TypeAlias = Callable[[Encode], Any]


class TaskSearch:
    """Finds what is large in tasks.

    Each method gives a replacement, or None if nothing in its argument is large.

    Parameters
    ----------
    findings
        Where to note it.
    in_process
        Whether tasks run in this process, where an array that the user gives them to
        write to is to be that very array, and functions are to be those very functions.
    pickles
        Keeps what had to be pickled to see what it consists of.
    together
        Whether values of one task that share objects are to be stored as one.
    """

    _functions: dict[int, tuple[Any, Replacement | None]]
    #: What was found in the task that is searched, once for each place; None: in none.
    _here: list[Any] | None
    #: What is small in it, by id; None: nobody wants to know.
    _beside: dict[int, Any] | None

    def __init__(
        self,
        findings: Findings,
        in_process: bool = False,
        pickles: Pickles | None = None,
        together: bool = True,
    ):
        self._findings = findings
        self._together = together
        self._in_process = in_process
        self._functions = {}
        self._sharing = Sharing((pickles or Pickles()).objects_in)
        self._here = None
        self._beside = None

    def task(self, search: Callable[[], Replacement | None]) -> Replacement | None:
        """A whole task, given the search of it: what is one object in it stays one."""
        if self._here is not None or not self._together:
            return search()
        replace, found = self.noting(search)
        if replace is None:
            return None
        beside: dict[int, Any] = {}
        replace_all: Replacement | None = replace
        if not all(map(is_one_object, found)):
            self._beside = beside
            try:
                replace_all, found = self.noting(search)
            finally:
                self._beside = None
        groups = [
            g for g in self._groups(found) if any(id(found[i]) not in beside for i in g)
        ]
        if not groups or replace_all is None:
            return replace
        together = [self._findings.together([found[i] for i in g]) for g in groups]
        return functools.partial(_replace_together, replace_all, together, beside)

    def noting(
        self, search: Callable[[], Replacement | None]
    ) -> tuple[Replacement | None, list[Any]]:
        """What a search gives, and what it has found, once for each place."""
        found: list[Any] = []
        self._here = found
        try:
            return search(), found
        finally:
            self._here = None

    def share(self, found: list[Any]) -> bool:
        """Whether of that which was found in a task some is to be stored as one."""
        return bool(self._groups(found))

    def _groups(self, found: list[Any]) -> list[list[int]]:
        several = self._together and len(found) > 1
        return self._sharing.groups(found) if several else []

    def _found(self, value: Any) -> None:
        if self._beside is None:  # otherwise this task was searched before
            self._findings.add(value)
        if self._here is not None:
            self._here.append(value)

    def literal(self, key: Any, value: Any, otherwise: Any) -> Replacement | None:
        """A value.

        Parameters
        ----------
        key
            Of the node; None: the value is an argument within a task.
        value
            The value.
        otherwise
            What is there now.
        """
        if self._findings.is_large(value) and not self._changes_itself(value):
            self._found(value)
        elif self._beside is not None and self._here is not None and may_share(value):
            self._beside[id(value)] = value
            self._here.append(value)
        else:
            return None

        def replace(encode: Encode) -> Any:
            stored = encode(value)
            return otherwise if stored is None else ProxyNode(key, stored)

        return replace

    def _changes_itself(self, value: Any) -> bool:
        # A function may change what it carries, which is seen in this process.
        return self._in_process and not is_proxy(value) and callable(value)

    def argument(self, value: Any) -> Replacement | None:
        """An argument of a task: a node, a reference to a task, or a literal."""
        if not is_proxy(value) and isinstance(value, GraphNode):
            return self.node(value)
        if not is_proxy(value) and isinstance(value, TaskRef):
            return None
        return self.literal(None, value, otherwise=value)

    def input(self, value: Any) -> Replacement | None:
        """An argument as the user gave it, perhaps with futures in it."""
        if is_proxy(value):
            return self.argument(value)

        def search() -> Replacement | None:
            # Dask does this on the scheduler, where what is stored cannot be searched.
            parsed = parse_input(value)
            replace = self.argument(parsed)
            if replace is None:
                return None

            def unless_same(encode: Encode) -> Any:
                new = replace(encode)
                return value if new is parsed else new

            return unless_same

        return guarded(search, value, "replace what is large in")

    def function(self, function: Any) -> Replacement | None:
        """A task's function, which may carry a large value."""
        if id(function) not in self._functions:
            search = functools.partial(self._function, function)
            replace = guarded(search, function, "store a function of type")
            # The function is kept, so that its id stays its own.
            self._functions[id(function)] = function, replace
        _, replace = self._functions[id(function)]
        if replace is not None:
            self._found(function)
        return replace

    def _function(self, function: Any) -> Replacement | None:
        # Dask looks at a coroutine function to know how to run it.
        if iscoroutinefunction(function) or self._changes_itself(function):
            return None
        if self._findings.nbytes(function) < self._findings.at_least:
            return None

        def replace(encode: Encode) -> Any:
            stored = encode(function)
            if stored is None:
                return function
            return ProxyFunction(stored, funcname(function))

        return replace

    def node(self, node: GraphNode) -> Replacement | None:
        """A task or a literal of a graph, or one within another."""
        if isinstance(node, DataNode):
            return self.literal(node.key, node.value, otherwise=node)
        if not isinstance(node, Task) or self.stays(node):
            return None
        func = self.function(node.func)
        args = each(self._arguments(node), node.args)
        values = list(node.kwargs.values())
        kwargs = each(map(self.argument, values), values)
        if func is None and args is None and kwargs is None:
            return None

        def replace(encode: Encode) -> GraphNode:
            new_func = node.func if func is None else func(encode)
            new_args = node.args if args is None else tuple(args(encode))
            new_values = values if kwargs is None else kwargs(encode)
            if new_func is node.func and are_same(
                [*new_args, *new_values], [*node.args, *values]
            ):
                return node
            named = dict(zip(node.kwargs, new_values, strict=True))
            return clone_task(node, new_func, new_args, named)

        return replace

    def _arguments(self, task: Task) -> Iterable[Replacement | None]:
        if not task.has_subgraph():
            return map(self._within_task, task.args)
        # Dask's own optimisations look for tasks by these keys.
        graph, *its_keys = task.args[:3]
        return (
            self.nodes(graph),
            *[None] * len(its_keys),
            *map(self.argument, task.args[3:]),
        )

    def _within_task(self, arg: Any) -> Replacement | None:
        # The graph within a fused task.
        if type(arg) is dict and has_nodes(arg):
            return self.nodes(arg)
        return self.argument(arg)

    def nodes(self, graph: Mapping[Any, Any]) -> Replacement | None:
        """The tasks of a graph, none of which is a tuple."""
        return changed(graph, lambda key, node: self.node(node))

    def stays(self, task: Any) -> bool:
        """Whether a task, or one within it, must get the very objects that it was given."""
        stack = [task] if self._in_process else []
        while stack:
            node = stack.pop()
            if writes_to_argument(node):
                return True
            stack.extend(children(node))
        return False


def changed(
    mapping: Mapping[Any, Any], search: Callable[[Any, Any], Replacement | None]
) -> Replacement | None:
    """A replacement of a mapping; what is in it is searched given key and value."""
    old = dict(items(mapping))
    replace = each((search(key, value) for key, value in old.items()), old.values())
    if replace is None:
        return None

    def replace_mapping(encode: Encode) -> Mapping[Any, Any]:
        new = replace(encode)
        if are_same(new, old.values()):
            return mapping
        return dict(zip(old, new, strict=True))

    return replace_mapping


def each(
    replacements: Iterable[Replacement | None], old: Iterable[Any]
) -> Callable[[Encode], list[Any]] | None:
    """A replacement of several things; None if none is to be replaced."""
    listed = list(replacements)
    if not any(listed):
        return None
    return lambda encode: [
        thing if replace is None else replace(encode)
        for replace, thing in zip(listed, old, strict=True)
    ]


def are_same(new: Iterable[Any], old: Iterable[Any]) -> bool:
    """Whether these are the very same objects."""
    return all(a is b for a, b in zip(new, old, strict=True))


def guarded(
    search: Callable[[], Replacement | None], otherwise: Any, attempt: str
) -> Replacement | None:
    """What a search gives, if it succeeds (:mod:`daskps.safety_net`).

    Parameters
    ----------
    search
        The search.
    otherwise
        What is there now, and stays if something fails.
    attempt
        For the warning.
    """
    try:
        replacement = search()
    except Exception as e:
        fell_back(e, attempt, otherwise)
        return None
    if replacement is None:
        return None

    def replace(encode: Encode) -> Any:
        try:
            return replacement(encode)
        except Exception as e:
            fell_back(e, attempt, otherwise)
            return otherwise

    return replace


def _replace_together(
    replace: Replacement,
    together: list[Together],
    small: Mapping[int, Any],
    encode: Encode,
) -> Any:
    """Replace a task, given which of its values are stored as one.

    Parameters
    ----------
    small
        Values that stay unless they are among those, by id.
    """
    parts: dict[int, deque[StoredPart]] = {}
    for values, whole in together:
        stored = encode(whole)
        if stored is not None:
            taken = StoredTogether(stored, len(values), whole is values[0])
            for i, value in enumerate(values):
                parts.setdefault(id(value), deque()).append(StoredPart(taken, i))

    def encode_part(value: Any) -> Readable | None:
        mine = parts.get(id(value))
        if mine:
            return mine.popleft()
        return None if id(value) in small else encode(value)

    return replace(encode_part)
