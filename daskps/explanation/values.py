"""One large value of a graph, as people see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from dask.utils import typename

#: By what way daskps would have a value travel: as an object of its own; packed together
#: with others; inside the graph, since it is below the threshold; not at all, since no task
#: that is needed uses it.
Travels: TypeAlias = Literal["stored", "packed", "inline", "unneeded"]

#: Bytes of a reference in a graph, about.
REFERENCE_NBYTES = 700


@dataclass(frozen=True)
class LargePart:
    """A large part of a value.

    Attributes
    ----------
    path
        To it, as a Python expression: ``model["emb"]``.
    type
        Its type's name, with shape and dtype if it has them.
    nbytes
        Its size.
    share
        Of the value, between 0 and 1.
    kind
        How a function has it: "captured", "global", "default" or "partial"; otherwise "".
    """

    path: str
    type: str
    nbytes: int
    share: float
    kind: str = ""

    def __str__(self) -> str:
        kind = f" ({self.kind})" if self.kind else ""
        type_ = f": {self.type}" if self.type else ""
        return f"{self.share:.0%} {self.path}{kind}{type_}"


@dataclass(frozen=True)
class LargeValue:
    """One value of a graph; equal ones are taken together.

    Attributes
    ----------
    type
        Its type's name, with shape and dtype if it has them.
    nbytes
        Its size, about as it would be sent.
    copies
        How many equal objects there are. Plain Dask sends each of them.
    tasks
        How many tasks use it, of those that are needed.
    where
        The layer, or the function of the tasks, without Dask's token.
    argument
        Which argument it is, or "carried by the function".
    line
        File and line of the user's function, if it is one; otherwise "".
    parts
        Its largest parts.
    travels
        How it would travel: "stored", "packed", "inline" or "unneeded".
    advice
        What to do.
    in_graph, with_tasks
        Bytes that plain Dask sends to the scheduler, and from there to workers.
    to_store
        Bytes that daskps would store: of equal values one, but of those that are packed
        all; less if whole packs are equal.
    """

    type: str
    nbytes: int
    copies: int
    tasks: int
    where: str
    argument: str = ""
    line: str = ""
    parts: tuple[LargePart, ...] = field(default=())
    travels: Travels = "stored"
    advice: str = ""
    in_graph: int = 0
    with_tasks: int = 0
    to_store: int = 0

    @property
    def packed(self) -> bool:
        """Whether it is below the threshold, and would be packed with others."""
        return self.travels == "packed"

    @property
    def plain_sends(self) -> int:
        """Bytes that pass through the scheduler in plain Dask."""
        return self.in_graph + self.with_tasks

    @property
    def plain_keeps(self) -> int:
        """Bytes that stay on the scheduler in plain Dask, for as long as the tasks do."""
        return self.in_graph

    @property
    def daskps_sends(self) -> int:
        """Bytes that pass through the scheduler with daskps, about."""
        if self.travels == "inline":
            return self.plain_sends
        return min(REFERENCE_NBYTES, self.nbytes) * (self.copies + self.tasks)


def describe(value: Any) -> str:
    """The type of a value, with what people want to know of it."""
    if callable(value) and hasattr(value, "__qualname__"):
        return f"function {value.__qualname__}"
    name = typename(type(value))
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    found = [str(x) for x in (shape, dtype) if x is not None]
    if not found and isinstance(value, (list, tuple, set, frozenset, dict)):
        found = [f"of {len(value)} items"]
    return " ".join([name, *found])
