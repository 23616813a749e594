"""A user's program, which runs on a cluster without daskps and with it.

A script makes the cluster as users do, and calls :func:`try_on`; what that gives the script
prints, for the test that has started it.
"""

from __future__ import annotations

import io
import json
import logging
import sys
import time
from typing import Any

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
from distributed import Client, wait, worker_client
from relayed import Received
from same import digest

import daskps

# Numbers are whole, so that sums are exact in any order.
N = 1 << 20


def double(x):
    """Twice that."""
    return 2 * x


def resubmit(x):
    """Twice that, computed by a task of this one's."""
    with worker_client() as client:
        return client.submit(double, x).result()


def answers(client: Client) -> dict[str, Any]:
    """What the program computes, by name."""
    model = np.random.default_rng(0).integers(0, 1000, N)
    frame = pd.DataFrame({"key": model % 7, "value": model})
    blocks = da.from_array(model, chunks=N // 4)
    persisted = (blocks + 1).persist()
    wait(persisted)
    futures = client.map(double, [model, model + 1])
    [scattered] = client.scatter([model])
    return {
        "array": blocks.compute(),
        "sum": blocks.sum().compute(),
        "groups": dd.from_pandas(frame, npartitions=4).groupby("key").sum().compute(),
        "submit": client.submit(double, model).result(),
        "map": client.gather(futures),
        "delayed": dask.compute(*[dask.delayed(np.add)(model, i) for i in range(4)]),
        "persisted": persisted.sum().compute(),
        "scattered": client.submit(double, scattered).result(),
        "in a task": client.submit(resubmit, model).result(),
        "run": set(client.run(np.sum, model).values()),
    }


def try_on(client: Client, workers: int) -> dict[str, Any]:
    """Run the program on a cluster, without daskps and with it.

    Returns
    -------
    dict
        ``wrong``: names of answers that are not what they are without; ``session``: how it
        shows itself; ``warnings`` and ``log``: what daskps has logged; ``objects``: how
        many are left; ``plain``, ``ours``: how long (seconds) that took, and how many bytes
        the scheduler has ``received``.
    """
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger = logging.getLogger("daskps")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    client.wait_for_workers(workers, timeout=500)
    without, plain = _measured(client)
    begin = time.monotonic()
    with daskps.proxy_graph() as session:
        opening = time.monotonic() - begin
        found, ours = _measured(client)
        shown = repr(session)
    deadline = time.monotonic() + 60
    while daskps.usage(client).objects and time.monotonic() < deadline:
        time.sleep(0.1)
    lines = log.getvalue().splitlines()
    return {
        "wrong": [name for name in without if found[name] != without[name]],
        "session": shown,
        "warnings": [line for line in lines if not line.startswith("INFO")],
        "log": lines,
        "objects": daskps.usage(client).objects,
        "plain": plain,
        "ours": {**ours, "opening": opening},
    }


def _measured(client: Client) -> tuple[dict[str, str], dict[str, float]]:
    begin = time.monotonic()
    with Received(client) as received:
        found = {name: digest(answer) for name, answer in answers(client).items()}
    seconds = time.monotonic() - begin
    return found, {"seconds": seconds, "received": received.nbytes}


def say(seen: dict[str, Any]) -> None:
    """Print it as the last line."""
    print(json.dumps(seen))
    sys.stdout.flush()


if __name__ == "__main__":
    with Client(sys.argv[1]) as the_client:
        say(try_on(the_client, int(sys.argv[2])))
