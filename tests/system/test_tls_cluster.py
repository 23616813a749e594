"""Clusters whose connections use TLS, and so those of ``peer://``."""

from __future__ import annotations

import glob
import os
import secrets
import tempfile

import dask
import numpy as np
import pytest
from certificates import Authority, environment
from distributed import Client, LocalCluster
from functions_for_network import double
from peers import has_open, servers
from processes import PLACES, VARIABLES, ProcessCluster, eventually, released

import daskps
from daskps.client.link import ClusterLink
from daskps.stores.peer.protocol import Keys, connect

X = np.random.default_rng(0).random(1 << 18)  # 2 MiB


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture
def elsewhere():
    """The shared memory of the workers' host."""
    place = tempfile.mkdtemp("-host", dir=PLACES[0])
    yield place
    assert eventually(lambda: not os.listdir(place))
    os.rmdir(place)


@pytest.fixture
def cluster(authority, elsewhere, tmp_path):
    """Client, scheduler and workers have a certificate each, in files."""
    settings = authority.settings(tmp_path)
    tls = environment(settings)
    tls["DASK_DISTRIBUTED__COMM__DEFAULT_SCHEME"] = "tls"
    with (
        dask.config.set(settings),
        ProcessCluster(scheduler=tls, worker={**tls, VARIABLES[0]: elsewhere}) as made,
    ):
        yield made
    assert eventually(lambda: not own_servers())


def own_servers():
    """Process ids of servers of this run."""
    return [pid for pid in servers() if has_open(pid, PLACES[0])]


def connector_of(client):
    """The client's."""
    (catalog,) = ClusterLink.of(client)._catalogs.values()
    return catalog.store.connector


def test_values_and_results_travel_with_tls(cluster):
    with cluster.client() as client:
        assert client.scheduler.address.startswith("tls://")
        with daskps.proxy_graph("peer://") as session:
            assert ", TLS)" in repr(connector_of(client))
            futures = [client.submit(double, X, pure=False) for _ in range(4)]
            for future in futures:
                np.testing.assert_array_equal(future.result(), 2 * X)
            assert daskps.usage(client).objects >= 1
            cluster.add_worker()
            client.wait_for_workers(3)
            late = client.map(double, [X + i for i in range(6)], pure=False)
            for i, value in enumerate(client.gather(late)):
                np.testing.assert_array_equal(value, 2 * (X + i))
            assert "inside graphs" not in repr(session)
        del futures, future, late
        assert released(client)


def test_who_does_not_get_in(cluster, authority):
    """At the scheduler, the client's host and the workers'."""
    with cluster.client() as client:
        with daskps.proxy_graph("peer://"):
            connector = connector_of(client)
            future = client.submit(double, X)
            np.testing.assert_array_equal(future.result(), 2 * X)
            key = connector._settings.secret.value
            [theirs] = {
                tuple(a) for a in client.run(where, connector_name(client)).values()
            }
            for address in (*connector.registries(), connector.serves_at(), theirs):
                connect(address, Keys(key, authority.tls())).close()
                for keys in (
                    Keys(key, Authority().tls()),
                    Keys(secrets.token_bytes(32), authority.tls()),
                ):
                    with pytest.raises(ConnectionError):
                        connect(address, keys)
                with pytest.raises(OSError, match=r"closed|timed out|reset"):
                    connect(address, Keys(key), timeout=0.5)
            np.testing.assert_array_equal(
                client.submit(double, X + 1).result(), 2 * X + 2
            )
        del future
        assert released(client)


def connector_name(client):
    [name] = ClusterLink.of(client).store_names()
    return name


def where(name):
    """Where a worker's host gives out its objects."""
    from daskps.stores import opened

    return opened.get(name).connector.serves_at()


def test_certificates_that_are_in_memory_alone():
    """They are in no file, and no list of processes shows them."""
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, security=True, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
        daskps.proxy_graph("peer://"),
    ):
        future = client.submit(double, X)
        np.testing.assert_array_equal(future.result(), 2 * X)
        private = cluster.security.tls_client_key.splitlines()[1]
        [server] = own_servers()
        for name in "cmdline", "environ":
            with open(f"/proc/{server}/{name}") as file:
                assert private not in file.read()
        for path in glob.glob(f"{PLACES[0]}/daskps-peer-*/server.*"):
            with open(path) as file:
                assert private not in file.read()
        del future
    assert eventually(lambda: not own_servers())
    assert not glob.glob(f"{PLACES[0]}/daskps-peer-*")
