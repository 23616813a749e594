"""Draw comparisons."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot as plt

from benchmarks.pairs import LIMIT, Comparison

# Distinguishable also without colours and by most people who see few of them: Okabe and Ito.
COLOURS = {
    "dask": "#999999",
    "daskps": "#0072B2",
    "scatter": "#E69F00",
    "by hand": "#009E73",
    "proxystore_ex": "#CC79A7",
}


def draw(comparisons: list[Comparison], path: Path) -> None:
    """Draw bars of how long each peer takes, with plain Dask as 1.

    Parameters
    ----------
    comparisons
        From the top down.
    path
        Of the image; its suffix says which kind.
    """
    bars = sum(len(c.peers) for c in comparisons)
    figure, axes = plt.subplots(figsize=(8, 1 + 0.2 * bars), layout="constrained")
    at, ticks, labelled = 0.0, [], set()
    for c in comparisons:
        base = c.peers["dask"].median
        names = [name for name in c.peers if name != LIMIT]
        ticks.append(at + (len(names) - 1) / 2)
        for i, name in enumerate(names):
            ratio = c.peers[name].median / base
            label = None if name in labelled else name
            labelled.add(name)
            axes.barh(at + i, ratio, 0.9, color=COLOURS[name], label=label)
            axes.text(ratio * 1.03, at + i, f"{ratio:.2f}", va="center", fontsize=7)
        if LIMIT in c.peers:
            x = c.peers[LIMIT].median / base
            label = None if LIMIT in labelled else "no data shipped"
            labelled.add(LIMIT)
            ends = at - 0.5, at + len(names) - 0.5
            axes.plot([x, x], ends, color="black", linewidth=1.5, label=label)
        at += len(names) + 1
    axes.set_yticks(ticks, [c.scenario for c in comparisons])
    axes.set_xscale("log")
    axes.set_xlabel("time, as a multiple of plain Dask's (medians)")
    axes.axvline(1, color="#999999", linewidth=0.5)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=6, fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
