"""On Windows and macOS, daskps is off: it says so once, and is in nobody's way."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from distributed import Client
from processes import HERE, ProcessCluster, eventually

import daskps
from daskps.references.nodes import ObjectId, ProxyNode, StoredBytes, StoredValue
from daskps.stores.connectors.sealed import SealedKey
from daskps.stores.daos.namespace import DaosKey
from daskps.stores.keys import PeerKey, RedisKey, SegmentKey

SYSTEMS = pytest.mark.parametrize("system", ["win32", "darwin"])
NAMES = {"win32": "Windows", "darwin": "macOS"}

BEGIN = """
import asyncio, logging, sys
from other_system import become
become({system!r})
import dask, dask.array as da, numpy as np
from distributed import Client
logging.basicConfig(level="WARNING", format="LOGGED %(message)s", stream=sys.stdout)
import daskps, daskps.preload, daskps.testing

data = np.arange(1 << 18)
x = da.from_array(data, chunks=1 << 17)
expected = data.sum()

def fails(function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except daskps.DaskpsError as e:
        print("FAILED", type(e).__name__, e)
    else:
        raise AssertionError(f"{{function}} worked")
"""


# Without what Dask imports later if it is there, and what then looks for its own libraries
# of the other system.
PATH = [
    str(Path(HERE) / "without_optional"),
    HERE,
    str(Path(daskps.__file__).parents[1]),
]


def run(system: str, program: str) -> str:
    """Run a program on another system; what it printed and logged."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN.format(system=system) + textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(PATH)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@SYSTEMS
def test_explain_and_assert_proxied_on_another_system(system):
    output = run(
        system,
        """
        print(daskps.explain(x))
        daskps.testing.assert_proxied(x)
        """,
    )
    assert "2 x numpy.ndarray" in output
    assert "LOGGED" not in output


WAYS = """
def with_a_block(client):
    for store in None, "shm://", "peer://", "redis://localhost":
        with daskps.proxy_graph(store=store) as session:
            assert x.sum().compute() == expected
            assert client.submit(np.sum, data).result() == expected
            (there,) = client.scatter([data])
            assert client.submit(np.sum, there).result() == expected
    print(session)

def with_a_decorator(client):
    assert daskps.proxy_graph()(x.sum().compute)() == expected

def with_a_pass(client):
    with dask.config.set(optimizations=[daskps.optimize]):
        assert x.sum().compute() == expected

def with_a_client(client):
    with daskps.Client(client.scheduler.address) as ours:
        assert ours.submit(np.sum, data).result() == expected
        assert "Linux" in repr(ours)

def with_the_preload(client):
    with dask.config.set({"distributed.client.preload": ["daskps.preload"]}):
        with Client(client.scheduler.address) as ours:
            assert ours.submit(np.sum, data).result() == expected

def with_a_coroutine(client):
    async def main():
        async with Client(client.scheduler.address, asynchronous=True) as ours:
            async with daskps.proxy_graph(client=ours):
                assert await ours.submit(np.sum, data) == expected
    asyncio.run(main())

def without_a_cluster(client):
    for store in None, "shm://":
        with daskps.proxy_graph(store=store), dask.config.set(scheduler="threads"):
            assert x.sum().compute() == expected
    passes = {"optimizations": [daskps.optimize], "daskps.store": "shm://"}
    with dask.config.set({**passes, "scheduler": "threads"}):
        assert x.sum().compute() == expected
"""


@SYSTEMS
def test_every_way_in_goes_as_in_plain_dask(system):
    output = run(
        system,
        WAYS
        + """
without_a_cluster(None)
with Client(processes=False, dashboard_address=None, n_workers=1) as client:
    for way in (with_a_block, with_a_decorator, with_a_pass, with_a_client,
                with_the_preload, with_a_coroutine):
        way(client)
    assert not daskps.usage()
""",
    )
    said = [line for line in output.splitlines() if "LOGGED daskps" in line]
    assert said == [
        "LOGGED daskps is off: its stores need Linux, and this process runs on "
        f"{NAMES[system]}. Values travel as in plain Dask."
    ]


@SYSTEMS
def test_what_has_to_have_a_store_says_so(system):
    output = run(
        system,
        """
        fails(daskps.open_store, "shm://")
        fails(daskps.proxy_graph, store="what://")
        fails(daskps.proxy_graph, threshold="many")
        with Client(processes=False, dashboard_address=None, n_workers=1) as client:
            fails(daskps.proxy, data)
        """,
    )
    failed = [line for line in output.splitlines() if line.startswith("FAILED")]
    assert len(failed) == 4
    assert "need Linux" in failed[0]
    assert "no known scheme" in failed[1]
    assert "not a size" in failed[2]
    assert "needs Linux" in failed[3]


@pytest.mark.slow
@SYSTEMS
def test_a_client_of_a_cluster_on_linux(system):
    with ProcessCluster(1) as cluster, cluster.client() as client:
        output = run(
            system,
            f"""
            with Client({cluster.address!r}) as client, daskps.proxy_graph():
                assert client.submit(np.sum, data).result() == expected
                assert x.sum().compute() == expected
            """,
        )
        assert output.count("LOGGED") == 1, output
        with daskps.proxy_graph():
            assert client.submit(np.sum, np.ones(1 << 17)).result() == 1 << 17


KEYS = {
    "shm": SegmentKey("name", 1, 0),
    "peer": PeerKey("name", 1, 0, "127.0.0.1", 1),
    "redis": RedisKey("name", 1),
    "daos": DaosKey("name", 1),
}


@pytest.mark.parametrize("kind", KEYS)
def test_a_graph_can_be_unpickled_without_what_the_store_needs(kind):
    """To Dask, anything else is a broken connection, and the worker ends."""
    id = ObjectId("store", SealedKey(KEYS[kind], 1, b""))
    part = StoredBytes(id, 0, 1)
    node = ProxyNode("key", StoredValue(part, [part], [True]))
    program = f"""
        import pickle
        missing = ["redis", "proxystore_ex", "pydaos", "pandas", "pydantic"]
        sys.modules.update(dict.fromkeys(missing))
        node = pickle.loads({pickle.dumps(node)!r})
        print(node.value.objects())
        """
    assert repr({id}) in run("win32", program)


@SYSTEMS
def test_a_worker_that_joins_a_cluster_on_linux(system):
    """It works, and fails what it cannot read with the reason."""
    large = np.ones(1 << 17)
    with ProcessCluster(1) as cluster, cluster.client() as client:
        with daskps.proxy_graph("shm://"):
            worker = start_worker(system, cluster)
            try:
                assert eventually(lambda: len(client.scheduler_info()["workers"]) == 2)
                there = {"workers": ["other"], "pure": False}
                assert client.submit(os.getpid, **there).result() == worker.pid
                failed = client.submit(np.sum, large, **there)
                with pytest.raises(daskps.ObjectMissingError, match=NAMES[system]):
                    failed.result()
                assert (
                    client.submit(np.ones, 1 << 17, **there).result().sum() == 1 << 17
                )
                assert worker.poll() is None
            finally:
                stop(worker)
        assert client.submit(np.sum, large, pure=False).result() == 1 << 17


@pytest.mark.slow
@SYSTEMS
def test_a_worker_that_is_there_already(system):
    with ProcessCluster(1) as cluster, cluster.client() as client:
        worker = start_worker(system, cluster)
        try:
            assert eventually(lambda: len(client.scheduler_info()["workers"]) == 2)
            with (
                pytest.raises(daskps.ClusterError, match=f"runs on {NAMES[system]}"),
                daskps.proxy_graph("shm://"),
            ):
                pass
            # Nobody has asked for a store.
            with daskps.proxy_graph() as session:
                assert f"runs on {NAMES[system]}" in repr(session)
                there = {"workers": ["other"], "pure": False}
                x = np.ones(1 << 17)
                assert client.submit(np.sum, x, **there).result() == 1 << 17
            assert client.submit(np.sum, [1, 2], workers=["other"]).result() == 3
        finally:
            stop(worker)


def stop(worker: subprocess.Popen) -> None:
    """How it ends on a system that is only simulated is not tested."""
    worker.terminate()
    try:
        worker.wait(20)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()


def start_worker(system: str, cluster: ProcessCluster) -> subprocess.Popen:
    """A worker of the cluster, on another system, called "other"."""
    program = os.path.join(HERE, "other_system.py")
    options = "--name other --nthreads 1 --no-dashboard --no-nanny --host 127.0.0.1"
    with open(os.path.join(cluster.directory, "worker.log"), "ab") as log:
        return subprocess.Popen(
            [
                *(sys.executable, program, system, "worker", cluster.address),
                *options.split(),
                *("--local-directory", cluster.directory),
            ],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(PATH)},
            stdout=log,
            stderr=log,
        )


def test_a_scheduler_on_another_system(monkeypatch):
    """Its clients on Linux are told so."""
    with Client(processes=False, n_workers=1, dashboard_address=None) as client:
        monkeypatch.setattr("daskps.scheduler.lifetimes.check_linux", refuse)
        with pytest.raises(daskps.ClusterError, match=r"The scheduler .* macOS"):
            daskps.proxy_graph("shm://", client=client).__enter__()
        assert not daskps.usage(client)


def refuse(here: str) -> None:
    raise daskps.ClusterError(f"{here} runs on macOS")
