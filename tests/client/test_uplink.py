"""Values that go to the store of the scheduler's host, piece by piece."""

from __future__ import annotations

import asyncio
import glob
import os

import dask.array as da
import numpy as np
import pytest
from distributed.protocol.serialize import to_serialize
from processes import eventually

import daskps
from daskps.client.link import ClusterLink
from daskps.client.uplink import PIECE_NBYTES, Uplink
from daskps.exceptions import StoreError
from daskps.messages import UPLOAD
from daskps.stores.requests import request_for

MIB = 1 << 20


@pytest.fixture(scope="module")
def cluster(own_cluster):
    """Not that of other tests: its scheduler keeps the store open, with what is here."""
    return own_cluster


@pytest.fixture
def uplink(client):
    """In a session whose values go by the scheduler; counts them."""
    with daskps.proxy_graph("peer://"):
        catalog = ClusterLink.of(client).catalog(request_for("peer://"))
        uplink = Counted(client, catalog.name)
        catalog.send_by(uplink)
        yield uplink
    # The next session of this client stores by itself again.
    catalog.send_by(None)


class Counted(Uplink):
    puts = 0

    def put_frames(self, frames, creator):
        self.puts += 1
        return super().put_frames(frames, creator)


@pytest.mark.parametrize(
    "value",
    [
        np.arange(MIB),
        np.arange(4 * MIB).reshape(2048, -1)[:, ::2],
        np.zeros(PIECE_NBYTES, "u1"),
        np.ones(3 * PIECE_NBYTES + 1, "u1"),
    ],
    ids=["array", "strided", "one piece", "pieces"],
)
def test_values_arrive(client, uplink, value):
    found = client.submit(np.array, value).result()
    assert found.dtype == value.dtype
    np.testing.assert_array_equal(found, value)
    assert uplink.puts == 1


def test_an_empty_object(client, uplink):
    key = uplink.put_frames([], "")
    assert key.nbytes == 0
    assert uplink.exists(key)
    assert not uplink.exists(key._replace(name="." + "x" * 22))


def test_a_client_that_is_reachable_again_stores_by_itself(client, uplink):
    catalog = ClusterLink.of(client).catalog(request_for("peer://"))
    assert not catalog.maps_its_own
    catalog.send_by(None)
    assert catalog.maps_its_own
    assert client.submit(np.sum, np.ones(MIB)).result() == MIB
    assert uplink.puts == 0


def test_what_comes_again_is_sent_once(client, uplink):
    model = np.random.default_rng(0).random(MIB)
    futures = [client.submit(np.dot, model, i, pure=False) for i in range(8)]
    for i, future in enumerate(futures):
        np.testing.assert_array_equal(future.result(), model * i)
    assert uplink.puts == 1


def test_it_goes_when_nobody_needs_it(client, cluster, uplink):
    x = np.random.default_rng(1).random(4 * MIB)
    assert da.from_array(x, chunks=MIB).sum().compute() == pytest.approx(x.sum())
    assert uplink.puts == 4
    assert eventually(lambda: daskps.usage(client).objects <= 4)  # for the next graph


def test_who_is_gone_leaves_no_part(client, cluster, uplink):
    """And what it sent last comes to nothing."""

    def send(name):
        piece = to_serialize(memoryview(bytes(MIB)))
        ask = getattr(client.scheduler, UPLOAD)
        options = {"store": uplink._store, "client": "nobody", "name": name}
        return client.sync(ask, nbytes=2 * MIB, data=piece, **options)

    with pytest.raises(ConnectionError, match="nobody"):
        send("first")
    parts = [
        path
        for directory in cluster.directories
        for path in glob.glob(os.path.join(directory, "*.part"))
    ]
    assert not parts


def test_an_event_loop_does_not_wait(client, uplink):
    catalog = ClusterLink.of(client).catalog(request_for("peer://"))

    async def store():
        catalog.put([bytes(MIB)])

    with pytest.raises(StoreError, match="event loop"):
        asyncio.run(store())
    assert uplink.puts == 0


def test_a_store_that_is_in_one_place(client):
    with daskps.proxy_graph("shm://"):
        name = ClusterLink.of(client).catalog(request_for("shm://")).name
        with pytest.raises(Exception, match="takes no objects"):
            client.sync(Uplink(client, name).address)
