"""Draw comparisons: one image for each group of scenarios."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from benchmarks.peers import BY_REFERENCE, LIMIT, OURS, RAY, ZARR
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
    "daskps shm": "#0072B2",
    "daskps peer": "#56B4E9",
    "daskps file": "#E69F00",
    "daskps redis": "#D55E00",
    "by hand, Redis": "#70C9AE",
    "proxystore_ex, Redis": "#E5BCD3",
    ZARR: "#8B5E3C",
}
MARKERS = dict(zip(COLOURS, "ossD^vXs*PpDvh", strict=True))
LIMIT_LABEL = "limit: no data shipped"
# Dask's own processes, which the workers share the cores with.
CLIENT_AND_SCHEDULER = 2


def draw(comparisons: Iterable[Comparison], directory: Path) -> None:
    """Write an image for each group, as PNG and as SVG.

    Round trips are curves over the size, the throughput bars over the number of workers, or
    curves for each of several panels; all others are bars of the time, with plain Dask as 1.

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
    panels = {c.panel: [m for m in members if m.panel == c.panel] for c in members}
    if group == "throughput":
        return _rates(members)
    if len(members) == len(panels) or not all(c.at for c in members):
        return _bars(members)
    if all(c.tasks for c in members):
        return _over_workers(panels)
    return _over_sizes({name or group: some for name, some in panels.items()})


def _names(members: list[Comparison]) -> list[str]:
    """Peers in the order of their first appearance, without the limit."""
    names = dict.fromkeys(name for c in members for name in c.peers)
    return [name for name in names if name != LIMIT]


def _over_sizes(panels: dict[str, list[Comparison]]) -> Any:
    """Times over the size, and below them those times with plain Dask's as 1."""
    figure, axes = plt.subplots(
        *(2, len(panels)),
        figsize=(7 if len(panels) == 1 else 4.5 * len(panels), 7),
        sharex=True,
        sharey="row",
        squeeze=False,
        layout="constrained",
        height_ratios=(3, 2),
    )
    for (title, members), (above, below) in zip(panels.items(), axes.T, strict=True):
        _times(above, below, members)
        above.set_title(title)
        below.axhline(1, color=COLOURS["dask"], linewidth=0.8)
        below.set_xlabel("size of the value")
        for each in (above, below):
            _curves(each)
            each.set_yscale("log")
        below.set_xscale("log")
        below.set_xticks(
            [c.at for c in members], [size(int(c.at)) for c in members], rotation=30
        )
        below.xaxis.set_minor_locator(NullLocator())
    for each, label in zip(
        axes[:, 0], ("time (ms)", "multiple of dask's time"), strict=True
    ):
        each.set_ylabel(label)
        _plain_ticks(each.yaxis)
    _legend(figure, columns=4)
    return figure


def _times(above: Any, below: Any, members: list[Comparison]) -> None:
    for name in [*_names(members), LIMIT]:
        mine = [c for c in members if name in c.peers]
        if not mine:
            continue
        sizes = [c.at for c in mine]
        times = [c.peers[name].median() * 1e3 for c in mine]
        above.plot(sizes, times, **_look(name))
        ratios = [c.ratio(name, "dask") for c in mine]
        below.plot(sizes, [r.median for r in ratios], **_look(name))
        if name in OURS:
            low, high = [r.low for r in ratios], [r.high for r in ratios]
            below.fill_between(sizes, low, high, color=COLOURS[name], alpha=0.2)


def _look(name: str) -> dict[str, Any]:
    """How a peer's curve looks, and what it is called."""
    if name == LIMIT:
        style = {"color": "black", "linestyle": "--", "linewidth": 1.2}
        return {"label": LIMIT_LABEL, **style}
    return {
        "label": name,
        "color": COLOURS[name],
        "marker": MARKERS[name],
        "markersize": 4,
    }


def _curves(axes: Any) -> None:
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _over_workers(panels: dict[str, list[Comparison]]) -> Any:
    """Tasks each second over the number of workers, as measured and as predicted.

    Above, all processes share the cores of this machine. Below is what one scheduler that
    has a core of its own can do at most: its processor time for each task carries over to
    machines with more cores.
    """
    figure, axes = plt.subplots(
        *(2, len(panels)),
        figsize=(3.2 * len(panels), 7),
        sharex=True,
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for (title, members), (above, below) in zip(panels.items(), axes.T, strict=True):
        for name in [*_names(members), LIMIT]:
            mine = [c for c in members if name in c.peers]
            if mine:
                at = [c.at for c in mine]
                above.plot(at, [_rate(c, name) for c in mine], **_look(name))
                below.plot(at, [_rate(c, name, "cpu") for c in mine], **_look(name))
        above.set_title(title)
        below.set_xlabel("workers")
        for each in (above, below):
            _curves(each)
            each.set_yscale("log")
        below.set_xscale("log", base=2)
        below.set_xticks([c.at for c in members], [f"{c.at:g}" for c in members])
        _shade_shared_cores(above, members)
    labels = ("tasks each second", "tasks each second that the scheduler's\nCPU allows")
    for each, label in zip(axes[:, 0], labels, strict=True):
        each.set_ylabel(label)
        _plain_ticks(each.yaxis)
    _legend(figure, columns=5)
    return figure


def _rate(c: Comparison, name: str, of: str = "seconds") -> float:
    return c.tasks / c.peers[name].median(of)


def _shade_shared_cores(axes: Any, members: list[Comparison]) -> None:
    """Mark where there are more processes than cores."""
    cores = os.cpu_count() or 1
    alone = max(0.0, cores - CLIENT_AND_SCHEDULER)
    low, high = members[0].at, members[-1].at
    if alone >= high:
        return
    axes.axvspan(max(low, alone), high, color="black", alpha=0.05, linewidth=0)
    axes.annotate(
        f"more processes than the {cores} cores",
        (0.98, 0.02),
        xycoords="axes fraction",
        ha="right",
        fontsize=7,
    )


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
