"""Programs whose memory is measured: ``python -m benchmarks.memory.programs NAME ...``.

Each starts a cluster of its own, so that all of its processes are in one control group. What
it has found out it prints as JSON, in its last line.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import ctypes
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import dask
import dask.array as da
import numpy as np
import psutil
from distributed import Client, LocalCluster, wait

import daskps

MIB = 1 << 20
ROUNDS = 12
TASKS = 20
# How long (seconds) memory may take to be given back when a session has ended, and files
# to be deleted.
SETTLE_SECONDS = 60.0
MAY_GROW_NBYTES = 50_000_000


def arrays(client: Client, nbytes: int) -> None:
    """An array that is new in each round, and its sum."""
    for i in range(ROUNDS):
        x = fresh(i, nbytes)
        total = da.from_array(x, chunks=x.size // 4).sum().compute()
        assert np.isclose(total, x.sum()), "a wrong result"


def persisted(client: Client, nbytes: int) -> None:
    """New arrays that stay on the workers, of which the last one is kept."""
    kept = None
    for i in range(ROUNDS):
        x = fresh(i, nbytes)
        expected = x.sum()
        y = da.from_array(x, chunks=x.size // 4)
        del x
        kept = None
        kept = y.persist()
        del y
        wait(kept)
        assert np.isclose(kept.sum().compute(), expected), "a wrong result"


def results(client: Client, nbytes: int) -> None:
    """Results that are fetched."""
    for i in range(ROUNDS):
        x = client.submit(fresh, i, nbytes, pure=False).result()
        assert x.nbytes == nbytes, "a wrong result"
        del x


def model(client: Client, nbytes: int) -> None:
    """One model for many tasks."""
    x = fresh(0, nbytes)
    shared = dask.delayed(x)
    parts = [dask.delayed(_part)(shared, i) for i in range(TASKS)]
    # The order of additions depends on where the data lies in memory.
    assert np.allclose(dask.compute(*parts), [_part(x, i) for i in range(TASKS)])


PROGRAMS: dict[str, Callable[[Client, int], None]]
PROGRAMS = {f.__name__: f for f in (arrays, persisted, results, model)}


def mixed(client: Client, nbytes: int, seconds: float) -> dict[str, Any]:
    """All of them in turn, for some time; what is left when the session has ended."""
    for program in PROGRAMS.values():  # what is imported, and what Dask keeps, is there
        program(client, MIB)
    start = _held()
    store_directory = dask.config.get("daskps.shm.directory")
    before = set(os.listdir(store_directory))
    turns: collections.Counter[str] = collections.Counter()
    with daskps.proxy_graph():
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for name, program in PROGRAMS.items():
                program(client, nbytes)
                turns[name] += 1
    settled = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < settled:
        grown = _held() - start
        usage = daskps.usage(client)
        if grown < MAY_GROW_NBYTES and not usage.total:
            break
        time.sleep(0.5)
    client.shutdown()
    left: list[str] = []
    settled = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < settled:
        left = sorted(set(os.listdir(store_directory)) - before)
        if not left:
            break
        time.sleep(0.5)
    return {"turns": turns, "grown": grown, "held": usage.total, "left": left}


def fresh(seed: int, nbytes: int) -> np.ndarray:
    """An array that nobody has seen before."""
    return np.random.default_rng(seed).random(nbytes // 8)


def _part(x: np.ndarray, i: int) -> float:
    return float(x[i::TASKS].sum())


def _held() -> int:
    """Bytes that this process holds, after the C library has given back what it keeps."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(psutil.Process().memory_info().rss)


def main() -> None:
    """Run one program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory.programs")
    parser.add_argument("name", choices=[*PROGRAMS, "mixed"])
    parser.add_argument("who", choices=["dask", "daskps"])
    parser.add_argument("--mib", type=int, default=100, help="size of each value")
    parser.add_argument("--seconds", type=float, default=60, help="for mixed work")
    args = parser.parse_args()
    nbytes = args.mib * MIB
    found: dict[str, Any] = {}
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, memory_limit=0, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        if args.name == "mixed":
            found = mixed(client, nbytes, args.seconds)
        else:
            ours = (
                daskps.proxy_graph if args.who == "daskps" else contextlib.nullcontext
            )
            with ours():
                PROGRAMS[args.name](client, nbytes)
    print(json.dumps(found))


if __name__ == "__main__":
    sys.exit(main())
