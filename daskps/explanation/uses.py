"""How many tasks use what a search finds, and how often Dask would send it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from dask.utils import key_split

from daskps import progress
from daskps.dask_private.graphs import (
    Blockwise,
    _MapExpr,
    blocks_along,
    index_of_dependency,
    is_map_task,
)
from daskps.graph.findings import Findings


@dataclass(eq=False)
class Place:
    """Where a value is in a graph, for all tasks that are alike.

    Attributes
    ----------
    where
        The layer or the kind of task, without the token that Dask puts into names.
    layer
        The layer's name, or the task's key.
    key, holder
        As for :meth:`~daskps.graph.findings.Findings.enter`: of the first such task.
    tasks
        How many use the value here.
    """

    where: str
    layer: Any
    key: Any
    holder: Any
    tasks: int = 0


@dataclass(eq=False)
class Use:
    """Who uses one value.

    Attributes
    ----------
    value, nbytes
        The value, and its size as it would be sent.
    tasks
        How many tasks use it.
    sent
        With how many tasks plain Dask sends it.
    places
        By their names.
    """

    value: Any
    nbytes: int
    tasks: int = 0
    sent: int = 0
    places: dict[str, Place] = field(default_factory=dict)
    turn: int = -1

    @property
    def place(self) -> Place:
        """Where most of the tasks are."""
        return max(self.places.values(), key=lambda place: place.tasks)


class Uses(Findings):
    """Findings that know the tasks.

    Parameters
    ----------
    at_least, weigh
        As for :class:`~daskps.graph.findings.Findings`.
    needed
        Keys of the tasks that are needed; None: all.
    """

    _uses: dict[int, Use]

    def __init__(
        self, at_least: int, weigh: Callable[[Any], int], needed: set[Any] | None
    ):
        super().__init__(at_least, weigh)
        self._needed = needed
        self._uses = {}
        self._layer: Any = None
        self._key: Any = None
        self._holder: Any = None
        self._turn = 0
        self._blocks = _Blocks(needed)

    @property
    def uses(self) -> list[Use]:
        """Who uses each value that was found."""
        return list(self._uses.values())

    def using(self, layer: Blockwise, of: tuple[str, Any] | None) -> int:
        """Tasks of a layer that use a literal, or what is in a block of a dependency."""
        return self._blocks.using(layer, of)

    def enter_layer(self, name: str) -> None:
        self._layer = name

    def enter(self, key: Any, holder: Any) -> None:
        self._key, self._holder = key, holder
        self._turn += 1

    def add(self, value: Any) -> None:
        super().add(value)
        use = self._uses.get(id(value))
        if use is None:
            found = self._found[id(value)]
            use = self._uses[id(value)] = Use(value, found.nbytes)
            # To say what it is takes as long again.
            progress.done(found.nbytes // 2, objects=0)
        if use.turn == self._turn:
            return  # Dask pickles a task as a whole: what is in it twice is sent once
        use.turn = self._turn
        tasks = self._tasks()
        use.tasks += tasks
        one = self._key is None and is_map_task(self._holder, value)
        use.sent += min(tasks, 1) if one else tasks
        if isinstance(self._holder, _MapExpr):
            layer = self._holder.key
        else:
            layer = self._key if self._layer is None else self._layer
        where = str(key_split(layer))
        if where not in use.places:
            use.places[where] = Place(where, layer, self._key, self._holder)
        use.places[where].tasks += tasks

    def _tasks(self) -> int:
        """How many tasks what the search is at stands for."""
        if isinstance(self._holder, Blockwise):
            return self._blocks.using(self._holder, self._key)
        if isinstance(self._holder, _MapExpr):
            return len(self._holder.keys) if self._key is None else 1
        return int(self._needed is None or self._key in self._needed)


class _Blocks:
    """How many tasks of symbolic layers are needed, and for which blocks.

    Parameters
    ----------
    needed
        Keys of the tasks that are needed; None: all.
    """

    def __init__(self, needed: set[Any] | None):
        self._needed = needed
        self._by_layer: dict[Hashable, list[tuple[Any, ...]]] | None = None
        self._counted: dict[tuple[int, Any], Counter[tuple[int, ...]]] = {}

    def using(self, layer: Blockwise, of: tuple[str, Any] | None) -> int:
        """Tasks of a layer that use a literal, or what is in a block of a dependency."""
        if of is None:
            return self._all(layer)
        name, block = of
        # Of the dependency's axes, those that tell its blocks apart for a task.
        axes = index_of_dependency(layer, name)
        if self._needed is None:
            others = blocks_along(layer, [i for i, _ in axes])
            return max(1, self._all(layer) // max(1, others))
        if (id(layer), name) not in self._counted:
            blocks = self._of_layer(layer)
            self._counted[id(layer), name] = Counter(
                tuple(output[i] for i, _ in axes) for output in blocks
            )
        return self._counted[id(layer), name][tuple(block[j] for _, j in axes)]

    def _all(self, layer: Blockwise) -> int:
        if self._needed is None:
            return blocks_along(layer, range(len(layer.output_indices)))
        return len(self._of_layer(layer))

    def _of_layer(self, layer: Blockwise) -> list[tuple[Any, ...]]:
        if self._by_layer is None:
            self._by_layer = {}
            for key in self._needed or ():
                if type(key) is tuple and key:
                    self._by_layer.setdefault(key[0], []).append(key[1:])
        return self._by_layer.get(layer.output, [])
