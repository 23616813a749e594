"""Files of a ``file://`` store that something else cuts short while they are mapped."""

from __future__ import annotations

import os

import numpy as np
import pytest
from processes import PATIENCE, ProcessCluster, eventually, until_gone

import daskps

X = np.arange(1 << 18, dtype="f8")  # 2 MiB


def sum_later(x, started, gate):
    """Maps it, and looks at it when it is told to."""
    open(started, "w").close()
    until_gone(gate)
    return x.sum()


@pytest.mark.slow
def test_the_task_fails_and_others_go_on(tmp_path):
    """The kernel kills the worker; what is computed again finds the object not whole."""
    started, gate = (str(tmp_path / name) for name in ("started", "gate"))
    open(gate, "w").close()
    with (
        ProcessCluster(nanny=True) as cluster,
        cluster.client() as client,
        daskps.proxy_graph(f"file://{tmp_path}"),
    ):
        future = client.submit(sum_later, X, started, gate)
        assert eventually(lambda: os.path.exists(started))
        (path,) = _objects_below(tmp_path)
        os.truncate(path, 1000)
        os.unlink(gate)
        with pytest.raises(daskps.ObjectMissingError, match="not whole"):
            future.result(timeout=PATIENCE)
        assert client.submit(np.sum, X + 1).result(timeout=PATIENCE) == (X + 1).sum()
        future.release()


def _objects_below(place):
    return [
        os.path.join(directory, name)
        for directory, _, names in os.walk(place)
        for name in names
        if os.path.basename(directory).startswith("daskps-") and name != "owner.lock"
    ]


def test_every_read_looks_at_the_size(tmp_path):
    with daskps.open_store(f"file://{tmp_path}") as store:
        key = store.connector.put_frames([X])
        mapped = store.connector.get(key)
        [path] = _objects_below(tmp_path)
        os.truncate(path, X.nbytes - 1)
        assert store.connector.get(key) is None
        os.truncate(path, X.nbytes)
        assert store.connector.get(key) is not None
        del mapped
