"""Plots: bars and lines, of labelled numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from svg import Picture

#: Of each peer of the benchmarks.
PEERS = {
    "dask": "grey",
    "daskps": "ours",
    "scatter": "yellow",
    "by hand": "green",
    "proxystore_ex": "pink",
    "ray": "red",
    "limit": "ink",
}
#: Those of the paper's figures. What is on a Redis server is dashed.
PEERS_OF_THE_PAPER = (
    "dask",
    "daskps shm",
    "daskps redis",
    "by hand",
    "by hand, Redis",
    "proxystore_ex",
    "proxystore_ex, Redis",
)


def _colour(peer: str) -> str:
    """On whichever store it is."""
    return PEERS[
        peer.removesuffix(", Redis").removesuffix(" redis").removesuffix(" shm")
    ]


def _is_dashed(peer: str) -> bool:
    return peer == "limit" or "redis" in peer.lower()


WIDTH = 520
ROW = 22


@dataclass
class Bar:
    """One bar.

    Attributes
    ----------
    label, value, text
        What stands before it, how long it is, what stands behind it.
    colour
        As in :data:`svg.COLOURS`.
    range
        Quartiles, drawn as a line.
    """

    label: str
    value: float
    text: str
    colour: str
    range: tuple[float, float] | None = None


def logarithmic(low: float, high: float, start: float, end: float) -> Callable:
    """A scale: from numbers to pixels."""
    span = math.log(high / low)
    return lambda value: start + (end - start) * math.log(value / low) / span


def bars(
    title: str,
    groups: list[tuple[str, list[Bar]]],
    *,
    low: float,
    left: int = 122,
    width: int = WIDTH,
    marked: float | None = None,
    note: str = "",
) -> Picture:
    """Groups of bars on one logarithmic scale.

    Parameters
    ----------
    groups
        Each with its heading; none if that is empty.
    low
        Where bars begin.
    left
        Pixels for the labels.
    width
        Pixels of all.
    marked
        A number at which there is a line through all bars.
    note
        What stands below.
    """
    headings = sum(bool(heading) for heading, _ in groups)
    rows = sum(len(group) for _, group in groups)
    height = 54 + ROW * rows + 32 * headings + (26 if note else 8)
    picture = Picture(width, height, title)
    picture.text(16, 28, title, size=16, bold=True)
    top = max(
        x for _, group in groups for b in group for x in (b.value, *(b.range or ()))
    )
    longest = max(len(bar.text) for _, group in groups for bar in group)
    at = logarithmic(low, top, left, width - 14 - 8 * longest)
    y = 44.0
    first = y
    for heading, group in groups:
        if heading:
            picture.text(16, y + 18, heading, size=15, colour="soft", bold=True)
            y += 28
        for bar in group:
            _bar(picture, bar, at, left, y)
            y += ROW
        y += 4 if heading else 0
    if marked is not None:
        picture.line([(at(marked), first), (at(marked), y)], colour="ink", width=1)
    if note:
        picture.text(16, height - 12, note, size=13, colour="soft")
    return picture


def _bar(picture: Picture, bar: Bar, at: Callable, left: int, y: float) -> None:
    bold = bar.label.startswith("daskps")
    picture.text(left - 8, y + 15, bar.label, size=14, anchor="end", bold=bold)
    width = max(at(bar.value) - left, 2)
    picture.box(left, y + 2, width, ROW - 5, colour=bar.colour, round=2)
    end = left + width
    if bar.range:
        low, high = (max(at(x), left) for x in bar.range)
        picture.line([(low, y + 10.5), (high, y + 10.5)], colour="ink", width=1)
        end = max(end, high)
    picture.text(end + 6, y + 15, bar.text, size=14, bold=bold)


def curves(
    title: str,
    steps: list[str],
    values: dict[str, list[float]],
    ticks: dict[float, str],
    *,
    width: int = WIDTH,
    right: int = 116,
) -> Picture:
    """A line for each peer over sizes or numbers, which are as far from each other.

    Parameters
    ----------
    steps
        Below the axis.
    values
        By peer, one for each step.
    ticks
        Numbers on the other axis, and how they are written.
    width
        Pixels of all.
    right
        Pixels for the names.
    """
    height, left, end, bottom = 380, 70, width - right, 330
    picture = Picture(width, height, title)
    picture.text(16, 28, title, size=16, bold=True)
    top = max(x for numbers in values.values() for x in numbers)
    low = min(ticks)
    y = logarithmic(low, top, bottom, 60)
    x = [
        left + 20 + (end - left - 20) * i / (len(steps) - 1) for i in range(len(steps))
    ]
    for tick, written in ticks.items():
        picture.line([(left, y(tick)), (end, y(tick))], colour="edge", width=1)
        picture.text(
            left - 8, y(tick) + 4, written, size=13, anchor="end", colour="soft"
        )
    for at, step in zip(x, steps, strict=True):
        picture.text(at, bottom + 22, step, size=13, anchor="middle", colour="soft")
    for peer, numbers in values.items():
        points = [(a, y(b)) for a, b in zip(x, numbers, strict=True)]
        colour = _colour(peer)
        thick = 3 if peer.startswith("daskps") else 1.8
        picture.line(points, colour=colour, width=thick, dashed=_is_dashed(peer))
        for point in points:
            picture.dot(*point, 2.5, colour)
    _labels(picture, end + 8, {p: y(v[-1]) for p, v in values.items()})
    return picture


def _labels(picture: Picture, x: float, ends: dict[str, float]) -> None:
    """The names at the ends of lines, apart from each other."""
    at = -math.inf
    for peer, y in sorted(ends.items(), key=lambda item: item[1]):
        at = max(y + 4, at + 17)
        bold = peer.startswith("daskps")
        picture.text(x, at, peer, size=14, colour=_colour(peer), bold=bold)
