"""Which store is chosen where none is named."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import tempfile
import warnings
from types import SimpleNamespace
from unittest import mock

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster, Security
from distributed.comm.registry import backends
from file_systems import tmpfs
from processes import PLACES, VARIABLES, ProcessCluster, eventually
from relayed import Received

import daskps
from daskps.client.choice import choose
from daskps.client.reach import Reach
from daskps.messages import EVENTS
from daskps.stores.files.places import ROOM_NBYTES_AT_LEAST
from daskps.stores.probe import Sight, look, look_from_scheduler, probes
from daskps.stores.requests import request_for

PLENTY = 2 * ROOM_NBYTES_AT_LEAST
X = np.arange(1 << 18, dtype="f8")  # 2 MiB


def cluster_that_sees(
    scheduler,
    *workers,
    address="tcp://192.0.2.1:8786",
    addresses=("tcp://192.0.2.1:8786",),
):
    """A client whose scheduler and workers see the probes as told, and no others."""
    unseen = sights(None, None, None)

    async def on_scheduler(function, paths):
        assert function is look_from_scheduler
        return [[*scheduler, *unseen][: len(paths)], list(addresses)]

    async def on_workers(function, paths, on_error):
        assert function is look
        return {i: [*sights, *unseen][: len(paths)] for i, sights in enumerate(workers)}

    return SimpleNamespace(
        run_on_scheduler=on_scheduler,
        run=on_workers,
        scheduler=SimpleNamespace(address=address),
    )


def choices(client):
    return asyncio.run(choose(client, request_for(None).candidates))


def chosen(client):
    return choices(client).stores[0]


def sights(*rooms, host="there"):
    # Over a connection they arrive as lists.
    return [[host, room] for room in rooms]


def test_one_host_gets_shared_memory_and_says_so(client: Client, caplog):
    with caplog.at_level(logging.INFO, "daskps"), daskps.proxy_graph() as session:
        reason = f"2 workers see {dask.config.get('daskps.shm.directory')}, with room"
        for text in repr(session), session._repr_html_(), caplog.text:
            assert "shm://" in text
            assert reason in text


def test_a_session_that_no_client_has_used():
    with daskps.proxy_graph() as session:
        assert "when a client uses it" in repr(session)


def test_hosts_with_nothing_in_common():
    with dask.config.set({"temporary-directory": None}):
        choice = chosen(cluster_that_sees(sights(PLENTY), sights(None, host="far")))
    assert choice.request.url == "peer://"
    assert "a worker on far does not see" in choice.reason


def test_hosts_that_share_a_directory():
    place = PLACES[1]
    with dask.config.set({"temporary-directory": place}):
        choice = chosen(cluster_that_sees(sights(None, PLENTY), sights(None, PLENTY)))
    assert choice.request.url == f"file://{place}"
    assert f"1 worker see {place}" in choice.reason


def test_a_directory_that_one_does_not_see():
    with dask.config.set({"temporary-directory": PLACES[1]}):
        choice = chosen(
            cluster_that_sees(sights(None, PLENTY), sights(None, None, host="far"))
        )
    assert choice.request.url == "peer://"


@pytest.mark.parametrize("temporary", [None, PLACES[1]], ids=["none", "a directory"])
def test_little_shared_memory_is_used(temporary):
    """What does not fit goes to the temporary directory."""
    seen = sights(ROOM_NBYTES_AT_LEAST - 1, PLENTY)
    with dask.config.set({"temporary-directory": temporary}):
        assert chosen(cluster_that_sees(seen, seen)).request.url == "shm://"


def test_workers_that_are_not_there_yet():
    # They may come from anywhere.
    choice = chosen(cluster_that_sees(sights(PLENTY, PLENTY)))
    assert choice.request.url == "peer://"
    assert "no worker yet" in choice.reason


@pytest.mark.parametrize(
    ("address", "addresses"),
    [
        ("tls://192.0.2.1:1", ["tls://192.0.2.1:1"]),
        ("wss://192.0.2.1:1", ["wss://192.0.2.1:1"]),
        ("gateway://proxy:8786", ["tls://192.0.2.1:8786"]),
        ("tcp://127.0.0.1:9999", ["tls://192.0.2.1:8786"]),
        ("tcp://192.0.2.1:8786", ["tcp://192.0.2.1:8786", "tls://192.0.2.1:8787"]),
    ],
)
def test_a_cluster_that_encrypts_has_peers_that_do(address, addresses):
    client = cluster_that_sees(
        *(sights(None), sights(None)), address=address, addresses=addresses
    )
    with dask.config.set({"temporary-directory": None}):
        [choice] = choices(client).stores
    assert choice.request == request_for("peer://")
    assert "peer:// encrypts what it sends, as this cluster does" in choice.reason


@pytest.mark.parametrize("address", ["gateway://proxy:8786", "wss://proxy:443"])
def test_encryption_is_not_given_up(address):
    """The client's connection ends at something that talks to the cluster in clear."""
    client = cluster_that_sees(sights(None), sights(None), address=address)
    with dask.config.set({"temporary-directory": None}):
        found = choices(client)
    assert not found.stores
    assert f"what this client sends to {address} is encrypted" in found.against


def test_shared_memory_that_the_client_cannot_write_to(tmp_path):
    settings = {
        "temporary-directory": None,
        "daskps.shm.directory": str(tmp_path / "missing"),
    }
    with dask.config.set(settings):
        choice = chosen(cluster_that_sees(sights(None), sights(None)))
    assert choice.request.url == "peer://"
    assert "the client, on " in choice.reason
    assert f"cannot write to {tmp_path}/missing" in choice.reason


def test_probes_are_private_and_go(tmp_path):
    with probes([str(tmp_path), "/nonexistent"]) as paths:
        [here, nowhere] = look(paths)
        assert here.room
        assert nowhere == Sight(here.host, None)
        (tmp_path / "open").mkdir(mode=0o755)
        assert look([str(tmp_path / "open")])[0].room is None
    assert [path.name for path in tmp_path.iterdir()] == ["open"]


def test_no_worker_yet_and_then_some(caplog):
    """The program has not stored anything: shared memory is chosen after all."""
    with (
        ProcessCluster(workers=0) as cluster,
        cluster.client() as client,
        daskps.proxy_graph() as session,
    ):
        assert "peer:// (there is no worker yet)" in repr(session)
        cluster.add_worker()
        client.wait_for_workers(1)
        assert client.submit(np.sum, X).result() == X.sum()
        assert "shm://" in repr(session)
        assert daskps.usage(client).objects == 1
    assert not any("No store was named" in r.message for r in caplog.records)


def test_values_that_were_stored_before_there_was_a_worker():
    """They stay where they are, and what comes later goes there, too, meanwhile."""
    with ProcessCluster(workers=0) as cluster, cluster.client() as client:
        with daskps.proxy_graph() as session:
            future = client.submit(np.sum, X)
            cluster.add_worker()
            assert future.result() == X.sum()
            assert client.submit(np.sum, X + 1).result() == (X + 1).sum()
            assert "peer://" in repr(session)
        with daskps.proxy_graph() as session:
            assert client.submit(np.sum, X + 2).result() == (X + 2).sum()
            assert "shm://" in repr(session)
        del future


def test_an_asynchronous_client_without_workers():
    async def run(cluster):
        async with (
            Client(cluster.address, asynchronous=True) as client,
            daskps.proxy_graph() as session,
        ):
            assert "no worker yet" in repr(session)
            cluster.add_worker()
            await client.wait_for_workers(1)
            for _ in range(500):
                if "shm://" in repr(session):
                    break
                await asyncio.sleep(0.02)
            assert await client.submit(np.sum, X) == X.sum()
            assert "shm://" in repr(session)

    with ProcessCluster(workers=0) as cluster:
        asyncio.run(run(cluster))


def test_a_temporary_directory_that_one_does_not_see(tmp_path):
    """The client has no memory, and the worker is on another host."""
    settings = {
        "temporary-directory": None,
        "daskps.shm.directory": str(tmp_path / "missing"),
    }
    with dask.config.set(settings):
        seen = sights(None, PLENTY)
        assert chosen(cluster_that_sees(seen, seen)).request.url == "shm://"
        choice = chosen(cluster_that_sees(seen, sights(None, None, host="far")))
    assert choice.request.url == "peer://"
    assert f"a worker on far does not see {tempfile.gettempdir()}" in choice.reason


@pytest.fixture(params=["read-only", "missing"])
def no_memory(request, tmp_path):
    """A directory in the place of /dev/shm in which nothing can be written."""
    place = tmp_path / "shm"
    if request.param == "missing":
        yield str(place)
        return
    place.mkdir()
    with tmpfs(place, "1m"):
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        yield str(place)


def test_no_shared_memory_anywhere(no_memory, caplog):
    environment = {VARIABLES[0]: no_memory}
    with (
        dask.config.set({"daskps.shm.directory": no_memory}),
        warnings.catch_warnings(action="error"),
        ProcessCluster(scheduler=environment, worker=environment) as cluster,
        cluster.client() as client,
    ):
        for shared, expected in ((PLACES[1], "file://"), (None, "shm://")):
            with (
                dask.config.set({"temporary-directory": shared}),
                daskps.proxy_graph() as session,
            ):
                assert client.submit(np.sum, X).result() == X.sum()
                np.testing.assert_array_equal(
                    client.submit(np.add, X, 1).result(), X + 1
                )
                assert expected in repr(session)
                assert daskps.usage(client).objects >= 1
                shown = repr(session)
    said = f"{no_memory} cannot be written to, so large values are files in {PLACES[1]}"
    assert said in shown
    warned = [r for r in caplog.records if "daskps" in r.name and r.levelno > 20]
    assert [r.getMessage() for r in warned] == [f"{said}."]


def test_no_shared_memory_on_the_workers_host(no_memory, caplog):
    """It keeps what it reads in its temporary directory."""
    with (
        dask.config.set({"temporary-directory": None}),
        ProcessCluster(worker={VARIABLES[0]: no_memory}) as cluster,
        cluster.client() as client,
        daskps.proxy_graph("peer://"),
    ):
        assert client.submit(np.sum, X).result() == X.sum()
        np.testing.assert_array_equal(client.submit(np.add, X, 1).result(), X + 1)


def test_shared_memory_without_a_temporary_directory(tmp_path):
    """What has no room in shared memory has none at all, but the rest goes there."""
    gone = str(tmp_path / "gone")
    with (
        ProcessCluster(scheduler={VARIABLES[1]: gone}) as cluster,
        cluster.client() as client,
        daskps.proxy_graph() as session,
    ):
        assert "shm://" in repr(session)
        assert client.submit(np.sum, X).result() == X.sum()


@contextlib.contextmanager
def encrypted_cluster(workers, shared):
    """In this process. If `shared` is false, nothing suits it but what encrypts."""
    pytest.importorskip("cryptography")
    seen = contextlib.nullcontext()
    if not shared:
        seen = mock.patch("daskps.stores.probe._room", return_value=None)
    with (
        seen,
        dask.config.set({"temporary-directory": None}),
        LocalCluster(
            n_workers=workers,
            processes=False,
            threads_per_worker=1,
            protocol="tls://",
            host="127.0.0.1",
            security=Security.temporary(),
            dashboard_address=None,
        ) as cluster,
    ):
        yield cluster


def said(caplog):
    return [r.message for r in caplog.records if "The answers are the" in r.message]


def without_certificates(server):
    raise daskps.ConfigError("no certificates")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_cluster_that_encrypts_in_a_way_of_its_own(workers, monkeypatch, caplog):
    """There are no certificates in Dask's Security that could be used."""
    monkeypatch.setattr("daskps.scheduler.lifetimes.tls_of", without_certificates)
    with (
        encrypted_cluster(workers, shared=False) as cluster,
        Client(cluster) as client,
        daskps.proxy_graph() as session,
    ):
        cluster.scale(1)
        assert client.submit(np.sum, X).result() == X.sum()
        assert client.submit(np.sum, client.scatter(X)).result() == X.sum()
        np.testing.assert_array_equal(client.submit(np.add, X, 1).result(), X + 1)
        assert "none, values are sent inside graphs" in repr(session)
        assert "no certificates" in session._repr_html_()
        with pytest.raises(daskps.ConfigError, match="no certificates"):
            daskps.proxy(X)
        limits = [event for _, event in client.get_events(EVENTS)]
        assert {event["action"] for event in limits} == {"limited"}
        assert "no certificates" in limits[0]["why"]
        assert len(limits) == len(said(caplog))
    # Once for what is so while there is no worker, and once for good.
    assert len(said(caplog)) == 2 - workers


def test_what_cannot_be_stored_is_to_be_an_error(monkeypatch):
    monkeypatch.setattr("daskps.scheduler.lifetimes.tls_of", without_certificates)
    with (
        encrypted_cluster(1, shared=False) as cluster,
        Client(cluster),
        dask.config.set({"daskps.on-store-error": "raise"}),
        pytest.raises(daskps.ClusterError, match=r"Nothing can be stored: .*no cert"),
        daskps.proxy_graph(),
    ):
        pytest.fail("the block must not be entered")


def test_a_cluster_that_encrypts_on_one_host_gets_workers(caplog):
    with (
        encrypted_cluster(0, shared=True) as cluster,
        Client(cluster) as client,
        daskps.proxy_graph() as session,
    ):
        assert "peer:// (there is no worker yet" in repr(session)
        cluster.scale(1)
        client.wait_for_workers(1)
        assert client.submit(np.sum, X).result() == X.sum()
        assert eventually(lambda: "shm://" in repr(session))
    assert not said(caplog)


def test_a_gateways_client_knows_the_scheduler_by_another_scheme(monkeypatch):
    """Its client reaches the scheduler, which uses TLS, under another scheme."""
    monkeypatch.setitem(backends, "gateway", backends["tls"])
    with encrypted_cluster(1, shared=False) as cluster:
        address = cluster.scheduler_address.replace("tls://", "gateway://")
        with (
            Client(address, security=cluster.security) as client,
            daskps.proxy_graph() as session,
        ):
            assert client.scheduler.address.startswith("gateway://")
            assert "peer://" in repr(session)
            assert client.submit(np.sum, X).result() == X.sum()


class TestANamedStoreBetweenHosts:
    """What can travel by it is found out, as for one that is chosen."""

    @pytest.fixture
    def closed(self, monkeypatch):
        """Gives what closes one way between hosts."""
        examine = Reach.examine

        def close(*ways):
            async def examine_and_find(reach, client, workers=None):
                fit = await examine(reach, client, workers)
                for way in ways:
                    getattr(reach, f"_no_{way}")("the door is shut")
                return fit

            monkeypatch.setattr(Reach, "examine", examine_and_find)

        return close

    @pytest.fixture
    def nor_by_scheduler(self, monkeypatch):
        async def go_by_scheduler(reach, client):
            return None

        monkeypatch.setattr(Reach, "go_by_scheduler", go_by_scheduler)

    def test_values_go_by_the_scheduler(self, own_cluster, closed):
        closed("arguments")
        with own_cluster.client() as client, daskps.proxy_graph("peer://") as session:
            assert "values go by the scheduler, since the door is shut" in repr(session)
            assert client.submit(np.sum, X).result() == X.sum()
            assert daskps.usage(client).objects == 1

    def test_they_do_so_no_more_once_the_door_is_open(
        self, own_cluster, closed, monkeypatch
    ):
        closed("arguments")
        with own_cluster.client() as client:
            with daskps.proxy_graph("peer://") as session:
                assert client.submit(np.sum, X).result() == X.sum()
                assert "values go by the scheduler" in repr(session)
            monkeypatch.undo()
            monkeypatch.setattr("daskps.client.chosen.CHOOSE_AGAIN_SECONDS", 0)
            assert eventually(lambda: not daskps.usage(client).objects)
            with daskps.proxy_graph("peer://") as session, Received(client) as received:
                assert client.submit(np.sum, X + 1).result() == (X + 1).sum()
                assert "by the scheduler" not in repr(session)
            assert received.nbytes < X.nbytes

    def test_values_that_cannot_travel_go_inside_graphs(
        self, own_cluster, closed, nor_by_scheduler, caplog
    ):
        closed("arguments", "results")
        with own_cluster.client() as client:
            with daskps.proxy_graph("peer://") as session:
                assert client.submit(np.sum, X).result() == X.sum()
                assert (client.submit(np.add, X, 1).result() == X + 1).all()
                assert not daskps.usage(client).objects
                assert "sent inside graphs, since the door is shut" in repr(session)
            assert sorted(said(caplog)) == [
                "Results come as in plain Dask, since the door is shut. "
                "The answers are the same.",
                "Values are sent inside graphs, since the door is shut. "
                "The answers are the same.",
            ]

    def test_or_that_is_an_error_at_once(self, own_cluster, closed, nor_by_scheduler):
        closed("arguments")
        with (
            own_cluster.client(),
            dask.config.set({"daskps.on-store-error": "raise"}),
            pytest.raises(daskps.ClusterError, match=r"Nothing can be stored.*is shut"),
        ):
            daskps.proxy_graph("peer://").__enter__()

    def test_one_that_was_chosen_before_is_examined_too(
        self, own_cluster, closed, monkeypatch
    ):
        far = "they are far apart"
        monkeypatch.setattr("daskps.client.choice._on_one_host", lambda seen: ([], far))
        with own_cluster.client() as client:
            with daskps.proxy_graph() as session:
                assert client.submit(np.sum, X).result() == X.sum()
                assert "peer://" in repr(session)
            closed("tasks")
            with daskps.proxy_graph("peer://") as session:
                assert client.submit(np.sum, X).result() == X.sum()
                assert "what tasks submit is sent inside graphs" in repr(session)

    def test_what_is_found_out_holds_for_all_sessions(
        self, own_cluster, closed, monkeypatch
    ):
        """They share the store, and so where the client's values are read."""
        far = "they are far apart"
        monkeypatch.setattr("daskps.client.choice._on_one_host", lambda seen: ([], far))
        with own_cluster.client() as client, daskps.proxy_graph() as chosen:
            assert "by the scheduler" not in repr(chosen)
            closed("arguments")
            with daskps.proxy_graph("peer://") as named:
                assert client.submit(np.sum, X).result() == X.sum()
                assert "values go by the scheduler" in repr(named)
                assert "values go by the scheduler" in repr(chosen)
            assert client.submit(np.sum, X + 1).result() == (X + 1).sum()

    def test_a_fault_while_it_is_examined_is_no_error(
        self, own_cluster, monkeypatch, caplog
    ):
        async def examine(reach, client, workers=None):
            raise daskps.ClusterError("it was closed meanwhile")

        monkeypatch.setattr(Reach, "examine", examine)
        with own_cluster.client() as client, daskps.proxy_graph("peer://"):
            assert client.submit(np.sum, X).result() == X.sum()
        [warning] = said(caplog)
        assert "it was closed meanwhile" in warning
