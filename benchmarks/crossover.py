"""From which size on a value travels faster by reference: where the threshold should be.

Run ``python -m benchmarks.crossover``. For each size, a value that nobody has seen goes to a
task that reads it: inside the graph (plain Dask), and through the store (threshold 1).
"""

from __future__ import annotations

import contextlib
import statistics
import time

from distributed import Client

import daskps
from benchmarks import tasks
from benchmarks.cluster import cluster
from benchmarks.pairs import QUIET
from benchmarks.scenarios import fresh

KIB = 1 << 10
SIZES = [16 * KIB << i for i in range(9)]


def main(repeat: int = 60) -> None:
    """Print a line for each size."""
    with cluster(1) as c, Client(c.address) as client:
        for nbytes in SIZES:
            ratios, times = [], []
            for i in range(repeat + 5):
                pair = {}
                for by_reference in ((False, True), (True, False))[i % 2]:
                    pair[by_reference] = _round_trip(client, nbytes, by_reference)
                if i >= 5:
                    ratios.append(pair[True] / pair[False])
                    times.append(pair)
            plain = statistics.median(t[False] for t in times) * 1e3
            stored = statistics.median(t[True] for t in times) * 1e3
            low, median, high = statistics.quantiles(ratios, n=4)
            print(
                f"{nbytes // KIB:6} KiB: {plain:6.2f} ms inside the graph, {stored:6.2f} "
                f"ms by reference: {median:.2f} times ({low:.2f} to {high:.2f})",
                flush=True,
            )


def _round_trip(client: Client, nbytes: int, by_reference: bool) -> float:
    value = fresh(nbytes)
    with contextlib.ExitStack() as stack:
        if by_reference:
            stack.enter_context(daskps.proxy_graph(threshold=1, results=False))
        time.sleep(QUIET)
        start = time.perf_counter()
        client.submit(tasks.first, value, pure=False).result()
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
