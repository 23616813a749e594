"""Tasks that take and give values, by number of workers: the tasks each second.

Run ``python -m benchmarks.throughput``. 200 tasks take nothing and give nothing, 200 take a
value of 1 MiB and give one back, with and without daskps. The scheduler's processor time for
each task is measured as well.
"""

from __future__ import annotations

import argparse

from benchmarks.cluster import MIB, cluster
from benchmarks.pairs import Comparison, compare
from benchmarks.scenarios import throughput


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput")
    parser.add_argument("--workers", type=int, nargs="*", default=[2, 4, 8])
    parser.add_argument(
        "--repeat", type=int, default=7, help="runs of each (default: 7)"
    )
    args = parser.parse_args()
    for n in args.workers:
        with cluster(n) as c:
            empty = compare(c, throughput(0), args.repeat, lambda name: None)
            full = compare(c, throughput(1 * MIB), args.repeat, lambda name: None)
        print(f"{n} workers")
        _show("nothing in and out", empty)
        _show("1 MiB in and out", full)
        speed = empty.peers["dask"].median / full.peers["daskps"].median
        cpu = full.peers["daskps"].cpu / empty.peers["dask"].cpu
        print(
            f"    daskps with 1 MiB: {speed:.0%} of plain Dask's throughput with nothing, "
            f"{cpu:.2f} times its scheduler's CPU",
            flush=True,
        )


def _show(name: str, c: Comparison) -> None:
    median, low, high = c.speedup("dask")
    tasks = c.tasks / len(c.peers["dask"].seconds)
    rates = ", ".join(f"{p} {tasks / m.median:.0f}/s" for p, m in c.peers.items())
    cpus = ", ".join(f"{p} {m.cpu / c.tasks * 1e3:.2f} ms" for p, m in c.peers.items())
    print(f"    {name}: {rates}: {median:.2f} times ({low:.2f} to {high:.2f})")
    print(f"        the scheduler's CPU for each task: {cpus}")


if __name__ == "__main__":
    main()
