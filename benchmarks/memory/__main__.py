"""Programs in a limit of memory, as Dask and with daskps: ``python -m benchmarks.memory``.

All processes of a program are in one control group, as in a container or a job of a cluster:
the kernel kills one of them if they need more than the limit together.
"""

from __future__ import annotations

import argparse
import sys

from dask.utils import format_bytes, parse_bytes

from benchmarks.memory.groups import NoGroupsError
from benchmarks.memory.limited import MIXED_SECONDS, Outcome, run, run_mixed
from benchmarks.memory.programs import PROGRAMS

_ROW = "{:12}{:10}{:>22}{:>14}{:>10}"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory",
        description="Run programs in a limit of memory, as Dask and with daskps.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("only", nargs="*", choices=[[], *PROGRAMS, "mixed"], help="none: all")
    add("--limit", default="800 MiB", help="of all processes together")
    add("--seconds", type=float, default=MIXED_SECONDS, help="for mixed work")
    args = parser.parse_args()
    limit = parse_bytes(args.limit)
    print(f"Limit: {format_bytes(limit)}")
    print(_ROW.format("program", "who", "", "peak", "seconds"))
    worse = False
    for name in PROGRAMS:
        if args.only and name not in args.only:
            continue
        try:
            plain, ours = (run(name, who, limit) for who in ("dask", "daskps"))
        except NoGroupsError as e:
            print(f"Left out: {e}")
            break
        for who, outcome in (("dask", plain), ("daskps", ours)):
            print(_row(name, who, outcome))
            if not outcome.finished:
                print("  ", *outcome.output.splitlines()[-3:], sep="\n  ")
        worse |= plain.finished and not ours.finished
    if not args.only or "mixed" in args.only:
        print(f"mixed, {args.seconds:g} s:", run_mixed(args.seconds))
    return int(worse)


def _row(name: str, who: str, outcome: Outcome) -> str:
    if outcome.finished:
        said = "finished"
    else:
        said = f"{outcome.kills} killed" if outcome.kills else "failed"
    seconds = f"{outcome.seconds:.0f} s"
    return _ROW.format(name, who, said, format_bytes(outcome.peak), seconds)


if __name__ == "__main__":
    sys.exit(main())
