"""Read what the benchmarks have printed: the ``.txt`` files beside this one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
#: Columns of ``python -m benchmarks`` (``benchmarks/table.py``), from where the time ends,
#: which the longest name of a peer decides.
COLUMNS = {
    "time": (-10, 0),
    "daskps is faster by": (3, 29),
    "through the scheduler": (29, 42),
    "it grows by": (42, 52),
    "put into the store": (52, 68),
    "copies by client, worker": (71, None),
}
#: A peer's name, and its time.
PEER = re.compile(r"  (\S.*?) +[\d.]+ ms")
#: What is in the last column where there are many tasks.
RATES = "rate, and the processor's time for each task"
#: Where a row's name ends, or a cell.
GAP = re.compile(r" {2,}")
#: What ``python -m benchmarks.network`` says first.
NETWORK = re.compile(r"(\S+) links, .* on each of (\d+) hosts, client (\S+),")
SECONDS_AND_BYTES = re.compile(r"(\d s) (\d+\.\d+ MB)")
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

    def rate(self, peer: str) -> float:
        """Tasks each second of one peer."""
        return number(self.peers[peer]["copies by client, worker"])


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
        if peer := PEER.match(line):
            found[-1].peers[peer[1]] = _cells(line, peer.end())
        elif not line.startswith((" ", "daskps: ")):  # no heading, nor what it ran on
            found.append(Scenario(line, {}))
    return [scenario for scenario in found if scenario.peers]


def _cells(line: str, origin: int) -> dict[str, str]:
    return {
        column: text
        for column, (start, end) in COLUMNS.items()
        if (
            text := line[origin + start : None if end is None else origin + end].strip()
        )
    }


@dataclass
class OnNetwork:
    """A row of ``python -m benchmarks.network``, and what it ran on.

    Attributes
    ----------
    rate
        Of each link, as ``tc`` has it.
    hosts
        How many have workers.
    client
        Whether it takes connections.
    cells
        Work, time and bytes of Dask, of daskps, ratio, share of the bytes.
    """

    rate: str
    hosts: int
    client: str
    cells: list[str]


def on_network(name: str) -> Iterator[OnNetwork]:
    """The rows of several runs, one after the other in a file."""
    for cells in lines(name):
        if run := NETWORK.match(" ".join(cells)):
            rate, hosts, client = run.groups()
        elif len(cells) >= 7:
            yield OnNetwork(rate, int(hosts), client, cells[:7])


def lines(name: str) -> Iterator[list[str]]:
    """The lines of a table of one row each, cut where there are two spaces or more."""
    for line in read(name).splitlines():
        # A ratio may fill its column, and a number of bytes.
        cut = RATIO.sub(lambda found: f"{found[0]}  ", line)
        cut = SECONDS_AND_BYTES.sub(r"\1  \2", cut)
        yield GAP.split(cut.strip())
