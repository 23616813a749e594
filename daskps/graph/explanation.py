"""What is large in a collection's graph, before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any

from dask.base import is_dask_collection
from dask.utils import format_bytes, typename

from daskps.dask_private.graphs import expression_of
from daskps.graph import expressions
from daskps.graph.census import Weight, weigh
from daskps.graph.contents import contents
from daskps.graph.findings import Found
from daskps.graph.search import Search
from daskps.objects.encoder import PACK_NBYTES, PACKED_NBYTES_AT_LEAST
from daskps.objects.sizes import nbytes_of
from daskps.settings import Settings


@dataclass
class LargeValue:
    """One value of a graph that would travel by reference.

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
    packed
        Whether it is below the threshold, and would be packed together with others.
    """

    type: str
    nbytes: int
    count: int
    where: str
    packed: bool = False


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
    packs
        Into about how many objects the values that are packed would go.
    """

    values: list[LargeValue]
    threshold: int
    stored: int
    packs: int

    def __init__(self, values: list[LargeValue], threshold: int, stored: int):
        self.packs = _packs(value.nbytes for value in values if value.packed)
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
        large = [value.nbytes for value in self.values if not value.packed]
        packed = [value.nbytes for value in self.values if value.packed]
        if not large and not packed:
            return f"No value of {at_least} or more: nothing would travel by reference."
        said = f"No value of {at_least} or more."
        if large:
            said = (
                f"{len(large)} values of {at_least} or more, "
                f"{format_bytes(sum(large))} in all, would travel by reference."
            )
        if packed:
            # Dask would warn of a graph that has all of them in it.
            said += (
                f" {len(packed)} smaller values, {format_bytes(sum(packed))} in all, "
                f"would travel by reference too, packed into {self.packs} objects."
            )
        return said

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
    large it is; this says why. If there are so many smaller values that Dask would warn of
    them, they would be packed together, and are listed as well.

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
    stored, found = 0, []
    if collections:
        expr = optimized(collections)
        weight = weigh(contents(expr))
        stored = len(weight.proxies)
        if weight.is_large(limit):
            found = _found(expr, limit, weight)
    values = [
        LargeValue(
            _describe(f.value), f.nbytes, f.count, str(f.where), packed=f.nbytes < limit
        )
        for f in found
    ]
    return Explanation(values, limit, stored)


def _found(expr: Any, limit: int, weight: Weight) -> list[Found]:
    prepared = expressions.prepared(expr)
    weigh_one = partial(nbytes_of, pickles=weight.pickles)
    search = Search(min(PACKED_NBYTES_AT_LEAST, limit), weigh=weigh_one)
    search.expression(prepared)
    large = [found for found in search.found if found.nbytes >= limit]
    packs = weight.packs(sum(found.nbytes for found in large), limit)
    return search.found if packs else large


def optimized(collections: Any) -> Any:
    """The expression that ``dask.compute`` would submit."""
    return expression_of(collections)


def _packs(sizes: Iterable[int]) -> int:
    """Objects that small values of these sizes (bytes) go into, in this order."""
    packs, waiting = 0, 0
    for nbytes in sizes:
        packs += not waiting
        waiting = waiting + nbytes if waiting + nbytes < PACK_NBYTES else 0
    return packs


def _describe(value: Any) -> str:
    name = typename(type(value))
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if callable(value) and hasattr(value, "__qualname__"):
        return f"function {value.__qualname__}"
    return " ".join([name, *(str(x) for x in (shape, dtype) if x is not None)])
