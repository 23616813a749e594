"""Run benchmarks: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
from dask.utils import parse_bytes
from tqdm import tqdm

import daskps
from benchmarks import goals, memory, peers, ray_peer, table
from benchmarks.catalogue import chosen
from benchmarks.cluster import Cluster
from benchmarks.plots import draw
from benchmarks.results import Comparison
from benchmarks.scenario import GB, MB, Scenario
from benchmarks.turns import Clusters, Rounds, compare, with_copies

# How often data has to have room in memory: at its sender, in the scheduler, and on a
# worker, in and out, some of them twice.
ROOM = 9


def main() -> int:
    """The command."""
    args = _arguments()
    if args.list:
        for scenario in chosen(args.only or [""], args.scale):
            print(f"{scenario.name:56}{scenario.group}")
        return 0
    scenarios = chosen(args.only, args.scale)
    environment = _environment(args)
    print(*(f"{key}: {value}" for key, value in environment.items()), sep=", ")
    if args.control:
        peers.PEERS.update(dict.fromkeys(("daskps", *peers.ON_STORES), peers.plain))
    rounds = Rounds(args.least, max(args.least, args.most), args.seconds)
    # Smaller data is large in comparison with a smaller threshold.
    threshold = int(args.scale * parse_bytes(dask.config.get("daskps.threshold")))
    with _ray(args, scenarios) as ray, dask.config.set({"daskps.threshold": threshold}):
        done = _run(scenarios, rounds, ray, args.workers)
    outcomes = goals.outcomes(done) if args.scale == 1 else []
    if outcomes:
        print(table.goals(outcomes))
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        results: dict[str, Any] = {
            "environment": environment,
            "comparisons": [c.as_dict() for c in done],
            "goals": [outcome.as_dict() for outcome in outcomes],
        }
        (args.output / "benchmarks.json").write_text(json.dumps(results, indent=1))
        draw(done, args.output)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Compare Dask, daskps and others, in turn, in one run.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add(
        "only",
        nargs="*",
        help="parts of names of scenarios or groups, such as 'paper'; none: all but that",
    )
    add("--list", action="store_true", help="only name the scenarios and their groups")
    add(
        "--control",
        action="store_true",
        help="plain Dask takes daskps's turns too: what differs is the machine",
    )
    add("--workers", type=int, default=2, help="workers, where it does not matter")
    add("--least", type=int, default=5, help="rounds of each scenario at least")
    add("--most", type=int, default=51, help="rounds at most")
    add("--seconds", type=float, default=8, help="when to stop between the two")
    add("--scale", type=float, default=1, help="multiplies the sizes of all data")
    add("--output", type=Path, help="a directory for JSON and plots (PNG and SVG)")
    add(
        "--ray",
        action="store_true",
        help=f"compare with Ray too; installs it in {ray_peer.ENVIRONMENT}",
    )
    add("--ray-python", type=Path, help="the Python of an environment that has Ray")
    args = parser.parse_args()
    if not chosen(args.only, args.scale):
        parser.error("no scenario and no group has such a name; see --list")
    return args


def _environment(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "daskps": daskps.__version__,
        "dask": dask.__version__,
        "Python": platform.python_version(),
        "cores": os.cpu_count(),
        "workers": args.workers,
        "warm copy": f"{memory.bandwidth() / GB:.1f} GB/s",
    }


def _ray(args: argparse.Namespace, scenarios: list[Scenario]) -> Any:
    if not (args.ray or args.ray_python):
        return contextlib.nullcontext()
    python = args.ray_python or ray_peer.install()
    # Room for a value and a result, and for those of the last round.
    most = max((s.nbytes for s in scenarios if s.ray), default=0)
    ray = ray_peer.Ray(python, max(500 * MB, 3 * most), args.workers)
    return contextlib.closing(ray)


def _run(
    scenarios: list[Scenario], rounds: Rounds, ray: Any, workers: int
) -> list[Comparison]:
    done: list[Comparison] = []
    with tqdm(total=len(scenarios), leave=False, disable=None) as bar:
        for (name, needed), group in itertools.groupby(scenarios, _cluster_for):
            bar.write(table.heading(name))
            n = needed or workers
            with Cluster(n) as plain, Cluster(n) as ours:
                c = Clusters(plain, ours)
                for scenario in group:
                    bar.set_description(scenario.name)
                    result = _one(c, scenario, rounds, ray, bar.set_postfix_str)
                    if result is None:
                        bar.write(
                            f"{scenario.name}\n  left out: too little memory is free"
                        )
                    else:
                        done.append(result)
                        bar.write(table.rows(result))
                    sys.stdout.flush()
                    bar.update()
    return done


def _cluster_for(scenario: Scenario) -> tuple[str, int]:
    """Scenarios that follow each other share a cluster if this is the same."""
    return scenario.group, scenario.workers


def _one(
    on: Clusters,
    scenario: Scenario,
    rounds: Rounds,
    ray: Any,
    progress: Callable[[str], None],
) -> Comparison | None:
    """Compare; None if there is no room for the data."""
    if memory.available() < ROOM * scenario.nbytes:
        return None
    result = compare(on, scenario, rounds, ray, progress)
    return with_copies(result, scenario) if scenario.in_one_piece else result


if __name__ == "__main__":
    sys.exit(main())
