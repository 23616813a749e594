"""One model is an argument of many tasks."""

from __future__ import annotations

from typing import Any

import dask
import numpy as np
from distributed import Client

from benchmarks import tasks
from benchmarks.peers import ALL_AND_RAY, DELAYED, ZARR
from benchmarks.scenario import Scenario, Ship, WarmCopy, Work, fresh, same, size


def in_delayed(nbytes: int, n: int) -> Scenario:
    """One model in many delayed tasks."""
    return _scenario(f"{size(nbytes)} model in {n} delayed tasks", nbytes, n, _delayed)


def in_map(nbytes: int, n: int) -> Scenario:
    """One model in all tasks of one map."""
    return _scenario(f"{size(nbytes)} model in a map of {n}", nbytes, n, _map)


def in_submits(nbytes: int, n: int, writable: bool = True) -> Scenario:
    """One model in many separate submits."""
    kind = "" if writable else "read-only "
    name = f"{kind}{size(nbytes)} model in {n} submits"
    return _scenario(name, nbytes, n, _submits, writable)


def on_each(nbytes: int) -> Scenario:
    """One model in a task on each worker."""
    return _scenario(f"{size(nbytes)} model on each worker", nbytes, 1, _on_each)


def _on_each(client: Client, model: Any, n: int) -> list[float]:
    workers = list(client.scheduler_info(-1)["workers"])
    futures = [
        client.submit(tasks.first, model, 0, workers=worker, pure=False)
        for worker in workers
    ]
    [result] = set(client.gather(futures))
    return [result]


def _delayed(client: Client, model: Any, n: int) -> list[float]:
    first = dask.delayed(tasks.first, pure=False)
    all_of_them = dask.delayed(list)([first(model, i) for i in range(n)])
    result: list[float] = client.compute(all_of_them).result()
    return result


def _map(client: Client, model: Any, n: int) -> list[float]:
    # Not as a keyword: the second such map on a cluster fails in plain Dask.
    futures = client.map(tasks.first, [model] * n, range(n), pure=False)
    return list(client.gather(futures))


def _submits(client: Client, model: Any, n: int) -> list[float]:
    futures = [client.submit(tasks.first, model, i, pure=False) for i in range(n)]
    return list(client.gather(futures))


#: Who is compared, where it is not :data:`ALL_AND_RAY`.
COMPARED = {_delayed: DELAYED, _submits: (*ALL_AND_RAY, ZARR)}


def _scenario(
    name: str, nbytes: int, n: int, submit: Any, writable: bool = True
) -> Scenario:
    def prepare(client: Client) -> np.ndarray:
        model = fresh(nbytes)
        # Clearing a flag would not do: whoever clears it can set it again.
        return model if writable else np.frombuffer(model.tobytes())

    def do(client: Client, model: np.ndarray, ship: Ship) -> list[float]:
        result: list[float] = submit(client, ship(model), n)
        return result

    def limit(client: Client, copy: WarmCopy, ship: Ship) -> None:
        copy()
        submit(client, np.ones(1), n)

    ray = {"do": "model", "nbytes": nbytes, "n": n}
    return Scenario(
        name,
        Work(prepare, do, lambda model, result: same(result, model[:n])),
        Work(lambda client: WarmCopy(fresh(nbytes)), limit),
        COMPARED.get(submit, ALL_AND_RAY),
        "models",
        nbytes=nbytes,
        # In Ray each call is a submit of its own; the user puts the model himself.
        ray={} if submit is _delayed else ray,
    )
