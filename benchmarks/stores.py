"""What stores need to put and to get: ``python -m benchmarks.stores redis://host ...``.

Each line is one store, opened in this process alone: no cluster, no serialisation. A put is
of data that nobody has seen before, and a get reads every byte.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from typing import Any

import numpy as np
from blake3 import blake3
from tqdm import tqdm

import daskps
from daskps.stores.urls import describe

SIZES = {"1 kB": 1_000, "1 MB": 10**6, "100 MB": 10**8}
#: Bytes that are put into a store at least for each size, in at least 5 puts.
AMOUNT = 3 * 10**8
FEWEST, MOST = 5, 200


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.stores", description="Time puts and gets of stores."
    )
    parser.add_argument(
        "urls",
        nargs="*",
        default=["shm://", f"file://{tempfile.gettempdir()}"],
        help="default: shm://, and file:// in the temporary directory",
    )
    urls = parser.parse_args().urls
    print(f"{'':26}" + "".join(f"{'put ' + s:>12}{'get ' + s:>12}" for s in SIZES))
    for url in tqdm(urls, leave=False, disable=None):
        with daskps.open_store(url) as store:
            cells = [x for n in SIZES.values() for x in _times(store.connector, n)]
        row = f"{describe(url):26}" + "".join(f"{cell:>12}" for cell in cells)
        tqdm.write(row)
    print(f"A seal is computed at {_seal_speed() / 1e9:.1f} GB/s.")


def _times(connector: Any, nbytes: int) -> tuple[str, str]:
    """Median times of a put and of a get."""
    puts, gets = [], []
    rng = np.random.default_rng()
    for _ in range(min(MOST, max(FEWEST, AMOUNT // nbytes))):
        data = rng.integers(0, 256, nbytes, "u1")
        start = time.perf_counter()
        key = connector.put_frames([data])
        puts.append(time.perf_counter() - start)
        start = time.perf_counter()
        read = np.frombuffer(connector.get(key), "u1")
        read.max()
        gets.append(time.perf_counter() - start)
        del read
        connector.evict(key)
    return _told(statistics.median(puts)), _told(statistics.median(gets))


def _told(seconds: float) -> str:
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} us"
    return f"{seconds * 1e3:.{1 if seconds < 0.1 else 0}f} ms"


def _seal_speed() -> float:
    """Bytes each second that a seal can be computed of."""
    data = np.random.default_rng(0).integers(0, 256, 10**8, "u1")
    times = []
    for _ in range(7):
        start = time.perf_counter()
        digest = blake3(key=bytes(32))
        digest.update(data.data)
        digest.digest()
        times.append(time.perf_counter() - start)
    return data.nbytes / statistics.median(times)


if __name__ == "__main__":
    main()
