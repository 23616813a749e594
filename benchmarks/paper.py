"""Figures 3 and 4 of the paper on Dask and ProxyStore, measured again.

The paper is "Accelerating Python Applications with Dask and ProxyStore" by Pauloski, Rydzy,
Hayot-Sasson, Foster and Chard (HPPSS at SC24). Figure 3 is the time of a round trip of a
task that does nothing, over the size of what it gets or gives. Figure 4 is how many such
tasks are done each second, over the number of workers. A third figure has values of other
kinds than arrays.

Its peers are Dask as it is, ProxyStore by hand, and the client that came with the paper,
each in files in shared memory and on a Redis server; and daskps, on four of its stores.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from distributed import Client

from benchmarks import many_tasks, round_trips, tasks
from benchmarks.kinds import classes
from benchmarks.peers import ON_STORES
from benchmarks.scenario import KB, MB, Scenario, Ship, Work, fresh, size

ROUND_TRIPS, THROUGHPUT, KINDS = "paper figure 3", "paper figure 4", "paper kinds"

GROUPS = (ROUND_TRIPS, KINDS, THROUGHPUT)

_BY_HAND = ("by hand", "by hand, Redis")
_CLIENT = ("proxystore_ex", "proxystore_ex, Redis")
EVERYBODY = ("dask", *ON_STORES, *_BY_HAND, *_CLIENT)
#: By hand, the user has no part in what a task gives back.
WITHOUT_HANDS = ("dask", *ON_STORES, *_CLIENT)

#: How many tasks at each size of values, for the throughput: all values are there at once.
TASKS = {0: 100, 10 * KB: 100, 100 * KB: 100, MB: 50, 10 * MB: 16}
WORKERS = (1, 2, 4, 8)


def paper(scale: float = 1.0) -> list[Scenario]:
    """All scenarios; `scale` as in :func:`benchmarks.catalogue.catalogue`."""

    def of(n: float) -> int:
        return max(1, int(n * scale))

    sizes = [of(n) for n in (10 * KB, 100 * KB, MB, 10 * MB, 100 * MB)]
    return [
        *(_trip("in", EVERYBODY, round_trips.into(n)) for n in sizes),
        *(_trip("out", WITHOUT_HANDS, round_trips.out(n)) for n in sizes),
        *(_trip("in and out", EVERYBODY, round_trips.in_out(n)) for n in sizes),
        *(_kind(name, of(10 * MB)) for name in VALUES),
        *(
            _throughput(many_tasks.throughput(int(nbytes * scale), of(n), workers))
            for workers in WORKERS
            for nbytes, n in TASKS.items()
        ),
    ]


def _trip(panel: str, peers: tuple[str, ...], scenario: Scenario) -> Scenario:
    return _of_paper(scenario, peers=peers, group=ROUND_TRIPS, panel=panel)


def _throughput(scenario: Scenario) -> Scenario:
    each = size(scenario.nbytes // scenario.tasks)
    return _of_paper(
        scenario, peers=EVERYBODY, group=THROUGHPUT, panel=f"{each} in and out"
    )


def _of_paper(scenario: Scenario, **changed: Any) -> Scenario:
    name = f"paper: {scenario.name}"
    return dataclasses.replace(
        scenario, name=name, in_one_piece=False, ray={}, brief=True, **changed
    )


# Other values than arrays


class Kind(NamedTuple):
    """Values of one kind.

    Attributes
    ----------
    make
        Given a number of bytes, makes a value that nobody has seen before.
    parts
        What of a value has to be equal.
    """

    make: Callable[[int], Any]
    parts: Callable[[Any], Any]


def _layers(nbytes: int) -> list[np.ndarray]:
    return np.array_split(fresh(nbytes), 64)


def _frame(nbytes: int) -> pd.DataFrame:
    return pd.DataFrame(fresh(max(256, nbytes // 256 * 256)).reshape(-1, 32))


VALUES = {
    "instance": Kind(lambda n: classes.Box(fresh(n)), lambda box: box.value),
    "data class": Kind(
        lambda n: classes.Data(_layers(n)), lambda data: np.concatenate(data.value)
    ),
    "model of 64 layers": Kind(
        lambda n: classes.Model(_layers(n)),
        lambda model: np.concatenate([part.value for part in model.parts]),
    ),
    "str": Kind(lambda n: fresh(n // 2).tobytes().hex(), lambda text: text),
    "bytes": Kind(lambda n: fresh(n).tobytes(), lambda data: data),
    "data frame": Kind(_frame, lambda frame: frame.to_numpy()),
}


def _kind(name: str, nbytes: int) -> Scenario:
    """A value goes to a task that gives it back."""
    kind = VALUES[name]

    def do(client: Client, value: Any, ship: Ship) -> Any:
        result = client.submit(tasks.value_of, ship(value), pure=False).result()
        return tasks.value_of(result)

    def check(value: Any, result: Any) -> None:
        assert type(result) is type(value), "a wrong type"
        np.testing.assert_array_equal(kind.parts(result), kind.parts(value))

    return Scenario(
        f"paper: {name} of {size(nbytes)} in and out",
        Work(lambda client: kind.make(nbytes), do, check),
        None,
        EVERYBODY,
        KINDS,
        nbytes=nbytes,
        brief=True,
    )
