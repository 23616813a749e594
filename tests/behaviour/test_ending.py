"""What a process says that ends, or that closes a store late: nothing, or one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from processes import PATH, PATIENCE


def run(program, *arguments, **environment):
    """What a program wrote to its standard error."""
    path = os.pathsep.join([*PATH, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert not done.returncode, done.stderr
    return done.stderr


# The store is closed when the scheduler's event loop has ended.
LATE = """
import sys, threading, numpy as np
from distributed import Client
import daskps
from daskps.scheduler import evictor
from flaky_store import FlakyConnector

evictor.CLOSE_SECONDS = 0.1
client = Client(
    n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
)
with daskps.proxy_graph(FlakyConnector(sys.argv[1])):
    assert client.submit(np.sum, np.ones(1 << 18)).result() == 1 << 18
client.close()
client.cluster.close() if client.cluster else None
for thread in threading.enumerate():
    if "daskps" in thread.name:
        thread.join(60)
"""


@pytest.mark.parametrize("fault", [1.0, "raise"])
def test_a_store_that_closes_late_leaves_no_traceback(tmp_path, fault):
    (tmp_path / "faults").write_text(json.dumps({"close": fault}))
    said = run(LATE, tmp_path)
    assert "Traceback" not in said
    expected = "could not be closed" if fault == "raise" else "does not answer"
    assert expected in said


# A process that has open whatever daskps opens ends after the one that it was forked from
# has gone on. Dask itself is as loud as it likes, so both kinds are compared with it.
FORKED = """
import os, sys, numpy as np
import daskps

def child():
    pid = os.fork()
    if not pid:
        sys.exit()  # the orderly way, with all functions of atexit
    assert os.waitpid(pid, 0)[1] == 0
"""

WITH_A_STORE = """
with daskps.open_store(sys.argv[1]) as store:
    key = store.put(np.ones(1 << 18))
    child()
    assert store.get(key).sum() == 1 << 18
"""

WITH_A_LOCAL_SCHEDULER = """
import dask
from flaky_store import FlakyConnector
array = dask.delayed(np.sum)(np.ones(1 << 18))
with daskps.proxy_graph(FlakyConnector(sys.argv[1])):
    assert array.compute(scheduler="threads") == 1 << 18
    child()
    assert array.compute(scheduler="threads") == 1 << 18
"""

WITH_A_CLIENT = """
import multiprocessing
from distributed import Client
client = Client(sys.argv[1])
with daskps.proxy_graph():
    future = client.submit(np.add, np.ones(1 << 18), 1)
    assert future.result()[0] == 2
    child()
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map(abs, [-1]) == [1]
    assert client.submit(np.sum, np.ones(1 << 18)).result() == 1 << 18
    assert future.result()[0] == 2
    del future
client.close()
"""


@pytest.mark.parametrize("url", ["shm://", "file://{}", "peer://"])
def test_a_forked_process_says_nothing_of_its_parents_store(tmp_path, url):
    assert not run(FORKED + WITH_A_STORE, url.format(tmp_path))


def test_a_forked_process_does_not_close_its_parents_local_store(tmp_path):
    (tmp_path / "faults").write_text(json.dumps({"close": "raise"}))
    said = run(FORKED + WITH_A_LOCAL_SCHEDULER, tmp_path)
    assert said.count("could not be closed") == 1, "the parent's"


def test_a_forked_process_says_nothing_of_its_parents_session(cluster):
    assert not run(FORKED + WITH_A_CLIENT, cluster.address)
