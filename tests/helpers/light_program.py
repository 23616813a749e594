"""A program with arrays alone, in a process of its own: prints what was imported where.

Arguments: the scheduler's address, and a store. Gives JSON: for the client, the scheduler
and each worker, those of ``HEAVY`` that it has imported.
"""

from __future__ import annotations

import json
import sys

import dask.array as da
import numpy as np
from distributed import Client

import daskps

HEAVY = (
    *("pandas", "pydantic", "pyarrow", "polars", "dask.dataframe", "redis"),
    "bokeh",
)


def heavy() -> list[str]:
    """What this process has imported of it."""
    return [name for name in HEAVY if name in sys.modules]


def scale(array: np.ndarray, by: np.ndarray) -> np.ndarray:
    """A task with a large argument."""
    return array * by[0]


def use(client: Client) -> None:
    """Send large values by all ways that arrays take, and get large results."""
    data = np.random.default_rng(0).random((512, 1024))
    x = da.from_array(data, chunks=256)
    np.testing.assert_array_equal((x + 1).compute(), data + 1)
    future = client.submit(scale, data, data)
    np.testing.assert_array_equal(future.result(), data * data[0])
    (scattered,) = client.scatter([data])
    assert client.submit(np.sum, scattered).result() == data.sum()
    results = client.map(scale, [data, -data], by=data)
    np.testing.assert_array_equal(client.submit(sum, results).result(), data * 0)
    assert daskps.explain(x).nbytes == data.nbytes
    assert daskps.usage().objects


def main() -> None:
    """The program."""
    address, store = sys.argv[1:]
    with Client(address) as client:
        client.wait_for_workers(2, timeout=30)
        with daskps.proxy_graph(store=store or None, threshold="64 kiB"):
            use(client)
        found = {
            "client": heavy(),
            "scheduler": client.run_on_scheduler(heavy),
            **client.run(heavy),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
