"""Computes on a cluster, and says where the values were. Run by ``in_namespace``."""

from __future__ import annotations

import glob
import json
import logging
import os
import sys
import tempfile
from typing import Any

import dask
import dask.array as da
import numpy as np
from processes import ProcessCluster, eventually, graph_nbytes, messages_sent

import daskps
from daskps.stores.files.places import HostPlaces

# More than the smaller /dev/shm has.
X = np.random.default_rng(1).random(15 << 20)  # 120 MiB


class Records(logging.Handler):
    """Collects what daskps logs."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def objects() -> dict[str, int]:
    """Bytes of objects, in memory and in the temporary directory."""
    places = {"memory": "/dev/shm", "temporary": tempfile.gettempdir()}
    return {name: sum(sizes(place).values()) for name, place in places.items()}


def sizes(place: str) -> dict[int, int]:
    """Bytes by inode: an object may have several names."""
    paths = glob.glob(f"{place}/daskps-*/*.*")
    found = [os.stat(path) for path in paths if not path.endswith(".lock")]
    return {status.st_ino: status.st_size for status in found}


def compute(cluster: ProcessCluster, store: str | None) -> dict[str, Any]:
    """Arguments, persisted data and results; what was seen meanwhile."""
    with cluster.client() as client:
        with daskps.proxy_graph(store) as session, messages_sent(client) as messages:
            (blocks,) = dask.persist(da.from_array(X, chunks=len(X) // 12))
            found = (blocks + 1).compute()
            seen = {
                "same": bool(np.array_equal(found, X + 1)),
                "objects": objects(),
                "session": repr(session),
                "graph": graph_nbytes(messages),
            }
            del blocks, found
        seen["emptied"] = eventually(lambda: not daskps.usage(client).objects)
    return seen


def left_by_the_killed(cluster: ProcessCluster) -> dict[str, Any]:
    """Kill all, while tasks need something, and sweep."""
    client = cluster.client()
    with daskps.proxy_graph():
        (blocks,) = dask.persist(da.from_array(X, chunks=len(X) // 12))
        for process in [*cluster.workers, cluster.scheduler]:
            process.kill()
            process.wait()
    before = objects()
    swept = HostPlaces.configured().sweep()
    client.close()
    del blocks
    return {"before": before, "swept": len(swept), "after": objects()}


def main(what: str, store: str | None = None) -> None:
    """Print what was seen."""
    handler = Records()
    logger = logging.getLogger("daskps")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    with ProcessCluster() as cluster:
        if what == "killed":
            print(json.dumps(left_by_the_killed(cluster)))
            return
        seen = compute(cluster, store)
    seen["left"] = objects()
    seen["log"] = [[r.levelname, r.getMessage()] for r in handler.records]
    print(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
