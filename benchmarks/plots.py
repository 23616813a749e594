"""Draw comparisons: one image for each group of scenarios."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from benchmarks.peers import BY_REFERENCE, LIMIT, RAY
from benchmarks.results import Comparison
from benchmarks.scenario import size

# Distinguishable also without colours and by most people who see few of them: Okabe and Ito.
COLOURS = {
    "dask": "#999999",
    "daskps": "#0072B2",
    BY_REFERENCE: "#0072B2",
    "scatter": "#E69F00",
    "by hand": "#009E73",
    "proxystore_ex": "#CC79A7",
    RAY: "#D55E00",
}
MARKERS = dict(zip(COLOURS, "ossD^vX", strict=True))
LIMIT_LABEL = "limit: no data shipped"


def draw(comparisons: Iterable[Comparison], directory: Path) -> None:
    """Write an image for each group, as PNG and as SVG.

    Round trips are curves over the size, the throughput bars over the number of workers;
    all others are bars of the time, with plain Dask as 1.

    Parameters
    ----------
    comparisons
        Those of a group follow each other.
    directory
        Where to; exists.
    """
    style: dict[Any, Any] = {
        "font.size": 9,
        "svg.hashsalt": "daskps",
        "legend.frameon": False,
    }
    with plt.rc_context(style):
        for group, members in itertools.groupby(comparisons, lambda c: c.group):
            figure = _draw_group(group, list(members))
            for suffix in ("png", "svg"):
                name = f"{group.replace(' ', '-')}.{suffix}"
                figure.savefig(directory / name, dpi=150)
            plt.close(figure)


def _draw_group(group: str, members: list[Comparison]) -> Any:
    if group == "throughput":
        return _rates(members)
    if len(members) > 1 and all(c.at for c in members):
        return _over_sizes(group, members)
    return _bars(members)


def _names(members: list[Comparison]) -> list[str]:
    """Peers in the order of their first appearance, without the limit."""
    names = dict.fromkeys(name for c in members for name in c.peers)
    return [name for name in names if name != LIMIT]


def _over_sizes(group: str, members: list[Comparison]) -> Any:
    """Times over the size, and below them those times with plain Dask's as 1."""
    figure, (above, below) = plt.subplots(
        2, figsize=(7, 7), sharex=True, layout="constrained", height_ratios=(3, 2)
    )
    for name in [*_names(members), LIMIT]:
        mine = [c for c in members if name in c.peers]
        if not mine:
            continue
        sizes = [c.at for c in mine]
        look: dict[str, Any] = {"color": "black", "linestyle": "--", "linewidth": 1.2}
        if name != LIMIT:
            look = {"color": COLOURS[name], "marker": MARKERS[name], "markersize": 4}
        label = LIMIT_LABEL if name == LIMIT else name
        times = [c.peers[name].median() * 1e3 for c in mine]
        above.plot(sizes, times, label=label, **look)
        ratios = [c.ratio(name, "dask") for c in mine]
        below.plot(sizes, [r.median for r in ratios], **look)
        if name in ("daskps", BY_REFERENCE):
            low, high = [r.low for r in ratios], [r.high for r in ratios]
            below.fill_between(sizes, low, high, color=COLOURS[name], alpha=0.2)
    above.set_title(group)
    above.set_ylabel("time (ms)")
    below.set_ylabel("multiple of dask's time")
    below.set_xlabel("size of the value")
    below.axhline(1, color=COLOURS["dask"], linewidth=0.8)
    for axes in (above, below):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        _plain_ticks(axes.yaxis)
    below.set_xticks(
        [c.at for c in members], [size(int(c.at)) for c in members], rotation=30
    )
    below.xaxis.set_minor_locator(NullLocator())
    _legend(figure, columns=4)
    return figure


def _plain_ticks(axis: Any) -> None:
    """Ordinary numbers on a logarithmic axis, between the powers of ten where few are."""
    low, high = axis.get_view_interval()
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    for span, steps in ((5, (1, 1.2, 1.5, *range(2, 10))), (1000, (1, 2, 5))):
        if high / low < span:
            ticks = [m * 10.0**e for e in range(-4, 7) for m in steps]
            axis.set_ticks([x for x in ticks if low <= x <= high])
            break
    axis.set_minor_formatter(NullFormatter())


def _rates(members: list[Comparison]) -> Any:
    """Tasks each second, and the scheduler's processor time for each."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    names = _names(members)
    for i, name in enumerate(names):
        width = 0.8 / len(names)
        mine = [(k, c) for k, c in enumerate(members) if name in c.peers]
        at = [k + (i - (len(names) - 1) / 2) * width for k, _ in mine]
        rates = [c.tasks / c.peers[name].median() for _, c in mine]
        left.bar(at, rates, width, color=COLOURS[name], label=name)
        if name != RAY:
            cpus = [c.peers[name].median("cpu") / c.tasks * 1e3 for _, c in mine]
            right.bar(at, cpus, width, color=COLOURS[name])
    for k, c in enumerate(members):
        if LIMIT in c.peers:
            limit = c.peers[LIMIT]
            label = LIMIT_LABEL if k == 0 else None
            for axes, y in (
                (left, c.tasks / limit.median()),
                (right, limit.median("cpu") / c.tasks * 1e3),
            ):
                axes.hlines(y, k - 0.45, k + 0.45, color="black", label=label)
                label = None
    left.set_ylabel("tasks each second")
    right.set_ylabel("CPU of the scheduler for each task (ms)")
    for axes in (left, right):
        ticks = [f"{c.at:g} workers" for c in members]
        axes.set_xticks(range(len(members)), ticks)
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    _legend(figure, columns=7)
    return figure


def _bars(members: list[Comparison]) -> Any:
    """A bar for each peer, with its quartiles; plain Dask is 1."""
    count = sum(len(c.peers) for c in members)
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.24 * count), layout="constrained")
    at, ticks, labelled = 0.0, [], set()

    def once(label: str) -> str:
        new = label not in labelled
        labelled.add(label)
        return label if new else "_nolegend_"

    for c in members:
        names = _names([c])
        ticks.append(at + (len(names) - 1) / 2)
        for i, name in enumerate(names):
            ratio = c.ratio(name, "dask")
            axes.barh(at + i, ratio.median, 0.9, color=COLOURS[name], label=once(name))
            axes.hlines(at + i, ratio.low, ratio.high, color="black", linewidth=0.8)
            text = f"{ratio.median:.3g}  ({_time(c.peers[name].median())})"
            axes.annotate(
                text,
                (max(ratio.median, ratio.high), at + i),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
            )
        if LIMIT in c.peers:
            x = c.ratio(LIMIT, "dask").median
            ends = at - 0.5, at + len(names) - 0.5
            axes.vlines(
                x, *ends, color="black", linewidth=2, label=once(LIMIT_LABEL), zorder=3
            )
        at += len(names) + 1
    axes.set_yticks(ticks, [c.scenario for c in members])
    axes.axvline(1, color=COLOURS["dask"], linewidth=0.5)
    _scale(axes, members)
    axes.set_xlabel(
        "time as a multiple of dask's: medians and quartiles of paired runs"
    )
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    _legend(figure, columns=4)
    return figure


def _scale(axes: Any, members: list[Comparison]) -> None:
    """Choose a scale for bars, with room on the right for their numbers."""
    lowest = min(c.ratio(name, "dask").low for c in members for name in c.peers)
    _, high = axes.get_xlim()
    if lowest > 0.4:  # all of about the same length
        axes.set_xlim(0, high * 1.25)
        return
    low = lowest / 1.5
    axes.set_xscale("log")
    axes.set_xlim(low, high * (high / low) ** 0.25)
    _plain_ticks(axes.xaxis)


def _legend(figure: Any, columns: int) -> None:
    """One legend above all axes, with the limit at its end."""
    labels: dict[str, Any] = {}
    for axes in figure.axes:
        handles, names = axes.get_legend_handles_labels()
        labels.update(zip(names, handles, strict=True))
    order = sorted(labels, key=lambda name: name == LIMIT_LABEL)
    figure.legend(
        [labels[name] for name in order],
        order,
        loc="outside upper center",
        ncols=columns,
    )


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"
