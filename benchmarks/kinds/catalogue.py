"""All kinds of values that can be made here."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from benchmarks.kinds import builtin_kinds, library_kinds
from benchmarks.kinds.kind import Kind, listed

# They add theirs to the list.
_MODULES = [library_kinds, builtin_kinds]


def all_kinds() -> dict[str, Kind]:
    """By name; without those of libraries that are not installed."""
    return listed()


def kinds(nbytes: int) -> dict[str, Callable[[], Any]]:
    """What makes a value of each kind, by name.

    Parameters
    ----------
    nbytes
        How large it is when it is pickled, roughly; at least 4,096.
    """
    return {n: functools.partial(k.make, nbytes) for n, k in all_kinds().items()}


def made(name: str, nbytes: int) -> Any:
    """A value of one kind: what tasks return."""
    return all_kinds()[name].make(nbytes)
