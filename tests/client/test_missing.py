"""A cluster whose scheduler or workers lack daskps, or have another version of it.

Versions with one protocol number may meet.
"""

from __future__ import annotations

import contextlib
import shutil
import textwrap

import dask
import numpy as np
import pytest
from processes import (
    ELSEWHERE,
    ProcessCluster,
    graph_nbytes,
    messages_sent,
    store_directories,
)
from redis_server import redis_server

import daskps
from daskps.versions import PROTOCOL

pytestmark = pytest.mark.core

# Python runs sitecustomize.py when it starts.
BLOCKED = """
    import sys

    class Blocker:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "daskps":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Blocker())
"""
WITHOUT_REDIS = BLOCKED.replace('"daskps"', '"redis"')
OTHER_VERSION = """
    import importlib.metadata

    original = importlib.metadata.version

    def version(name):
        return "0.0.7" if name == "daskps" else original(name)

    importlib.metadata.version = version
"""
# A finder that gives way to the others, and then changes what they found.
OTHER_PROTOCOL = (
    OTHER_VERSION
    + """
    import importlib.util, sys

    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name != "daskps.versions":
                return None
            sys.meta_path.remove(self)
            spec = importlib.util.find_spec(name)
            run = spec.loader.exec_module

            def exec_module(module):
                run(module)
                module.PROTOCOL += 1
                module.VERSION = (module.__version__, module.PROTOCOL)

            spec.loader.exec_module = exec_module
            return spec

    sys.meta_path.insert(0, Finder())
"""
)


@pytest.fixture
def start(tmp_path):
    """Start a cluster, some of whose processes run something first."""
    with contextlib.ExitStack() as stack:

        def start(**first):
            environments = {}
            for who, code in first.items():
                path = tmp_path / who
                path.mkdir()
                (path / "sitecustomize.py").write_text(textwrap.dedent(code))
                environments[who] = {"PYTHONPATH": str(path)}
            cluster = stack.enter_context(ProcessCluster(workers=1, **environments))
            return stack.enter_context(cluster.client())

        yield start


def check_plain_dask_still_works(client):
    value = np.ones(1000)
    assert client.submit(np.sum, value, pure=False).result() == 1000
    assert dask.delayed(np.sum)(value).compute() == 1000


def check_every_way_in(client, match):
    """Entering a block, a client of daskps, usage() and the pass by name."""
    with pytest.raises(daskps.ClusterError, match=match) as error, daskps.proxy_graph():
        pytest.fail("the block must not be entered")
    check_plain_dask_still_works(client)
    with pytest.raises(daskps.ClusterError, match=match):
        daskps.Client(client.scheduler.address, set_as_default=False)
    clients = client.run_on_scheduler(
        lambda dask_scheduler: set(dask_scheduler.clients)
    )
    started = {name for name in clients if name.startswith("Client")}
    assert started == {client.id}, "the one that could not start is closed"
    with (
        dask.config.set(optimizations=[daskps.optimize]),
        pytest.raises(daskps.ClusterError, match=match),
    ):
        client.submit(np.sum, np.ones(1 << 18))
    check_plain_dask_still_works(client)
    return str(error.value)


class TestMissing:
    def test_on_the_scheduler(self, start):
        client = start(scheduler=BLOCKED, worker=BLOCKED)
        message = check_every_way_in(client, "not installed on the scheduler")
        assert f"pip install daskps=={daskps.__version__}" in message
        assert "every worker" in message
        with pytest.raises(daskps.ClusterError, match="not installed on the scheduler"):
            daskps.usage(client)

    def test_on_the_workers(self, start):
        client = start(worker=BLOCKED)
        message = check_every_way_in(client, "not installed on a worker")
        assert f"pip install daskps=={daskps.__version__}" in message


class TestAnotherVersion:
    def test_another_protocol_on_the_scheduler(self, start):
        client = start(scheduler=OTHER_PROTOCOL)
        message = check_every_way_in(client, "the scheduler .* has daskps 0.0.7")
        here = f"{daskps.__version__} (protocol {PROTOCOL})"
        assert f"The client has daskps {here}" in message
        assert f"0.0.7 (protocol {PROTOCOL + 1})" in message
        assert f"pip install daskps=={daskps.__version__}" in message

    def test_another_protocol_on_the_workers(self, start):
        client = start(worker=OTHER_PROTOCOL)
        message = check_every_way_in(client, "worker tcp.* has daskps 0.0.7")
        assert f"0.0.7 (protocol {PROTOCOL + 1})" in message
        assert f"pip install daskps=={daskps.__version__}" in message

    def test_another_release_with_the_same_protocol(self, start):
        client = start(scheduler=OTHER_VERSION, worker=OTHER_VERSION)
        value = np.ones(1 << 18)
        with daskps.proxy_graph(), messages_sent(client) as messages:
            total = client.submit(np.sum, value).result()
            doubled = client.submit(np.add, value, value).result()
        assert total == 1 << 18
        np.testing.assert_array_equal(doubled, value + value)
        assert graph_nbytes(messages) < 10_000


class TestAnotherHost:
    """Simulated by another user's view: a directory that a worker cannot see."""

    @pytest.fixture(autouse=True)
    def what_a_blind_worker_made(self):
        """On another host it would be another directory."""
        before = store_directories()
        yield
        for directory in store_directories() - before:
            shutil.rmtree(directory)

    def test_a_store_that_the_client_cannot_see(self, start, caplog):
        client = start(worker=ELSEWHERE)
        with (
            pytest.raises(
                daskps.ClusterError, match="cannot use the cluster's store"
            ) as error,
            daskps.proxy_graph("peer://"),
        ):
            pytest.fail("the block must not be entered")
        assert "Worker tcp://" in str(error.value)
        assert 'store="file:///shared/directory"' in str(error.value)
        check_plain_dask_still_works(client)

        # Nobody has asked for a store.
        with daskps.proxy_graph() as session:
            check_plain_dask_still_works(client)
            value = np.ones(1 << 18)
            assert client.submit(np.sum, value).result() == 1 << 18
            scattered = client.scatter(value)
            assert client.submit(np.sum, scattered).result() == 1 << 18
            assert "peer:// cannot be used: Worker tcp://" in repr(session)
        assert len([r for r in caplog.records if "inside graphs" in r.message]) == 1
        with (
            dask.config.set({"daskps.on-store-error": "raise"}),
            pytest.raises(daskps.ClusterError, match="Nothing can be stored: peer://"),
            daskps.proxy_graph(),
        ):
            pytest.fail("the block must not be entered")


def test_a_cluster_that_has_all_it_needs(start):
    client = start()
    with daskps.proxy_graph(), messages_sent(client) as messages:
        assert client.submit(np.sum, np.ones(1 << 18)).result() == 1 << 18
    assert graph_nbytes(messages) < 10_000


@pytest.mark.parametrize(
    ("who", "error"),
    [("scheduler", daskps.ConfigError), ("worker", daskps.ClusterError)],
)
def test_a_package_that_a_store_needs(start, who, error):
    client = start(**{who: WITHOUT_REDIS})
    with (
        redis_server() as server,
        pytest.raises(error, match=r"redis.*pip install 'daskps\[redis\]'"),
        daskps.proxy_graph(server.url),
    ):
        pass
    check_plain_dask_still_works(client)
