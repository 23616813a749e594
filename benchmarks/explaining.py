"""How long it takes to explain a graph: ``python -m benchmarks.explaining``.

Each line is one thing that is large in another way. To make it is not timed, but for Dask's
expression of a collection, without which there is no graph to look at.
"""

from __future__ import annotations

import argparse
import pickle
import time
from collections.abc import Callable, Iterator
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
from dask.utils import format_bytes
from tqdm import tqdm

import daskps
from daskps.dask_private.graphs import expression_of


class Sample:
    """An instance of a class that nobody knows."""

    def __init__(self, n: int):
        self.n, self.name = n, str(n)


def calls(scale: float) -> Iterator[tuple[str, Callable[[], tuple[Any, ...]]]]:
    """What is explained, and how to make it.

    Parameters
    ----------
    scale
        How large, 1 being full size.
    """

    def n(count: int) -> int:
        return max(int(scale * count), 10)

    def of(value: Any) -> tuple[Any, ...]:
        return len, value

    yield (
        f"array in {n(1000):,} blocks",
        lambda: (da.from_array(np.ones(n(1000) * 125_000), chunks=125_000),),
    )
    yield (
        f"{n(5000):,} delayed arrays of 100 kB",
        lambda: ([dask.delayed(np.ones(12_500)) for _ in range(n(5000))],),
    )
    yield (
        f"graph of {n(100_000):,} small tasks",
        lambda: (da.ones(n(100_000), chunks=1) + 1,),
    )
    yield (
        f"dictionary of {n(2_000_000):,} numbers",
        lambda: of({i: i + 0.5 for i in range(n(2_000_000))}),
    )
    yield (
        f"list of {n(1_000_000):,} dictionaries",
        lambda: of([{"number": i, "name": str(i)} for i in range(n(1_000_000))]),
    )
    yield (
        f"list of {n(500_000):,} instances",
        lambda: of([Sample(i) for i in range(n(500_000))]),
    )
    yield (
        f"frame of {n(2_000_000):,} strings and dictionaries",
        lambda: of(
            pd.DataFrame(
                {
                    "text": pd.Series(map(str, range(n(2_000_000))), dtype=object),
                    "of": [{"number": i % 10} for i in range(n(2_000_000))],
                }
            )
        ),
    )


def measure(scale: float) -> Iterator[tuple[str, int, float, float]]:
    """Of each: what it is, pickled bytes, seconds, and Dask's own to make its graph."""
    for what, make in calls(scale):
        call = make()
        began = time.perf_counter()
        daskps.explain(*call)
        took = time.perf_counter() - began
        values, dasks = call, 0.0
        if not callable(call[0]):
            collections = call[0] if isinstance(call[0], list) else [call[0]]
            began = time.perf_counter()
            values = expression_of(collections).__dask_graph__()
            dasks = time.perf_counter() - began
        yield what, len(pickle.dumps(values)), took, dasks


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.explaining",
        description="Time daskps.explain for what is large in several ways.",
    )
    parser.add_argument("--scale", type=float, default=1.0, help="of sizes; default: 1")
    scale = parser.parse_args().scale
    for what, nbytes, took, dasks in tqdm(
        measure(scale), total=len(list(calls(scale))), leave=False, disable=None
    ):
        own = "" if not dasks else f"{dasks:.2f} s"
        tqdm.write(f"{what:50}{format_bytes(nbytes):>12}{took:>10.2f} s{own:>12}")


if __name__ == "__main__":
    main()
