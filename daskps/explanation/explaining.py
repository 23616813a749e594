"""Which values in a graph are large, and why, before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from types import FunctionType, MethodType
from typing import Any, NamedTuple

from dask.utils import key_split

from daskps import progress
from daskps.config import large_graph
from daskps.dask_private.graphs import Expr, frames_of
from daskps.explanation.advice import Role, advice
from daskps.explanation.arguments import (
    Argument,
    Arguments,
    function_name,
    index_layer,
    line_of,
)
from daskps.explanation.equal import equal_uses
from daskps.explanation.parts import largest_parts
from daskps.explanation.subjects import subject
from daskps.explanation.table import Explanation
from daskps.explanation.tasks import count_tasks
from daskps.explanation.users import Users
from daskps.explanation.uses import Use, Uses
from daskps.explanation.values import LargePart, LargeValue, Travels, describe
from daskps.graph import expressions
from daskps.graph.census import HEAVY_NBYTES, Weight, weigh
from daskps.graph.contents import contents
from daskps.graph.culling import needed_keys
from daskps.graph.search import Search
from daskps.objects.encoder import PACKED_NBYTES_AT_LEAST
from daskps.objects.sizes import nbytes_of
from daskps.settings import Settings

#: What takes long, where it does.
LOOKING = "Looking at values"
# Of so many values, those that cost most, it is said which of their parts are large.
LOOKED_INTO = 100

_FUNCTIONS = FunctionType, MethodType, partial


def explain(*things: Any, threshold: Any = None, **kwargs: Any) -> Explanation:
    """Say which values in a graph are large, where, why, and what to do about them.

    Nothing is computed, stored or sent. Dask's warning about a large graph says only how
    large it is; this says which argument of which function it is, the path to its largest
    parts, how many tasks use it, and so what plain Dask would send through the scheduler,
    and what daskps would. If there are so many smaller values that Dask would warn of them,
    they would be packed together, and are listed as well.

    Parameters
    ----------
    *things
        Dask collections: arrays, dataframes, bags, delayed values; lists, tuples and
        dictionaries of them. Or a call: a function with its arguments, as
        ``client.submit`` takes them, or ``client.submit`` or ``client.map`` itself with
        what it takes.
    threshold
        As for :func:`daskps.proxy_graph`.
    **kwargs
        Keyword arguments of a call. One that is called `threshold` can be given by
        `functools.partial`.

    Returns
    -------
    Explanation
        A table when shown, in a terminal and in a notebook; iterable; `to_pandas()`.

    Raises
    ------
    TypeError
        If something is none of these.
    daskps.exceptions.ConfigError
        If the threshold is not valid.

    Examples
    --------
    >>> import numpy as np, dask.array as da, daskps
    >>> x = da.from_array(np.ones((1024, 1024)), chunks=512, name="x")
    >>> found = daskps.explain(x, threshold="256 KiB")
    >>> found.values[0].type, found.values[0].copies, found.values[0].where
    ('numpy.ndarray (512, 512) float64', 4, 'x')
    >>> def score(item, weights): ...
    >>> found = daskps.explain(client.map, score, range(100), weights=weights)
    ... # doctest: +SKIP
    """
    limit = Settings.resolve(threshold=threshold).threshold
    if not things:
        return Explanation([], limit)
    with progress.shown(LOOKING, None):
        return explain_expression(*subject(things, kwargs), limit)


def explain_expression(expr: Expr, keys: Iterable[Any], threshold: int) -> Explanation:
    """Explain what is about to be submitted.

    Parameters
    ----------
    expr, keys
        The expression, and the keys that are wanted of it.
    threshold
        Bytes from which on values are large.
    """
    weight = weigh(contents(expr))
    large = weight.is_large(threshold)
    if not large and (weight.light or not weight.has(HEAVY_NBYTES)):
        stored = len(weight.proxies)
        return Explanation([], threshold, stored, rest_nbytes=weight.nbytes)
    # Many small things are few bytes, and take long.
    with progress.shown(LOOKING, None):
        progress.expect(weight.nbytes)
        return _Look(expr, list(keys), weight, threshold).explanation()


class _Group(NamedTuple):
    """Equal values.

    Attributes
    ----------
    uses
        One for each object.
    travels
        How daskps would have them travel.
    frame
        The frame of which they are partitions, that Dask divides on the scheduler.
    """

    uses: list[Use]
    travels: Travels
    frame: Any = None


class _Look:
    """One look at an expression that holds something large."""

    def __init__(self, expr: Expr, keys: list[Any], weight: Weight, threshold: int):
        self._threshold = threshold
        self._nbytes = weight.nbytes
        self._prepared = expressions.prepared(expr)
        lowered = self._prepared is not expr
        self._weight = weigh(contents(self._prepared)) if lowered else weight
        self._frames = frames_of(expr) if lowered else {}
        self._stored = len(weight.proxies)
        self._pickles = self._weight.pickles
        needed = needed_keys(self._prepared, keys)
        self._tasks = count_tasks(self._prepared, needed)
        self._arguments = Arguments()
        uses = self._find(needed)
        self._users = Users(self._prepared, self._arguments, uses.using)
        self._uses = uses.uses
        self._packs = self._weight.packs(
            sum(use.nbytes for use in self._uses if use.nbytes >= threshold), threshold
        )

    def _find(self, needed: set[Any] | None) -> Uses:
        weigh_one = partial(nbytes_of, pickles=self._pickles)
        at_least = min(PACKED_NBYTES_AT_LEAST, self._threshold)
        uses = Uses(at_least, weigh_one, needed)
        search = Search(uses, pickles=self._pickles, together=False)
        search.expression(self._prepared)
        return uses

    def explanation(self) -> Explanation:
        """What was seen."""
        groups = sorted(self._groups(), key=_cost, reverse=True)
        values = []
        for i, group in enumerate(groups):
            values.append(self._value(group, look_into=i < LOOKED_INTO))
            nbytes = sum(use.nbytes for use in group.uses)
            progress.done(nbytes // 2, len(group.uses))
        listed = sum(value.in_graph for value in values)
        return Explanation(
            values,
            self._threshold,
            self._stored,
            self._tasks,
            max(0, self._nbytes - listed),
        )

    # Which values are worth a row

    def _groups(self) -> list[_Group]:
        partitions: dict[str, list[Use]] = {}
        others: dict[Travels, list[Use]] = {}
        for use in self._uses:
            frame = self._frame_of(use) if self._frames else None
            travels = self._travels(use)
            if frame is not None:
                partitions.setdefault(frame, []).append(use)
            elif travels is not None:
                others.setdefault(travels, []).append(use)
        groups = [
            _Group(equal, travels)
            for travels, uses in others.items()
            for equal in equal_uses(uses, self._pickles)
        ]
        for name, uses in partitions.items():
            found = self._of_frame(self._frames[name], uses)
            groups += [] if found is None else [found]
        return groups

    def _travels(self, use: Use) -> Travels | None:
        """How a value would travel; None: it is small, and not worth a row."""
        large = use.nbytes >= self._threshold
        if large or self._packs:
            if not use.tasks:
                return "unneeded"
            return "stored" if large else "packed"
        return "inline" if use.nbytes * use.sent >= large_graph() else None

    def _frame_of(self, use: Use) -> str | None:
        """The layer in whose place Dask sends a whole frame."""
        key = self._key(use)
        name = key[0] if type(key) is tuple and key else key
        return name if name in self._frames else None

    def _of_frame(self, frame: Any, uses: list[Use]) -> _Group | None:
        travels = {self._travels(use) for use in uses}
        if None in travels and nbytes_of(frame, self._pickles) < self._threshold:
            return None
        by_reference: list[Travels] = ["stored", "packed", "inline"]
        best: Travels = next((t for t in by_reference if t in travels), "inline")
        return _Group(uses, best, frame)

    def _argument(self, use: Use) -> Argument:
        place = use.place
        found = self._arguments.of_value(place.holder, place.key, use.value)
        if found.function is None or not isinstance(use.value, _FUNCTIONS):
            return found
        # Bags, data frames and other libraries give the user's function to one of theirs.
        if found.name and line_of(use.value) and not line_of(found.function):
            return Argument(use.value, "", found.key)
        return found

    def _key(self, use: Use) -> Any:
        """The key of the node in which a value is."""
        inner = self._argument(use).key
        return use.place.key if inner is None else inner

    # What is said of it

    def _value(self, group: _Group, look_into: bool) -> LargeValue:
        uses = group.uses
        most = max(uses, key=lambda use: use.place.tasks)
        value = most.value if group.frame is None else group.frame
        argument = self._argument(most)
        where = self._where(most, argument)
        role = _role(argument)
        nbytes = most.nbytes
        if group.frame is not None:
            nbytes = nbytes_of(group.frame, self._pickles)
        tasks = sum(use.tasks for use in uses)
        copies = len(uses) if group.frame is None else 1
        name = argument.name or (function_name(value) if role == "function" else where)
        parts = largest_parts(value, name, nbytes, self._pickles) if look_into else []
        return LargeValue(
            type=describe(value),
            nbytes=nbytes,
            copies=copies,
            tasks=tasks,
            where=where,
            argument=self._argument_text(most, argument),
            line=line_of(argument.function or value),
            parts=tuple(
                LargePart(
                    p.path,
                    "" if p.value is None else describe(p.value),
                    p.nbytes,
                    min(1.0, p.nbytes / max(1, nbytes)),
                    p.kind,
                )
                for p in parts
            ),
            travels=group.travels,
            advice=advice(value, group.travels, role, tasks, copies),
            in_graph=copies * nbytes,
            with_tasks=sum(use.sent * use.nbytes for use in uses),
            to_store=self._to_store(group),
        )

    def _to_store(self, group: _Group) -> int:
        if group.travels not in ("stored", "packed"):
            return 0
        if group.frame is not None:
            return sum(use.nbytes for use in group.uses)
        nbytes = group.uses[0].nbytes
        # Only whole objects are found again, and a pack is one.
        return nbytes * len(group.uses) if group.travels == "packed" else nbytes

    def _where(self, use: Use, argument: Argument) -> str:
        return use.place.where if argument.key is None else str(key_split(argument.key))

    def _argument_text(self, use: Use, argument: Argument) -> str:
        if argument.function is not None:
            return argument.text(self._where(use, argument))
        key = self._key(use)
        if index_layer(str(key_split(key))):
            return "index array"
        taken = self._users.taken(use.place.layer, key)
        return "" if taken is None else str(taken)


def _role(argument: Argument) -> Role:
    if argument.function is None:
        return "data"
    return "argument" if argument.name else "function"


def _cost(group: _Group) -> int:
    return sum(use.nbytes * (1 + use.sent) for use in group.uses)
