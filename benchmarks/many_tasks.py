"""Many tasks: how many each second, and what each costs the scheduler."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from dask._task_spec import Task
from distributed import Client

from benchmarks import tasks
from benchmarks.peers import ALL_AND_RAY, BOTH
from benchmarks.scenario import Scenario, Ship, Work, fresh, same, size

_graphs = itertools.count()


def throughput(nbytes: int, n: int, workers: int) -> Scenario:
    """Many tasks, submitted one by one, take a value and give one of the same size."""

    def do(client: Client, values: list[np.ndarray], ship: Ship) -> list[np.ndarray]:
        futures = [client.submit(tasks.view, ship(v), pure=False) for v in values]
        # As arrays: proxystore_ex gives proxies.
        return [np.asarray(result) for result in client.gather(futures)]

    def limit(client: Client, nothing: None, ship: Ship) -> Any:
        futures = [client.submit(tasks.itself, None, pure=False) for _ in range(n)]
        return client.gather(futures)

    return Scenario(
        f"{n} tasks, {size(nbytes)} in and out, {workers} workers",
        Work(
            lambda client: [fresh(nbytes) for _ in range(n)],
            do,
            lambda values, results: np.testing.assert_array_equal(results, values),
        ),
        Work(lambda client: None, limit),
        ALL_AND_RAY,
        "throughput",
        at=workers,
        tasks=n,
        workers=workers,
        nbytes=n * nbytes,
        ray={"do": "throughput", "nbytes": nbytes, "n": n},
    )


def small_computed(n: int) -> Scenario:
    """Many tasks without anything large."""
    return Scenario(
        f"{n} small tasks, computed",
        Work(
            lambda client: None,
            lambda client, x, ship: client.gather(
                client.map(tasks.increment, range(n), pure=False)
            ),
            lambda x, result: same(result, range(1, n + 1)),
        ),
        None,
        BOTH,
        "nothing large",
        tasks=n,
    )


def small_submitted(n: int) -> Scenario:
    """A graph of many tasks without anything large, until it is on its way."""

    def prepare(client: Client) -> tuple[str, dict[str, Task]]:
        name = f"x{next(_graphs)}"
        keys = [f"{name}-{i}" for i in range(n)]
        return keys[0], {k: Task(k, tasks.increment, i) for i, k in enumerate(keys)}

    def do(client: Client, prepared: tuple[str, Any], ship: Ship) -> Any:
        # One key: the rest is culled by the scheduler, and costs it nothing.
        return client.get(prepared[1], prepared[0], sync=False)

    def check(prepared: Any, future: Any) -> None:
        assert future.result() == 1, "a wrong result"

    return Scenario(
        f"graph of {n} small tasks, submitted",
        Work(prepare, do, check),
        None,
        BOTH,
        "nothing large",
    )


def small_instances(n: int) -> Scenario:
    """A map over many small instances of a class, until it is on its way."""

    def do(client: Client, points: list[tasks.Point], ship: Ship) -> Any:
        return client.map(tasks.abscissa, points, pure=False)

    def check(points: list[tasks.Point], futures: Any) -> None:
        assert futures[-1].result() == n - 1, "a wrong result"

    return Scenario(
        f"map over {n} small instances, submitted",
        Work(lambda client: [tasks.Point(i, -i) for i in range(n)], do, check),
        None,
        BOTH,
        "nothing large",
    )
