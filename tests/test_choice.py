"""Which store is chosen where none is named."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace

import dask
import pytest
from distributed import Client
from processes import PLACES

import daskps
from daskps.client_choice import ROOM_AT_LEAST, choose
from daskps.exceptions import ClusterError
from daskps.stores.probe import Sight, look, probes
from daskps.stores.urls import StoreRequest

PLENTY = 2 * ROOM_AT_LEAST


def cluster_that_sees(
    scheduler, *workers, address="tcp://192.0.2.1:8786", encrypts=True
):
    """A client whose scheduler and workers see the probes as told."""

    async def on_scheduler(function, paths=None):
        return scheduler[: len(paths)] if function is look else True

    async def on_workers(function, paths=None, on_error="raise"):
        return {
            i: sights[: len(paths)] if function is look else encrypts
            for i, sights in enumerate(workers)
        }

    return SimpleNamespace(
        run_on_scheduler=on_scheduler,
        run=on_workers,
        scheduler=SimpleNamespace(address=address),
    )


def chosen(client):
    return asyncio.run(choose(client, StoreRequest.of(None).candidates))


def sights(*rooms, host="there"):
    # Over a connection they arrive as lists.
    return [[host, room] for room in rooms]


def test_one_host(client: Client, caplog):
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


def test_little_shared_memory():
    small = ROOM_AT_LEAST - 1
    with dask.config.set({"temporary-directory": PLACES[1]}):
        seen = sights(small, PLENTY)
        assert chosen(cluster_that_sees(seen, seen)).request.url.startswith("file://")
    with dask.config.set({"temporary-directory": None}):
        assert chosen(cluster_that_sees(seen, seen)).request.url == "shm://"


def test_workers_that_are_not_there_yet():
    # They may come from anywhere.
    choice = chosen(cluster_that_sees(sights(PLENTY, PLENTY)))
    assert choice.request.url == "peer://"
    assert "no worker yet" in choice.reason


@pytest.mark.parametrize("scheme", ["tls", "wss"])
@pytest.mark.parametrize("installed", [True, False])
def test_encryption_is_not_given_up(installed, scheme):
    client = cluster_that_sees(
        sights(None),
        sights(None),
        address=f"{scheme}://192.0.2.1:1",
        encrypts=installed,
    )
    with dask.config.set({"temporary-directory": None}):
        if installed:
            choice = chosen(client)
            assert choice.request == StoreRequest.of("zmq://")
            assert "encrypts" in choice.reason
        else:
            with pytest.raises(ClusterError, match=r"daskps\[zmq\]"):
                chosen(client)


def test_probes_are_private_and_go(tmp_path):
    with probes([str(tmp_path), "/nonexistent"]) as paths:
        [here, nowhere] = look(paths)
        assert here.room
        assert nowhere == Sight(here.host, None)
        (tmp_path / "open").mkdir(mode=0o755)
        assert look([str(tmp_path / "open")])[0].room is None
    assert [path.name for path in tmp_path.iterdir()] == ["open"]
