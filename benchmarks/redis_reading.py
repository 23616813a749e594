"""Large values from a Redis server: ``python -m benchmarks.redis_reading --help``.

daskps's own reading (:mod:`daskps.stores.redis.wire`) beside public calls of redis-py, a
``GET`` and pipelines of ``GETRANGE``, each into the same memory, in turn: the median time,
and the median of its ratio to daskps. redis-py uses hiredis if that is installed.
"""

from __future__ import annotations

import argparse
import secrets
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import redis
from redis.utils import HIREDIS_AVAILABLE

from daskps.stores.redis.wire import read_value

MIB = 1 << 20
SIZES_MIB = (1, 16, 64, 256)
PIECE_SIZES = (MIB >> 2, MIB, 2 * MIB)
# So many pieces are asked for at once.
PIECES = 8


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url", nargs="?", default="redis://127.0.0.1:6379")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    client = redis.Redis.from_url(args.url, protocol=2)
    print(f"redis-py {redis.__version__}, hiredis: {HIREDIS_AVAILABLE}")
    for mib in SIZES_MIB:
        name = f"benchmark:{secrets.token_hex(8)}"
        data = np.random.default_rng(0).bytes(mib * MIB)
        client.set(name, data, ex=600)
        try:
            _compare(client, name, data, args.rounds)
        finally:
            client.delete(name)


def _compare(client: redis.Redis, name: str, data: bytes, rounds: int) -> None:
    into = np.empty(len(data), np.uint8).data
    ways: dict[str, Callable[[], None]] = {
        "daskps": partial(_daskps, client, name, into),
        "GET": partial(_get, client, name, into),
    }
    for piece in PIECE_SIZES:
        way = partial(_getrange, client, name, into, piece)
        ways[f"GETRANGE of {piece >> 10} KiB"] = way
    seconds: dict[str, list[float]] = {label: [] for label in ways}
    for i in range(rounds + 1):
        for label, read in ways.items():
            start = time.perf_counter()
            read()
            seconds[label].append(time.perf_counter() - start)
            if i == 0 and bytes(into) != data:
                raise ValueError(f"{label} has read something else")
    # The first round warms up.
    ours = seconds["daskps"][1:]
    for label, (_, *times) in seconds.items():
        ratio = statistics.median(t / our for t, our in zip(times, ours, strict=True))
        median = 1000 * statistics.median(times)
        print(f"{len(data) >> 20:4} MiB {label:20} {median:8.2f} ms {ratio:6.2f}")


def _daskps(client: redis.Redis, name: str, into: memoryview) -> None:
    connection = client.connection_pool.get_connection()
    try:
        if not read_value(connection, name, into):
            raise KeyError(name)
    finally:
        client.connection_pool.release(connection)


def _get(client: redis.Redis, name: str, into: memoryview) -> None:
    value: Any = client.get(name)
    into[:] = value


def _getrange(client: redis.Redis, name: str, into: memoryview, piece: int) -> None:
    starts = range(0, into.nbytes, piece)
    for first in range(0, len(starts), PIECES):
        some = starts[first : first + PIECES]
        with client.pipeline(transaction=False) as pipe:
            for start in some:
                pipe.getrange(name, start, start + piece - 1)
            for start, found in zip(some, pipe.execute(), strict=True):
                into[start : start + piece] = found


if __name__ == "__main__":
    main()
