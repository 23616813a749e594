"""What is large in a collection's graph, before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

from dask.base import collections_to_expr, is_dask_collection
from dask.utils import format_bytes, typename

from daskps import client_expressions as expressions
from daskps.client_census import nbytes_of, weigh
from daskps.client_graphs import GraphPass
from daskps.config import Settings
from daskps.dask_private import FinalizeCompute


@dataclass
class LargeValue:
    """One large value of a graph.

    Attributes
    ----------
    type
        Its type's name, with shape and dtype if it has them.
    nbytes
        Its size, about as it would be sent.
    count
        How often it occurs in the graph.
    where
        The layer, or the task, in which it occurs first.
    """

    type: str
    nbytes: int
    count: int
    where: str


class Explanation:
    """What is large, where, and how often. Shows as a table.

    Attributes
    ----------
    values
        One :class:`LargeValue` for each, the largest first.
    threshold
        Bytes from which on a value is large.
    stored
        How many values are stored already, by an earlier pass.
    """

    values: list[LargeValue]
    threshold: int
    stored: int

    def __init__(self, values: list[LargeValue], threshold: int, stored: int):
        self.values = sorted(values, key=lambda value: -value.nbytes)
        self.threshold = threshold
        self.stored = stored

    @property
    def nbytes(self) -> int:
        """Bytes that would travel by reference."""
        return sum(value.nbytes for value in self.values)

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[LargeValue]:
        return iter(self.values)

    def _summary(self) -> str:
        at_least = format_bytes(self.threshold)
        if not self.values:
            return f"No value of {at_least} or more: nothing would travel by reference."
        return (
            f"{len(self.values)} values of {at_least} or more, "
            f"{format_bytes(self.nbytes)} in all, would travel by reference."
        )

    def _rows(self, most: int = 20) -> Iterator[tuple[str, str, str, str]]:
        """Values that look alike share a row."""
        alike: dict[tuple[str, str, str], list[LargeValue]] = {}
        for value in self.values:
            row = (format_bytes(value.nbytes), value.type, value.where)
            alike.setdefault(row, []).append(value)
        for (nbytes, type_, where), values in list(alike.items())[:most]:
            occurs = sum(value.count for value in values)
            times = f"{occurs} times" if occurs > 1 else "once"
            many = f"{len(values)} x " if len(values) > 1 else ""
            yield nbytes, times, many + type_, where
        if len(alike) > most:
            yield "", "", f"and {len(alike) - most} more", ""

    def __repr__(self) -> str:
        rows = [
            f"{nbytes:>12}, {times}: {type_} in {where}"
            if nbytes
            else f"{'':>14}{type_}"
            for nbytes, times, type_, where in self._rows()
        ]
        return "\n".join([self._summary(), *rows])

    def _repr_html_(self) -> str:
        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self._rows()
        )
        head = (
            "<tr><th>size of each</th><th>occurs</th><th>what</th><th>where</th></tr>"
        )
        return f"<p>{escape(self._summary())}</p><table>{head}{rows}</table>"


def explain(*collections: Any, threshold: Any = None) -> Explanation:
    """Say which values in a graph are large, where, and how often they occur.

    Nothing is computed, stored or sent. Dask's warning about a large graph says only how
    large it is; this says why.

    Parameters
    ----------
    *collections
        Dask collections: arrays, dataframes, bags, delayed values.
    threshold
        As for :func:`daskps.proxy_graph`.

    Returns
    -------
    Explanation
        A table when shown; iterable.

    Raises
    ------
    TypeError
        If something is not a Dask collection.
    daskps.exceptions.ConfigError
        If the threshold is not valid.

    Examples
    --------
    >>> import numpy as np, dask.array as da, daskps
    >>> x = da.from_array(np.zeros((1024, 1024)), chunks=512, name="x")
    >>> daskps.explain(x, threshold="256 KiB")
    4 values of 256.00 kiB or more, 8.00 MiB in all, would travel by reference.
        2.00 MiB, 4 times: 4 x numpy.ndarray (512, 512) float64 in x
    """
    for collection in collections:
        if not is_dask_collection(collection):
            raise TypeError(
                f"explain() takes Dask collections, not {type(collection).__name__}"
            )
    limit = Settings.resolve(threshold=threshold).threshold
    recorder = _Recorder(limit)
    stored = 0
    if collections:
        expr = optimized(collections)
        weight = weigh(expressions.contents(expr), limit)
        stored = len(weight.proxies)
        if weight.largest >= limit:
            recorder.graph_pass = GraphPass(recorder)
            expressions.replace_large(expressions.prepared(expr), recorder.graph_pass)
    return Explanation(list(recorder.found.values()), limit, stored)


def optimized(collections: Any) -> Any:
    """The expression that ``dask.compute`` would submit."""
    return FinalizeCompute(collections_to_expr(collections)).optimize()


class _Recorder:
    """Takes the place of an encoder, and only notes what it is asked to store."""

    at_least: int
    found: dict[int, LargeValue]

    graph_pass: GraphPass

    def __init__(self, threshold: int):
        self.at_least = threshold
        self.found: dict[int, LargeValue] = {}
        self._alive: list[Any] = []

    def encode(self, value: Any) -> None:
        if id(value) not in self.found:
            self._alive.append(value)
            self.found[id(value)] = LargeValue(
                _describe(value), nbytes_of(value), 0, str(self.graph_pass.where)
            )
        self.found[id(value)].count += 1


def _describe(value: Any) -> str:
    name = typename(type(value))
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if callable(value) and hasattr(value, "__qualname__"):
        return f"function {value.__qualname__}"
    return " ".join([name, *(str(x) for x in (shape, dtype) if x is not None)])
