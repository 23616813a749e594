"""One value goes to one task, or comes back from it, or both."""

from __future__ import annotations

import numpy as np
from distributed import Client

from benchmarks import tasks
from benchmarks.peers import ALL_AND_RAY, BY_REFERENCE
from benchmarks.scenario import MB, Scenario, Ship, WarmCopy, Work, fresh, size

# Bytes. Of round trips of this size the copies are counted.
COUNT_COPIES_OF = 100 * MB


def into(nbytes: int) -> Scenario:
    """A value goes to a task that does nothing."""
    return Scenario(
        f"round trip {size(nbytes)} in",
        _into(nbytes),
        _limit(nbytes, copies=1),
        ALL_AND_RAY,
        "round trips in",
        at=nbytes,
        nbytes=nbytes,
        in_one_piece=nbytes == COUNT_COPIES_OF,
        ray={"do": "round_trip", "nbytes": nbytes, "give": True, "take": False},
    )


def out(nbytes: int) -> Scenario:
    """A task makes a value, which comes back.

    Each task makes it anew, which is part of the time, and of that of the limit.
    """

    def do(client: Client, n: int, ship: Ship) -> np.ndarray:
        # As an array: proxystore_ex gives a proxy, and reads the result only then.
        return np.asarray(client.submit(tasks.make, n, pure=False).result())

    def check(n: int, result: np.ndarray) -> None:
        assert result.nbytes == max(8, n // 8 * 8), "a wrong size"
        assert result.min() == result.max() == 1, "a wrong value"

    def limit(client: Client, copy: WarmCopy, ship: Ship) -> None:
        client.submit(tasks.make_and_drop, nbytes, pure=False).result()
        copy()

    return Scenario(
        f"round trip {size(nbytes)} out",
        Work(lambda client: nbytes, do, check),
        Work(lambda client: WarmCopy(fresh(nbytes)), limit),
        # A value that a task makes cannot be shipped in another way.
        ("dask", "daskps", "proxystore_ex", "ray"),
        "round trips out",
        at=nbytes,
        nbytes=nbytes,
        in_one_piece=nbytes == COUNT_COPIES_OF,
        ray={"do": "round_trip", "nbytes": nbytes, "give": False, "take": True},
    )


def in_out(nbytes: int) -> Scenario:
    """A value goes to a task that gives it back."""

    def do(client: Client, x: np.ndarray, ship: Ship) -> np.ndarray:
        return np.asarray(client.submit(tasks.view, ship(x), pure=False).result())

    return Scenario(
        f"round trip {size(nbytes)} in and out",
        Work(lambda client: fresh(nbytes), do, np.testing.assert_array_equal),
        _limit(nbytes, copies=2),
        ALL_AND_RAY,
        "round trips in and out",
        at=nbytes,
        nbytes=nbytes,
        ray={"do": "round_trip", "nbytes": nbytes, "give": True, "take": True},
    )


def crossover(nbytes: int) -> Scenario:
    """A value goes to a task that reads it, by reference whatever its size."""

    def do(client: Client, x: np.ndarray, ship: Ship) -> float:
        return float(client.submit(tasks.first, x, pure=False).result())

    def check(x: np.ndarray, result: float) -> None:
        assert result == x[0], "a wrong result"

    return Scenario(
        f"{size(nbytes)} inside the graph or by reference",
        Work(lambda client: fresh(nbytes), do, check),
        None,
        ("dask", BY_REFERENCE),
        "threshold",
        at=nbytes,
        nbytes=nbytes,
    )


def _into(nbytes: int) -> Work:
    def do(client: Client, x: np.ndarray, ship: Ship) -> None:
        client.submit(tasks.nothing, ship(x), pure=False).result()

    return Work(lambda client: fresh(nbytes), do)


def _limit(nbytes: int, copies: int) -> Work:
    """An empty round trip, and as many copies as the value goes ways."""

    def do(client: Client, copy: WarmCopy, ship: Ship) -> None:
        client.submit(tasks.nothing, pure=False).result()
        for _ in range(copies):
            copy()

    return Work(lambda client: WarmCopy(fresh(nbytes)), do)
