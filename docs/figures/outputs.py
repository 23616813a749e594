"""Read what the benchmarks have printed: the ``.txt`` files beside this one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
#: Columns of ``python -m benchmarks`` (``benchmarks/table.py``), after the peer's name.
COLUMNS = {
    "time": (17, 27),
    "daskps is faster by": (30, 56),
    "through the scheduler": (56, 69),
    "it grows by": (69, 79),
    "put into the store": (79, 95),
    "copies by client, worker": (98, None),
}
#: What is in the last column where there are many tasks.
RATES = "rate, and the processor's time for each task"
#: Where a row's name ends, or a cell.
GAP = re.compile(r" {2,}")
RATIO = re.compile(r"\d+\.\d+ \(\d+\.\d+ to \d+\.\d+\)")


@dataclass
class Scenario:
    """What all peers took for one scenario.

    Attributes
    ----------
    name
        As printed.
    peers
        By name, the cells of a row as printed, by column.
    """

    name: str
    peers: dict[str, dict[str, str]]

    def ms(self, peer: str) -> float:
        """The time of one peer, ms."""
        return number(self.peers[peer]["time"])

    def faster(self, peer: str) -> float:
        """How many times as fast as this peer daskps is, by pairs of runs."""
        return number(self.peers[peer]["daskps is faster by"])


def number(text: str) -> float:
    """The number that a text begins with."""
    found = re.match(r"[\d.]+", text)
    assert found, text
    return float(found[0])


def read(name: str) -> str:
    """One command's output."""
    return (HERE / f"{name}.txt").read_text()


def scenarios(name: str) -> list[Scenario]:
    """The scenarios in an output of ``python -m benchmarks``."""
    found: list[Scenario] = []
    for line in read(name).splitlines():
        if line.startswith("  "):
            if found:  # otherwise it is a heading
                found[-1].peers[line[:17].strip()] = _cells(line)
        elif ": " not in line[:12]:  # not what it ran on
            found.append(Scenario(line, {}))
    return [scenario for scenario in found if scenario.peers]


def _cells(line: str) -> dict[str, str]:
    return {
        column: text
        for column, (start, end) in COLUMNS.items()
        if (text := line[start:end].strip())
    }


def lines(name: str) -> Iterator[list[str]]:
    """The lines of a table of one row each, cut where there are two spaces or more."""
    for line in read(name).splitlines():
        # A ratio may fill its column.
        cut = RATIO.sub(lambda found: f"{found[0]}  ", line)
        yield GAP.split(cut.strip())
