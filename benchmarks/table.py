"""Tables for the terminal."""

from __future__ import annotations

from dask.utils import format_bytes

from benchmarks.goals import AT_LEAST, Outcome
from benchmarks.peers import RAY
from benchmarks.results import Comparison, Measured

#: Says what the columns of :func:`rows` are.
HEADING = f"""\
{"":17}{"time":>10}   {"daskps is":24}{"the scheduler's":23}{"put into":>9}   copies by
{"":30}{"faster by":24}{"traffic":>10}{"growth":>11}   {"the store":>9}   client, worker"""


def rows(c: Comparison) -> str:
    """A scenario, with a line for each peer."""
    ours = next(name for name in c.peers if name not in ("dask", RAY))
    lines = [c.scenario]
    for name, measured in c.peers.items():
        faster = "" if name == ours else str(c.ratio(name, ours))
        lines.append(
            f"  {name:15}{_time(measured.median())}   {faster:24}"
            f"{'' if name == RAY else _counts(c, measured)}".rstrip()
        )
    return "\n".join(lines)


def _counts(c: Comparison, measured: Measured) -> str:
    text = (
        f"{format_bytes(int(measured.median('traffic'))):>10}"
        f"{format_bytes(int(measured.most('growth'))):>11}   "
        f"{format_bytes(int(measured.median('stored'))):>9}"
    )
    if measured.copies is not None:
        copies = measured.copies
        text += f"   {copies.client.made:.1f}, {copies.worker.made:.1f}"
    if c.tasks:
        rate = c.tasks / measured.median()
        cpu = measured.median("cpu") / c.tasks * 1e3
        text += f"   {rate:.0f} tasks/s, {cpu:.2f} ms of its CPU each"
    return text


def _time(seconds: float) -> str:
    if seconds < 0.1:
        return f"{seconds * 1e3:7.1f} ms"
    return f"{seconds * 1e3:7.0f} ms"


def goals(outcomes: list[Outcome]) -> str:
    """What was to be reached, and what was."""
    lines = [f"{'goals':75}{'asked':>12}   measured"]
    for outcome in outcomes:
        goal = outcome.goal
        bound = "at least" if goal.quantity in AT_LEAST else "at most"
        asked = f"{bound} {goal.asked:g}"
        mark = {True: "reached", False: "NOT REACHED", None: ""}[outcome.reached]
        line = f"{goal!s:72}{asked:>15}   {outcome.text:24}{mark}"
        lines.append("  " + line.rstrip())
    reached = [o.reached for o in outcomes if o.reached is not None]
    lines.append(f"  {sum(reached)} of {len(reached)} goals that were measured")
    return "\n".join(lines)
