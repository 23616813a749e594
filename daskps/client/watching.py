"""A look at each graph that this process submits, before it is treated."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from daskps.dask_private.graphs import Expr

#: Given an expression and the keys that are wanted of it. What it raises, the user's
#: call raises.
Watch: TypeAlias = Callable[[Expr, list[Any]], None]

#: Whoever looks, in all threads.
_watch: list[Watch] = []


@contextlib.contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Have `watch` see each graph that is submitted meanwhile."""
    _watch.append(watch)
    try:
        yield
    finally:
        _watch.remove(watch)


def is_watched() -> bool:
    """Whether somebody looks."""
    return bool(_watch)


def show(expr: Expr, keys: Iterable[Any]) -> None:
    """Show a graph to whoever looks."""
    for watch in _watch:
        watch(expr, list(keys))
