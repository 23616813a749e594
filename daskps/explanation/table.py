"""An explanation: what is large, where, what to do. Shows as a table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from dask.utils import format_bytes

from daskps.explanation.values import LargeValue
from daskps.objects.encoder import PACK_NBYTES

if TYPE_CHECKING:
    import pandas as pd

# Rows of a table that is shown, so that it fits on a screen.
MOST_ROWS = 20
# Of the largest row: what is less has no row of its own.
LEAST_SHARE = 0.001
# Bytes of what Dask sends for a task besides its values, about: in the graph, to a worker,
# and the worker's answers.
TASK_NBYTES = 1500


class Row(NamedTuple):
    """Values that look alike, for the table.

    Attributes
    ----------
    first
        One of them.
    values
        All of them.
    """

    first: LargeValue
    values: list[LargeValue]

    @property
    def size(self) -> str:
        """The size of each, or of the largest one."""
        sizes = [format_bytes(value.nbytes) for value in self.values]
        largest = format_bytes(max(value.nbytes for value in self.values))
        return largest if len(set(sizes)) == 1 else f"<= {largest}"

    @property
    def tasks(self) -> int:
        """How many tasks use one of them."""
        return sum(value.tasks for value in self.values)

    @property
    def plain_sends(self) -> int:
        """Bytes that pass through the scheduler in plain Dask."""
        return sum(value.plain_sends for value in self.values)

    @property
    def plain_keeps(self) -> int:
        """Bytes of these that stay on the scheduler."""
        return sum(value.plain_keeps for value in self.values)

    @property
    def daskps_sends(self) -> int:
        """What passes through the scheduler with daskps (bytes), about."""
        return sum(value.daskps_sends for value in self.values)

    @property
    def what(self) -> str:
        """What they are."""
        n = sum(value.copies for value in self.values)
        equal = self.first.copies if len(self.values) == 1 else 1
        many = f"{n} {'equal ' if equal > 1 else ''}x " if n > 1 else ""
        return f"{many}{self.first.type}"

    @property
    def where(self) -> str:
        """Where they are."""
        value = self.first
        named = value.argument
        if len(self.values) > 1:
            named = re.sub(r"\[\d+\]", "[...]", named)
        argument = f", {named}" if named else ""
        line = f" ({value.line})" if value.line else ""
        return f"in {value.where}{argument}{line}"


class Explanation:
    """What is large, where, how often it is used, and what to do. Shows as a table.

    Attributes
    ----------
    values
        One :class:`LargeValue` for each, the one that costs most in plain Dask first.
    threshold
        Bytes from which on a value is large.
    stored
        How many values are stored already, by an earlier pass.
    packs
        Into about how many objects the values that are packed would go.
    tasks
        How many tasks the graph has, of those that are needed.
    rest_nbytes
        Bytes of what is not listed: small values.
    """

    values: list[LargeValue]
    threshold: int
    stored: int
    packs: int
    tasks: int
    rest_nbytes: int

    def __init__(
        self,
        values: list[LargeValue],
        threshold: int,
        stored: int = 0,
        tasks: int = 0,
        rest_nbytes: int = 0,
    ):
        self.packs = _packs(
            value.nbytes
            for value in values
            if value.packed
            for _ in range(value.copies)
        )
        self.values = sorted(values, key=lambda v: (-v.plain_sends, -v.nbytes))
        self.threshold = threshold
        self.stored = stored
        self.tasks = tasks
        self.rest_nbytes = rest_nbytes

    @property
    def nbytes(self) -> int:
        """Bytes that would travel by reference, and so be stored: at most."""
        return sum(value.nbytes * _stored(value) for value in self.values)

    @property
    def plain_sends(self) -> int:
        """Bytes that pass through the scheduler in plain Dask, with the graph itself."""
        return sum(value.plain_sends for value in self.values) + self._rest

    @property
    def plain_keeps(self) -> int:
        """Bytes of values that stay on the scheduler in plain Dask."""
        return sum(value.plain_keeps for value in self.values) + self.rest_nbytes

    @property
    def daskps_sends(self) -> int:
        """Bytes that pass through the scheduler with daskps, about."""
        return sum(value.daskps_sends for value in self.values) + self._rest

    @property
    def _rest(self) -> int:
        return 2 * self.rest_nbytes + TASK_NBYTES * self.tasks

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[LargeValue]:
        return iter(self.values)

    def to_pandas(self) -> pd.DataFrame:
        """The values as a data frame, a row for each; sizes in bytes."""
        import pandas as pd

        sums = "plain_sends", "plain_keeps", "daskps_sends"
        rows = [
            {
                **asdict(value),
                "parts": "; ".join(map(str, value.parts)),
                **{name: getattr(value, name) for name in sums},
            }
            for value in self.values
        ]
        return pd.DataFrame(rows, columns=[*LargeValue.__dataclass_fields__, *sums])

    def rows(self) -> list[Row]:
        """The rows of the table: values that look alike share one."""
        alike: dict[tuple[str, ...], list[LargeValue]] = {}
        for value in self.values:
            alike.setdefault(_look(value), []).append(value)
        rows = [Row(values[0], values) for values in alike.values()]
        return sorted(rows, key=lambda row: -row.plain_sends)

    def _summary(self) -> list[str]:
        at_least = format_bytes(self.threshold)
        large = [v.nbytes for v in self.values if v.travels == "stored"]
        packed = [v.nbytes for v in self.values for _ in range(_stored(v)) if v.packed]
        if not self.values:
            return [
                f"No value of {at_least} or more: nothing would travel by reference."
            ]
        said = f"No value of {at_least} or more would travel by reference."
        if large:
            said = (
                f"{_number(len(large), 'value')} of {at_least} or more, "
                f"{format_bytes(sum(large))} in all, would travel by reference."
            )
        if packed:
            # Dask would warn of a graph that has all of them in it.
            said += (
                f" {_number(len(packed), 'smaller value')}, "
                f"{format_bytes(sum(packed))} in all, would travel by reference too, "
                f"packed into {_number(self.packs, 'object')}."
            )
        return [said, self._costs()]

    def _costs(self) -> str:
        return (
            f"Through the scheduler: {format_bytes(self.plain_sends)} in plain Dask, of "
            f"which it keeps {format_bytes(self.plain_keeps)}; "
            f"{format_bytes(self.daskps_sends)} with daskps."
        )

    def __repr__(self) -> str:
        lines = self._summary()
        rows = self.rows()
        if not rows:
            return "\n".join(lines)
        heads = "size", "tasks", "plain Dask", "kept", "daskps"
        lines.append(_columns("what and where", heads))
        listed = _worth_listing(rows)
        for row in listed:
            lines += _text(row)
        if len(rows) > len(listed):
            lines.append(_columns(f"and {len(rows) - len(listed)} more"))
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        summary = "".join(f"<p>{escape(line)}</p>" for line in self._summary())
        rows = self.rows()
        if not rows:
            return summary
        most = max(1, *(row.plain_sends for row in rows))
        listed = _worth_listing(rows)
        body = "".join(_html(row, most) for row in listed)
        if len(rows) > len(listed):
            more = f"and {len(rows) - len(listed)} more"
            body += f"<tr><td colspan='6'>{more}</td></tr>"
        sums = "plain Dask sends", "its scheduler keeps", "daskps sends"
        names = ("size", "tasks", *sums, "what and where")
        head = "".join(f"<th style='text-align:left'>{name}</th>" for name in names)
        return f"{summary}<table><tr>{head}</tr>{body}</table>"


def _worth_listing(rows: list[Row]) -> list[Row]:
    """The first rows, without those that make no difference."""
    least = LEAST_SHARE * rows[0].plain_sends
    return [row for row in rows[:MOST_ROWS] if row.plain_sends >= least]


def _number(n: int, name: str) -> str:
    return f"{n} {name}" if n == 1 else f"{n} {name}s"


def _stored(value: LargeValue) -> int:
    """How many of equal values are stored: one, unless they are packed with others."""
    return {"stored": 1, "packed": value.copies}.get(value.travels, 0)


def _look(value: LargeValue) -> tuple[str, ...]:
    """What is the same for values that share a row."""
    # Items of *args, and values that are packed together, are many and alike.
    argument = re.sub(r"\[\d+\]", "[...]", value.argument)
    type_ = value.type.partition(" ")[0] if value.packed else value.type
    size = "" if value.packed else format_bytes(value.nbytes)
    return size, type_, value.where, value.travels, argument, value.line


def _columns(what: str, numbers: Sequence[str] = ("",) * 5) -> str:
    """A line of the table: size, tasks, and three sums; then words."""
    widths = 14, 8, 11, 11, 11
    cells = (f"{n:>{width}}" for n, width in zip(numbers, widths, strict=True))
    return f"{' '.join(cells)}  {what}".rstrip()


def _notes(row: Row) -> list[str]:
    """What is said below a row."""
    parts = [str(part) for part in row.first.parts]
    return [*parts, row.first.advice] if row.first.advice else parts


def _text(row: Row) -> list[str]:
    sums = row.plain_sends, row.plain_keeps, row.daskps_sends
    numbers = row.size, str(row.tasks), *map(format_bytes, sums)
    first = _columns(f"{row.what} {row.where}", numbers)
    return [first, *(_columns(f"  {note}") for note in _notes(row))]


def _html(row: Row, most: int) -> str:
    cells = [
        escape(row.size),
        str(row.tasks),
        _bar(row.plain_sends, most, "#c0504d"),
        escape(format_bytes(row.plain_keeps)),
        _bar(row.daskps_sends, most, "#4f81bd"),
        "<br>".join(
            [f"<b>{escape(row.what)}</b> {escape(row.where)}"]
            + [escape(note) for note in _notes(row)]
        ),
    ]
    style = "style='text-align:left; vertical-align:top'"
    return "<tr>" + "".join(f"<td {style}>{cell}</td>" for cell in cells) + "</tr>"


def _bar(nbytes: int, most: int, color: str) -> str:
    """A size, with a bar of its length compared to the largest one's."""
    width = max(1, round(100 * nbytes / most))
    bar = f"<div style='width:{width}px; height:0.6em; background:{color}'></div>"
    return f"{escape(format_bytes(nbytes))}{bar}"


def _packs(sizes: Iterable[int]) -> int:
    """Objects that small values of these sizes (bytes) go into, in this order."""
    packs, waiting = 0, 0
    for nbytes in sizes:
        packs += not waiting
        waiting = waiting + nbytes if waiting + nbytes < PACK_NBYTES else 0
    return packs
