"""Run benchmarks: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path

import dask
from tqdm import tqdm

import daskps
from benchmarks import scenarios as s
from benchmarks.cluster import MIB, cluster
from benchmarks.pairs import Comparison, compare, heading, line
from benchmarks.plots import draw

SCENARIOS = [
    s.round_trip_in(10_000),
    s.round_trip_in(100_000),
    s.round_trip_in(1 * MIB),
    s.round_trip_in(100 * MIB),
    s.round_trip_in_out(1 * MIB),
    s.round_trip_in_out(100 * MIB),
    s.model_in_delayed(64 * MIB, 32),
    s.model_in_map(64 * MIB, 32),
    s.model_in_submits(64 * MIB, 32),
    s.model_in_submits(64 * MIB, 32, writable=False),
    s.array_sum(256 * MIB),
    s.repeated_compute(256 * MIB),
    s.frame_mean(256 * MIB),
    s.bag_of_bytes(256 * MIB),
    s.large_result(256 * MIB),
    s.cholesky(4096, 512),
]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Compare Dask with and without daskps, in turn, in one run.",
    )
    parser.add_argument(
        "names", nargs="*", help="parts of scenarios' names; all if none"
    )
    parser.add_argument(
        "--repeat", type=int, default=7, help="runs of each (default: 7)"
    )
    parser.add_argument("--workers", type=int, default=2, help="how many (default: 2)")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIRECTORY",
        help="also write all runs there (JSON), and plots (PNG, SVG)",
    )
    parser.add_argument("--list", action="store_true", help="only name the scenarios")
    args = parser.parse_args()
    chosen = [
        x for x in SCENARIOS if not args.names or any(n in x.name for n in args.names)
    ]
    if args.list:
        print(*(x.name for x in chosen), sep="\n")
        return 0
    if not chosen:
        parser.error("no scenario has such a name; see --list")
    print(
        f"daskps {daskps.__version__}, dask {dask.__version__}, Python "
        f"{platform.python_version()}, {os.cpu_count()} cores, {args.workers} workers, "
        f"medians of {args.repeat} runs each"
    )
    done: list[Comparison] = []
    print(heading())
    with tqdm(total=len(chosen), leave=False, disable=None) as bar:
        for scenario in chosen:
            bar.set_description(scenario.name)
            with cluster(args.workers) as c:
                done.append(compare(c, scenario, args.repeat, bar.set_postfix_str))
            bar.write(line(done[-1]))
            sys.stdout.flush()
            bar.update()
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        text = json.dumps([x.as_dict() for x in done], indent=1)
        (args.output / "benchmarks.json").write_text(text + "\n")
        for suffix in "png", "svg":
            draw(done, args.output / f"benchmarks.{suffix}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
