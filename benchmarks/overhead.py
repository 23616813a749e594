"""What daskps costs where nothing is large: on the client, and on the scheduler.

Run ``python -m benchmarks.overhead``.
"""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from typing import Any

from dask._task_spec import Task
from distributed import Client

import daskps
from benchmarks import tasks
from benchmarks.cluster import cluster


def small_tasks(address: str, n: int, repeat: int) -> tuple[float, list[float]]:
    """Time to submit `n` small tasks, without and with daskps.

    Returns
    -------
    seconds
        Median without daskps.
    ratios
        With daskps to without, for each pair of runs; the order alternates.
    """
    seconds, ratios = [], []
    for i in range(repeat + 1):
        times = {
            on: _submit(address, n, on) for on in ((False, True), (True, False))[i % 2]
        }
        if i:
            seconds.append(times[False])
            ratios.append(times[True] / times[False])
    return statistics.median(seconds), sorted(ratios)


def _submit(address: str, n: int, on: bool) -> float:
    with Client(address) as client:
        graph = {f"x-{j}": Task(f"x-{j}", tasks.increment, j) for j in range(n)}
        context: Any = daskps.proxy_graph() if on else contextlib.nullcontext()
        with context:
            gc.collect()
            start = time.perf_counter()
            # One key: the rest is culled by the scheduler, and costs it nothing.
            future = client.get(graph, "x-0", sync=False)
            seconds = time.perf_counter() - start
        assert future.result() == 1
    return seconds


def on_scheduler(dask_scheduler: Any, n: int = 100_000) -> float:
    """Microseconds that the plugin takes for a task without stored objects.

    Called on the scheduler. A task that is computed, released and forgotten makes seven
    transitions, of which the plugin is told.
    """
    plugin = dask_scheduler.plugins["daskps"]
    keys = [f"x-{i}" for i in range(n)]
    start = time.perf_counter()
    plugin.update_graph(dask_scheduler, client="nobody", tasks=keys)
    for key in keys:
        plugin.transition(key, "released", "waiting")
        plugin.transition(key, "waiting", "queued")
        plugin.transition(key, "queued", "processing")
        plugin.transition(key, "processing", "memory")
        plugin.transition(key, "memory", "released")
        plugin.transition(key, "released", "waiting")
        plugin.transition(key, "released", "forgotten")
    return (time.perf_counter() - start) / n * 1e6


if __name__ == "__main__":
    with cluster(1) as c:
        base, ratios = small_tasks(c.address, 100_000, 12)
        quartiles = statistics.quantiles(ratios, n=4)
        print(f"100,000 small tasks: {base:.2f} s to submit; with daskps ", end="")
        print("{1:.3f} times ({0:.3f} to {2:.3f})".format(*quartiles))
        with Client(c.address) as client, daskps.proxy_graph():
            cost = client.run_on_scheduler(on_scheduler)
        print(f"on the scheduler: {cost:.1f} µs for each task without stored objects")
