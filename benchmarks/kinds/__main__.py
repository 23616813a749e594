"""Print how much of each kind of value goes over the scheduler, on each way.

``python -m benchmarks.kinds --help``. The table is Markdown: figures are bytes that the
scheduler reads and writes, in per cent of those of the value. Plain Dask has 200 for an
argument and for a result, since all of it goes in and out.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Sequence

from distributed import Client
from tqdm import tqdm

import daskps
from benchmarks import counters
from benchmarks.cluster import Cluster
from benchmarks.kinds.catalogue import all_kinds
from benchmarks.kinds.kind import Kind
from benchmarks.kinds.ways import WAYS, Way, called, type_name
from daskps.serialize.values import serialize

#: Per cent of a value, from which on a figure is marked.
GOAL = 5.0
# Values of this size (bytes) have the processes import what they need first.
SMALL_NBYTES = 1 << 13


def main() -> int:
    """The command; 1 if some figure is not below the goal."""
    args = _arguments()
    chosen = [k for k in all_kinds().values() if not args.only or k.name in args.only]
    warnings.simplefilter("ignore")  # Dask's, of large graphs and of matrices
    start = time.monotonic()
    columns = [*(way.__name__ for way in WAYS)]
    print(_row("kind", ["bytes", *columns]), _row("---", ["---:"] * 8), sep="\n")
    above = 0
    with Cluster() as cluster, cluster.client() as client:
        counters.install(client)
        for kind in tqdm(chosen, leave=False, disable=None):
            nbytes, shares = measure(client, kind, args.nbytes, plain=args.plain)
            above += sum(share is not None and share >= GOAL for share in shares)
            tqdm.write(_row(kind.name, [f"{nbytes:,}", *map(_cell, shares)]))
            sys.stdout.flush()
    seconds = time.monotonic() - start
    print(
        f"\n{len(chosen)} kinds, {above} figures of {GOAL:g} % or more, {seconds:.0f} s"
    )
    return int(above > 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kinds",
        description="Print how much of each kind of value goes over the scheduler.",
    )
    add = parser.add_argument
    add("only", nargs="*", help="names of kinds; none: all")
    add("--nbytes", type=int, default=5_000_000, help="of each (default: 5000000)")
    add("--plain", action="store_true", help="in plain Dask")
    return parser.parse_args()


def measure(
    client: Client, kind: Kind, nbytes: int, *, plain: bool = False
) -> tuple[int, list[float | None]]:
    """The size of a value (bytes), and per cent of it over the scheduler on each way."""
    exact = serialize(kind.make(nbytes)).nbytes
    if plain:
        return exact, [_share(client, kind, nbytes, exact, way) for way in WAYS]
    with daskps.proxy_graph(results=True):
        return exact, [_share(client, kind, nbytes, exact, way) for way in WAYS]


def _share(
    client: Client, kind: Kind, nbytes: int, exact: int, way: Way
) -> float | None:
    if way is called and kind.call is None:
        return None
    way(client, kind, SMALL_NBYTES, type_name)
    before = counters.traffic(client)
    way(client, kind, nbytes, type_name)
    return 100 * (counters.traffic(client) - before) / exact


def _cell(share: float | None) -> str:
    if share is None:
        return ""
    return f"{share:.1f}" if share < GOAL else f"**{share:.0f}**"


def _row(name: str, cells: Sequence[str]) -> str:
    return f"| {' | '.join([name, *cells])} |"


if __name__ == "__main__":
    sys.exit(main())
