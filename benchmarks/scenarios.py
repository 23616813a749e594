"""What is measured: each scenario prepares fresh data, and does one piece of work."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
from distributed import Client, wait

from benchmarks import tasks
from benchmarks.cluster import MIB
from benchmarks.peers import ALL, BOTH, DELAYED

_seed = itertools.count()

#: Given a value, what a peer's user passes to tasks in its place.
Ship: TypeAlias = Callable[[Any], Any]


def fresh(nbytes: int) -> np.ndarray:
    """An array of this size that nobody has seen before."""
    return np.random.default_rng(next(_seed)).random(max(1, nbytes // 8))


@dataclass(frozen=True)
class Scenario:
    """One piece of work.

    Attributes
    ----------
    name
        For the table.
    prepare
        Makes what the work needs, given the client; not timed.
    work
        Given the client, what was prepared, and how the peer ships a value; timed. Gives a
        result to check.
    check
        Raises if the result is wrong, given what was prepared and the result.
    limit
        The same work with no data shipped: given the client and what was prepared.
    prepare_limit
        Makes what the limit needs, if that is something else.
    peers
        Who is compared.
    tasks
        How many tasks the work is, where the scheduler's time for each is of interest.
    """

    name: str
    prepare: Callable[[Client], Any]
    work: Callable[[Client, Any, Ship], Any]
    check: Callable[[Any, Any], None] = lambda prepared, result: None
    limit: Callable[[Client, Any], Any] | None = None
    prepare_limit: Callable[[Client], Any] | None = None
    peers: tuple[str, ...] = BOTH
    tasks: int = 0


def round_trip_in(nbytes: int) -> Scenario:
    """A value goes to a task that does nothing."""
    return Scenario(
        f"round trip {_size(nbytes)} in",
        lambda client: fresh(nbytes),
        lambda client, x, ship: client.submit(
            tasks.nothing, ship(x), pure=False
        ).result(),
        limit=lambda client, x: client.submit(tasks.nothing, pure=False).result(),
        peers=ALL,
    )


def round_trip_in_out(nbytes: int) -> Scenario:
    """A value goes to a task that gives it back."""
    return Scenario(
        f"round trip {_size(nbytes)} in and out",
        lambda client: fresh(nbytes),
        # As an array: proxystore_ex gives a proxy, and reads the result only then.
        lambda client, x, ship: np.asarray(
            client.submit(tasks.view, ship(x), pure=False).result()
        ),
        np.testing.assert_array_equal,
        lambda client, x: client.submit(tasks.itself, None, pure=False).result(),
        peers=ALL,
    )


def model_in_delayed(nbytes: int, n: int) -> Scenario:
    """One model in many delayed tasks."""

    def work(client: Client, model: np.ndarray, ship: Ship) -> Any:
        first = dask.delayed(tasks.first, pure=False)
        shipped = ship(model)
        return client.compute(
            dask.delayed(list)([first(shipped, i) for i in range(n)])
        ).result()

    return Scenario(
        f"{_size(nbytes)} model in {n} delayed tasks",
        lambda client: fresh(nbytes),
        work,
        lambda model, result: _same(result, model[:n]),
        peers=DELAYED,
    )


def model_in_map(nbytes: int, n: int) -> Scenario:
    """One model in all tasks of one map."""

    def work(client: Client, model: np.ndarray, ship: Ship) -> Any:
        # Not as a keyword: the second such map on a cluster fails in plain Dask.
        models = [ship(model)] * n
        return client.gather(client.map(tasks.first, models, range(n), pure=False))

    return Scenario(
        f"{_size(nbytes)} model in a map of {n}",
        lambda client: fresh(nbytes),
        work,
        lambda model, result: _same(result, model[:n]),
        peers=ALL,
    )


def model_in_submits(nbytes: int, n: int, writable: bool = True) -> Scenario:
    """One model in many separate submits."""

    def prepare(client: Client) -> np.ndarray:
        model = fresh(nbytes)
        model.flags.writeable = writable
        return model

    def work(client: Client, model: np.ndarray, ship: Ship) -> Any:
        shipped = ship(model)
        futures = [client.submit(tasks.first, shipped, i, pure=False) for i in range(n)]
        return client.gather(futures)

    kind = "" if writable else "read-only "
    return Scenario(
        f"{kind}{_size(nbytes)} model in {n} submits",
        prepare,
        work,
        lambda model, result: _same(result, model[:n]),
        peers=ALL,
    )


def array_sum(nbytes: int) -> Scenario:
    """A NumPy array, chunked and summed."""
    chunk = 4 * MIB // 8

    def prepare(client: Client) -> Any:
        # name=False: else Dask hashes the array, which takes longer than all the rest.
        x = fresh(nbytes)
        return x, da.from_array(x, chunks=chunk, name=False).sum()

    return Scenario(
        f"from_array {_size(nbytes)}, sum",
        prepare,
        lambda client, prepared, ship: prepared[1].compute(),
        lambda prepared, result: np.testing.assert_allclose(result, prepared[0].sum()),
        lambda client, x: x.sum().compute(),
        lambda client: _on_workers(da.ones(nbytes // 8, chunks=chunk)),
    )


def repeated_compute(nbytes: int) -> Scenario:
    """The second computation on one array: the first one is part of the preparation."""
    chunk = 4 * MIB // 8

    def prepare(client: Client) -> Any:
        x = da.from_array(fresh(nbytes), chunks=chunk, name=False)
        x.sum().compute()
        return x

    return Scenario(
        f"second compute() on {_size(nbytes)}",
        prepare,
        lambda client, x, ship: x.mean().compute(),
        limit=lambda client, x: x.mean().compute(),
        prepare_limit=lambda client: _on_workers(da.ones(nbytes // 8, chunks=chunk)),
    )


def frame_mean(nbytes: int) -> Scenario:
    """A pandas frame of 32 columns, and the mean of each."""

    def prepare(client: Client) -> Any:
        frame = pd.DataFrame(fresh(nbytes).reshape(-1, 32))
        return frame, dd.from_pandas(frame, npartitions=16).mean()

    return Scenario(
        f"from_pandas {_size(nbytes)}, mean",
        prepare,
        lambda client, prepared, ship: prepared[1].compute(),
        lambda prepared, result: np.testing.assert_allclose(result, prepared[0].mean()),
    )


def bag_of_bytes(nbytes: int) -> Scenario:
    """A bag of bytes objects of 1 MiB."""

    def prepare(client: Client) -> Any:
        data = fresh(nbytes).tobytes()
        blobs = [data[i : i + MIB] for i in range(0, nbytes, MIB)]
        # Dask hashes the whole sequence here, to name the bag.
        return blobs, db.from_sequence(blobs, npartitions=16).map(tasks.crc)

    return Scenario(
        f"bag of {_size(nbytes)} of bytes",
        prepare,
        lambda client, prepared, ship: prepared[1].compute(),
        lambda prepared, result: _same(result, list(map(tasks.crc, prepared[0]))),
    )


def cholesky(n: int, block: int) -> Scenario:
    """The Cholesky factor of a NumPy matrix."""

    def prepare(client: Client) -> np.ndarray:
        a = fresh(8 * n * n).reshape(n, n)
        return a @ a.T + n * np.eye(n)

    def work(client: Client, a: np.ndarray, ship: Ship) -> None:
        x = da.from_array(a, chunks=(block, block), name=False)
        _on_workers(da.linalg.cholesky(x, lower=True))

    return Scenario(
        f"Cholesky {n}, blocks of {block}",
        prepare,
        work,
        limit=lambda client, x: _on_workers(da.linalg.cholesky(x, lower=True)),
        prepare_limit=lambda client: _on_workers(da.eye(n, chunks=block) * n + 1),
    )


def large_result(nbytes: int) -> Scenario:
    """A large result comes back."""
    return Scenario(
        f"{_size(nbytes)} result of compute()",
        lambda client: da.ones(nbytes // 8, chunks=4 * MIB // 8),
        lambda client, x, ship: x.compute(),
        lambda x, result: np.testing.assert_array_equal(result[:: MIB // 8], 1.0),
        lambda client, x: _on_workers(x),
    )


def throughput(nbytes: int, n: int = 200) -> Scenario:
    """Many tasks that take a value and give one of the same size."""

    def prepare(client: Client) -> list[Any]:
        return [fresh(nbytes) if nbytes else None for _ in range(n)]

    def work(client: Client, values: list[Any], ship: Ship) -> Any:
        futures = [client.submit(tasks.itself, ship(v), pure=False) for v in values]
        return client.gather(futures)

    return Scenario(f"{n} tasks, {_size(nbytes)} in and out", prepare, work, tasks=n)


def _on_workers(x: Any) -> Any:
    x = x.persist()
    wait(x)
    return x


def _same(result: Any, expected: Any) -> None:
    assert list(result) == list(expected), "a wrong result"


def _size(nbytes: int) -> str:
    if nbytes >= MIB:
        return f"{nbytes // MIB} MB"
    return f"{nbytes // 1000} kB" if nbytes >= 1000 else f"{nbytes} B"
