"""Ray's turns. Runs as a program of its own, in an environment that has Ray and not Dask.

Reads requests from standard input, one JSON object a line, and answers each with the seconds
that it took: ``ray_peer.py`` has the other end. What is not timed, and what is checked, is
as with Dask.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# Ray's memory is warm from the beginning, as that of all others is after a round.
os.environ["RAY_preallocate_plasma_memory"] = "1"  # noqa: SIM112

import numpy as np
import ray

QUIET = 0.03

_random = np.random.default_rng(0)


@ray.remote
def nothing(*args: Any) -> None:
    """Take anything, do nothing."""


@ray.remote
def view(array: np.ndarray) -> np.ndarray:
    """Give back an array."""
    return array[:]


@ray.remote
def make(nbytes: int) -> np.ndarray:
    """An array of this size."""
    return np.ones(max(1, nbytes // 8))


@ray.remote
def first(array: np.ndarray, i: int) -> float:
    """Touch a little of an array."""
    return float(array[i % len(array)])


def fresh(nbytes: int) -> np.ndarray:
    """An array of this size that nobody has seen before."""
    return _random.random(max(1, nbytes // 8))


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and the result."""
    gc.collect()
    time.sleep(QUIET)
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def round_trip(nbytes: int, give: bool, take: bool) -> float:
    """One value to a task, from it, or both."""
    x = fresh(nbytes) if give else np.ones(max(1, nbytes // 8))

    def work() -> Any:
        if not give:
            return ray.get(make.remote(nbytes))
        return ray.get(view.remote(x) if take else nothing.remote(x))

    seconds, result = timed(work)
    if take:
        np.testing.assert_array_equal(result, x)
    return seconds


def model(nbytes: int, n: int) -> float:
    """One model in many tasks; its user puts it once, as Ray's documentation says."""
    x = fresh(nbytes)

    def work() -> Any:
        reference = ray.put(x)
        return ray.get([first.remote(reference, i) for i in range(n)])

    seconds, result = timed(work)
    assert result == list(x[:n]), "a wrong result"
    return seconds


def throughput(nbytes: int, n: int) -> float:
    """Many tasks take a value and give one of the same size."""
    values = [fresh(nbytes) for _ in range(n)]
    seconds, results = timed(lambda: ray.get([view.remote(v) for v in values]))
    np.testing.assert_array_equal(results, values)
    return seconds


WORK: dict[str, Callable[..., float]] = {
    "round_trip": round_trip,
    "model": model,
    "throughput": throughput,
}


def main() -> None:
    """Serve until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what Ray prints is no answer
    workers, memory, directory = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    ray.init(
        num_cpus=workers,
        object_store_memory=memory,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        _temp_dir=directory,
    )
    ray.get([nothing.remote() for _ in range(workers)])
    print(json.dumps({}), file=answers)
    for line in sys.stdin:
        request = json.loads(line)
        seconds = WORK[request.pop("do")](**request)
        print(json.dumps({"seconds": seconds}), file=answers)
    ray.shutdown()


if __name__ == "__main__":
    main()
