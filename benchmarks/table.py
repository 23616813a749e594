"""Tables for the terminal."""

from __future__ import annotations

import itertools

from benchmarks.goals import Outcome
from benchmarks.peers import RAY
from benchmarks.results import Comparison, Measured
from benchmarks.scenario import KB, MB
from benchmarks.shapes import GROUP

_COLUMNS = "{:24}{:>10}   {:26}{:>13}{:>10}{:>16}   {}"
_HEADING = "\n".join(
    _COLUMNS.format(*cells)
    for cells in (
        ("", "time", "daskps is", "through the", "it grows", "put into", "copies by"),
        ("", "", "faster by", "scheduler", "by", "the store", "client, worker"),
    )
)
_SHAPE = "{:48}{:>10}{:>11}   {:24}{}"


def heading(group: str) -> str:
    """What the columns of :func:`rows` are, for scenarios of this group."""
    if group != GROUP:
        return _HEADING
    return "\n".join(
        _SHAPE.format(*cells).rstrip()
        for cells in (
            ("", "dask", "daskps", "daskps is faster by", "dask's processor time is"),
            ("", "", "", "", "this times that of daskps"),
        )
    )


def rows(c: Comparison) -> str:
    """A scenario, with a line for each peer; a shape, in one line."""
    if c.group == GROUP:
        return _SHAPE.format(
            c.scenario,
            _time(c.peers["dask"].median()),
            _time(c.peers["daskps"].median()),
            str(c.ratio("dask", "daskps")),
            c.ratio("dask", "daskps", "cpu_of_all"),
        )
    ours = next(name for name in c.peers if name not in ("dask", RAY))
    lines = [c.scenario]
    for name, measured in c.peers.items():
        faster = "" if name == ours else str(c.ratio(name, ours))
        lines.append(
            f"  {name:22}{_time(measured.median())}   {faster:26}"
            f"{'' if name == RAY else _counts(c, measured)}".rstrip()
        )
    return "\n".join(lines)


def _counts(c: Comparison, measured: Measured) -> str:
    puts = ""
    if measured.most("puts"):
        puts = f"{measured.median('puts'):g}: {_size(measured.median('stored'))}"
    text = (
        f"{_size(measured.median('traffic')):>13}"
        f"{_size(measured.most('growth')):>10}"
        f"{puts:>16}"
    )
    if measured.copies is not None:
        copies = measured.copies
        text += f"   {copies.client.made:.1f}, {copies.worker.made:.1f}"
    if c.tasks:
        rate = c.tasks / measured.median()
        cpu, of_all = (
            measured.median(of) / c.tasks * 1e3 for of in ("cpu", "cpu_of_all")
        )
        text += (
            f"   {rate:.0f} tasks/s, {cpu:.2f} ms of its CPU each, {of_all:.2f} of all"
        )
    return text


def _size(nbytes: float) -> str:
    """With as many digits as matter beside a payload."""
    if nbytes < 100 * KB:
        return f"{nbytes / KB:.0f} kB"
    return f"{nbytes / MB:.1f} MB" if nbytes < 10 * MB else f"{nbytes / MB:.0f} MB"


def _time(seconds: float) -> str:
    if seconds < 0.1:
        return f"{seconds * 1e3:7.1f} ms"
    return f"{seconds * 1e3:7.0f} ms"


def goals(outcomes: list[Outcome]) -> str:
    """What was asked for, and what was measured. What was not measured is left out."""
    lines = []
    outcomes = [outcome for outcome in outcomes if outcome.reached is not None]
    for scenario, its in itertools.groupby(outcomes, lambda o: o.goal.scenario):
        lines.append(scenario)
        for outcome in its:
            mark = "reached" if outcome.reached else "NOT REACHED"
            line = f"  {outcome.goal!s:53}{outcome.text:28}{mark}"
            lines.append(line.rstrip())
    reached = sum(bool(outcome.reached) for outcome in outcomes)
    lines.append(f"{reached} of {len(outcomes)} goals that were measured are reached")
    return "\n".join(lines)
