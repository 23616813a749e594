"""ProxyStore's connectors and stores, as users bring them.

What each store does by itself is tested in test_store_conformance.py.
"""

from __future__ import annotations

import importlib
import os
import pickle

import dask.array as da
import numpy as np
import pytest
from processes import ProcessCluster, eventually, released
from proxystore.connectors.file import FileConnector
from proxystore.connectors.multi import MultiConnector, Policy
from proxystore.connectors.protocols import Connector
from proxystore.connectors.redis import RedisConnector
from proxystore.store import Store
from redis_server import redis_server

import daskps
from daskps.settings import Settings
from daskps.stores.opening import make
from daskps.stores.requests import request_for

X = np.arange(1 << 18, dtype="f8").reshape(512, 512)  # 2 MiB


def files(directory):
    """The objects that ProxyStore's FileConnector has there."""
    return [name for name in os.listdir(directory) if not name.endswith(".ready")]


def check_program(client, store):
    """Arguments, results and persisted data, in this store."""
    with daskps.proxy_graph(store):
        x = da.from_array(X, chunks=(256, 512))
        np.testing.assert_array_equal((x @ x.T).compute(), X @ X.T)
        future = client.submit(np.add, X, 1)
        np.testing.assert_array_equal(future.result(), X + 1)
        assert daskps.usage(client).objects
        del future
    assert released(client)


class TestMultiConnector:
    def test_in_files_and_in_redis(self, client, tmp_path):
        with redis_server() as server:
            server.admin.config_set("requirepass", "")  # ProxyStore knows none
            limit = 1_500_000
            small = FileConnector(str(tmp_path), clear=True)
            large = RedisConnector("127.0.0.1", server.port, clear=True)
            connector = MultiConnector(
                {
                    "files": (small, Policy(max_size_bytes=limit)),
                    "redis": (large, Policy(min_size_bytes=limit)),
                }
            )
            mine = connector.put(b"mine"), connector.put(bytes(2 * limit))
            with daskps.proxy_graph(connector):
                blocks = da.from_array(X, chunks=(256, 512))  # 1 MiB each
                assert client.submit(np.sum, X).result() == X.sum()
                # What no graph has used again is kept until the next one is stored.
                assert len(server.admin.keys("*")) > 1
                assert blocks.sum().compute() == X.sum()
                assert len(files(tmp_path)) > 1
            check_program(client, connector)
            assert eventually(lambda: len(files(tmp_path)) == 1)
            assert eventually(lambda: len(server.admin.keys("*")) == 1)
            assert connector.get(mine[0]) == b"mine"
            assert connector.get(mine[1]) == bytes(2 * limit)
            connector.close()

    def test_no_policy_takes_the_object(self, client, tmp_path):
        """It goes inside the graph, with a warning that says why."""
        connector = MultiConnector(
            {"small": (FileConnector(str(tmp_path)), Policy(max_size_bytes=10))}
        )
        with daskps.proxy_graph(connector):
            with pytest.warns(UserWarning, match="No connector policy was suitable"):
                future = client.submit(np.sum, X)
            assert future.result() == X.sum()
            del future
        connector.close()


class TestAStoreOfTheUsersOwn:
    """``clear=True``, a cache and a registered name stay in the process of the user."""

    def test_only_the_user_clears_it(self, tmp_path):
        with Store(
            "only-mine",
            FileConnector(str(tmp_path), clear=True),
            cache_size=16,
            register=True,
        ) as store:
            key = store.put("mine")
            with ProcessCluster() as cluster, cluster.client() as client:
                check_program(client, store)
                cluster.workers[0].terminate()
                cluster.workers[0].wait()
                assert store.get(key) == "mine"
                assert client.submit(sum, [1, 2]).result() == 3
            assert eventually(lambda: len(files(tmp_path)) == 1)
            assert store.get(key) == "mine"
        assert not tmp_path.exists()

    def test_each_task_has_an_object_of_its_own(self, client, tmp_path):
        """ProxyStore's cache would hand one to all."""
        with (
            Store("own-objects", FileConnector(str(tmp_path)), cache_size=16) as store,
            daskps.proxy_graph(store),
        ):
            futures = [client.submit(change, X, i) for i in range(4)]
            assert client.gather(futures) == [X.sum() + i for i in range(4)]
            del futures

    def test_metrics(self, client, tmp_path):
        with Store("metrics", FileConnector(str(tmp_path)), metrics=True) as store:
            check_program(client, store)

    def test_two_of_one_name(self, client, tmp_path):
        for name in "ab":
            with (
                Store("one-name", FileConnector(str(tmp_path / name))) as store,
                daskps.proxy_graph(store),
            ):
                total = client.submit(np.sum, X, pure=False)
                assert total.result() == X.sum()
                assert files(tmp_path / name)
                del total

    def test_a_connector_that_is_used_again_is_opened_once(self, client, tmp_path):
        connector = FileConnector(str(tmp_path))

        def stores():
            return len(daskps.usage(client))

        before = stores()
        for _ in range(3):
            with daskps.proxy_graph(store=connector):
                assert client.submit(np.sum, X, pure=False).result() == X.sum()
        assert stores() == before + 1


def change(x, i):
    x[0, 0] += i
    return x.sum()


MISSING = {
    "proxystore_ex.connectors.dim.ucx.UCXConnector": ("ucp", {"port": 1}),
    "proxystore_ex.connectors.dim.margo.MargoConnector": (
        "pymargo",
        {"port": 1, "protocol": "tcp", "force_spawn_server": False},
    ),
}


@pytest.mark.parametrize("path", MISSING)
class TestAConnectorWhoseLibraryIsElsewhere:
    """UCX and Margo need libraries of the machine, which may be missing on some host."""

    @pytest.fixture
    def connector(self, path):
        library, options = MISSING[path]
        if importlib.util.find_spec(library):
            pytest.skip(f"{library} is installed")
        module, name = path.rsplit(".", 1)
        kind = getattr(importlib.import_module(module), name)
        # As it is where the library is there, without the server that it would start.
        connector = kind.__new__(kind)
        connector.__dict__.update(
            options, _address="127.0.0.1", _interface=None, timeout=1
        )
        return connector

    def test_is_taken_and_travels_as_its_config(self, path, connector):
        assert isinstance(connector, Connector)
        assert Settings.resolve(store=connector).store is connector
        request = pickle.loads(pickle.dumps(request_for(connector)))
        assert request.connector.kind == path
        assert request.connector.options == connector.config()

    def test_an_error_says_what_is_missing_and_where(self, path, connector, client):
        library, _ = MISSING[path]
        request = request_for(connector)
        with pytest.raises(daskps.ClusterError, match=f"{path}.*on host.*'{library}'"):
            make(request)
        with (
            pytest.raises(daskps.ClusterError, match=f"'{library}'.*every worker"),
            daskps.proxy_graph(connector),
        ):
            pass


def test_a_connector_that_only_a_worker_cannot_import(tmp_path):
    """Its module is found by the client and the scheduler, and not by the workers."""
    (tmp_path / "of_mine.py").write_text(
        "from proxystore.connectors.file import FileConnector\n"
        "class MyConnector(FileConnector):\n"
        "    pass\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        connector = importlib.import_module("of_mine").MyConnector(str(tmp_path / "o"))
        with (
            ProcessCluster(
                workers=1, scheduler={"PYTHONPATH": str(tmp_path)}
            ) as cluster,
            cluster.client(),
            pytest.raises(
                daskps.ClusterError, match=r"of_mine\.MyConnector.*'of_mine'"
            ),
            daskps.proxy_graph(connector),
        ):
            pass
        connector.close()
