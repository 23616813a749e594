"""Run a user's script, and explain each graph that it submits."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

from dask.base import is_dask_collection, unpack_collections

from daskps.client.watching import watched
from daskps.config import large_graph
from daskps.dask_private.graphs import Expr
from daskps.explanation.explaining import explain_expression
from daskps.explanation.subjects import subject
from daskps.explanation.table import Explanation
from daskps.settings import Settings


class Stopped(SystemExit):
    """The script is at the first graph that is explained, and is not to go on."""


class Explainer:
    """Explains graphs of one script.

    Parameters
    ----------
    path
        The script.
    say
        Takes what is to be printed.
    everything
        Whether each graph is explained, and not only those that Dask would warn of.
    run
        Whether the script goes on; otherwise it is stopped at the first graph that is
        explained, before that is sent. If there is none, its collections are explained.

    Attributes
    ----------
    graphs, explained
        How many were submitted, and how many of these, and of what was not, explained.
    """

    def __init__(
        self,
        path: str,
        say: Callable[[str], Any],
        everything: bool = False,
        run: bool = True,
    ):
        self._path = os.path.abspath(path)
        self._say = say
        self._everything = everything
        self._run = run
        self._threshold = Settings.resolve().threshold
        self.graphs = 0
        self.explained = 0

    def script(self, args: list[str]) -> None:
        """Run the script with these arguments.

        Raises
        ------
        Stopped
            At the first graph that is explained, if it is not to go on.
        """
        argv, path = sys.argv, list(sys.path)
        sys.argv = [self._path, *args]
        sys.path.insert(0, os.path.dirname(self._path))
        try:
            with watched(self._look):
                made = runpy.run_path(self._path, run_name="__main__")
            if not self._run:
                self._collections(made)
        finally:
            sys.argv, sys.path[:] = argv, path

    def _look(self, expr: Expr, keys: list[Any]) -> None:
        self.graphs += 1
        found = explain_expression(expr, keys, self._threshold)
        if not (self._everything or _is_large(found)):
            return
        self._tell(f"Graph {self.graphs}, submitted at {self._line()}", found)
        if not self._run:
            raise Stopped

    def _collections(self, made: Mapping[str, Any]) -> None:
        """Explain what a script has made and not submitted, by its variables' names."""
        met: set[int] = set()
        for name, thing in made.items():
            nested = isinstance(thing, (list, tuple, dict))
            holds = (
                unpack_collections(thing)[0] if nested else is_dask_collection(thing)
            )
            if not holds or id(thing) in met:
                continue
            met.add(id(thing))
            found = explain_expression(*subject((thing,), {}), self._threshold)
            if self._everything or _is_large(found):
                self._tell(f"The graph of {name}, which was not submitted", found)

    def _tell(self, what: str, found: Explanation) -> None:
        self.explained += 1
        self._say(what)
        self._say(f"{found}\n")

    def _line(self) -> str:
        """Where in the script the running code was called."""
        frame: FrameType | None = sys._getframe()
        while frame is not None and frame.f_code.co_filename != self._path:
            frame = frame.f_back
        name = os.path.basename(self._path)
        return name if frame is None else f"{name}:{frame.f_lineno}"


def _is_large(found: Explanation) -> bool:
    """Whether Dask would warn of it, or send as much to workers."""
    values = sum(value.plain_sends for value in found)
    return values + found.rest_nbytes > large_graph()
