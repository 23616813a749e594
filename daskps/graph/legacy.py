"""Find what is large in graphs as Dask's were before 2024. Runs on the client.

A task is a tuple there, and whatever looks like a key may be one. Dask converts these on
the scheduler, once it knows all keys. Strings, numbers and tuples may be keys, and so may
what is in a list, a tuple or a set: only what cannot be a key is replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from daskps.dask_private.graphs import (
    Alias,
    GraphNode,
    HighLevelGraph,
    TaskRef,
    all_keys,
    convert_legacy_task,
)
from daskps.graph.findings import Findings
from daskps.graph.tasks import (
    Encode,
    Replacement,
    TaskSearch,
    are_same,
    changed,
    each,
)

# Characters. A longer string is data, although it could be a key.
LONGEST_KEY = 1 << 12
# Dask looks for keys and tasks in these, and in what is derived from them.
_CONTAINERS = (list, tuple, set, frozenset)


class LegacySearch:
    """Finds what is large in the tasks of one graph.

    Parameters
    ----------
    findings
        Where to note it.
    tasks
        Searches tasks that are none of tuples.
    graph
        All of the graph, for its keys.
    """

    _keys: set[Any] | None

    def __init__(
        self,
        findings: Findings,
        tasks: TaskSearch,
        graph: HighLevelGraph | Mapping[Any, Any],
    ):
        self._findings = findings
        self._tasks = tasks
        self._graph = graph
        self._keys = None

    def task(self, key: Any, task: Any) -> Replacement | None:
        """A task, or a value; `key` is None within others."""
        if type(task) is tuple and task and callable(task[0]):
            return self._call(task)
        if isinstance(task, GraphNode):
            return self._tasks.node(task)
        if isinstance(task, _CONTAINERS):
            if self._findings.is_large(task) and not self._refers(task):
                return self._tasks.literal(key, task, otherwise=task)
            return self._items(task)
        if isinstance(task, TaskRef) or (
            isinstance(task, str) and len(task) < LONGEST_KEY
        ):
            return None
        return self._tasks.literal(key, task, otherwise=task)

    def _call(self, task: tuple[Any, ...]) -> Replacement | None:
        func = self._tasks.function(task[0])
        replace = each([func, *map(self._argument, task[1:])], task)
        if replace is None:
            return None

        def call(encode: Encode) -> tuple[Any, ...]:
            new = tuple(replace(encode))
            return task if are_same(new, task) else new

        return call

    def _items(self, container: Any) -> Replacement | None:
        if self._is_key(container) or type(container) not in _CONTAINERS:
            return None  # only Dask knows how to make another of a derived type
        old = list(container)
        replace = each((self.task(None, item) for item in old), old)
        if replace is None:
            return None

        def rebuild(encode: Encode) -> Any:
            new = replace(encode)
            if are_same(new, old):
                return container
            if type(container) is tuple:
                return (tuple, new)  # as it is, it could look like a task
            return type(container)(new)

        return rebuild

    def _refers(self, value: Any) -> bool:
        """Whether Dask would find keys or tasks in a container."""
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
        """Whether a container is itself the key of a task."""
        return type(value) is tuple and isinstance(
            convert_legacy_task(None, value, self._keys or ()), Alias
        )

    def _argument(self, arg: Any) -> Replacement | None:
        # Dask makes a node of a dictionary, if it is an argument, and looks for
        # references in its values.
        if not isinstance(arg, dict):
            return self.task(None, arg)
        return changed(arg, lambda key, value: self._tasks.input(value))
