"""Copies that a host keeps of a network store's objects."""

from __future__ import annotations

import concurrent.futures
import errno
import json
import os
import secrets
import tempfile

import dask
import pytest
from flaky_store import FlakyConnector
from processes import PLACES

from daskps.stores.connectors.proxystore import adapted
from daskps.stores.connectors.sealed import DamagedError, SealedConnector
from daskps.stores.files import cached
from daskps.stores.files.cached import COPY_NBYTES_AT_LEAST, CachedConnector

MIB = 1 << 20


@pytest.fixture
def place():
    """Where this host keeps copies."""
    place = tempfile.mkdtemp("-host", dir=PLACES[0])
    with dask.config.set({"daskps.shm.directory": place, "temporary-directory": place}):
        yield place
    assert os.listdir(place) == []
    os.rmdir(place)


@pytest.fixture
def connector(place, tmp_path):
    connector = CachedConnector(SealedConnector(adapted(FlakyConnector(str(tmp_path)))))
    yield connector
    connector.close()


def copies(place):
    return [
        name
        for directory in os.listdir(place)
        for name in os.listdir(os.path.join(place, directory))
        if name.startswith("cached.")
    ]


def unreachable(directory):
    (directory / "faults").write_text(json.dumps({"get": "raise"}))


def test_the_second_reader_does_not_ask_the_store(connector, place, tmp_path):
    data = secrets.token_bytes(MIB)
    key = connector.put(data)
    assert bytes(connector.get(key)) == data
    unreachable(tmp_path)
    other = CachedConnector.from_config(connector.config())
    assert bytes(other.get(key)) == data
    other.close()
    assert len(copies(place)) == 1


def test_sixteen_readers_at_once_ask_once(connector, place, tmp_path):
    key = connector.put(secrets.token_bytes(MIB))
    (tmp_path / "faults").write_text(json.dumps({"get": 0.3}))
    asked = []
    get = connector._connector.get
    connector._connector.get = lambda key: asked.append(key) or get(key)
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        found = list(pool.map(connector.get, [key] * 16))
    assert len({bytes(data) for data in found}) == len(asked) == 1


def test_what_a_reader_writes_nobody_else_sees(connector):
    key = connector.put(bytes(MIB))
    connector.get(key)[:3] = b"abc"
    assert bytes(connector.get(key)[:3]) == bytes(3)


def test_small_objects_are_read_again(connector, place):
    key = connector.put(bytes(COPY_NBYTES_AT_LEAST - 1))
    connector.get(key)
    assert not os.listdir(place)


def test_damaged_objects_are_not_kept(connector, place, tmp_path):
    key = connector.put(bytes(MIB))
    (tmp_path / key.key.name).write_bytes(bytes(MIB - 1) + b"x")
    with pytest.raises(DamagedError):
        connector.get(key)
    assert copies(place) == []
    (tmp_path / key.key.name).write_bytes(bytes(MIB))
    assert bytes(connector.get(key)) == bytes(MIB)


def test_missing_objects_are_missing(connector, place):
    key = connector.put(bytes(MIB))
    connector.evict(key)
    assert connector.get(key) is None
    assert copies(place) == []


def test_evicting_deletes_the_copy_of_this_host(connector, place):
    key = connector.put(bytes(MIB))
    data = connector.get(key)
    connector.evict(key)
    assert copies(place) == []
    assert bytes(data) == bytes(MIB)


def test_copies_go_with_their_last_reader(connector, place):
    key = connector.put(bytes(MIB))
    others = [CachedConnector.from_config(connector.config()) for _ in range(2)]
    for other in others:
        other.get(key)
    others[0].close()
    assert len(copies(place)) == 1
    others[1].close()
    assert not os.listdir(place)


@pytest.mark.parametrize("what", ["write_all", "HostCache"])
def test_without_room_for_a_copy_the_reader_has_its_own(
    connector, place, tmp_path, monkeypatch, what
):
    def no_room(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    data = secrets.token_bytes(MIB)
    key = connector.put(data)
    monkeypatch.setattr(cached, what, no_room)
    assert bytes(connector.get(key)) == data
    # What the store itself says is not taken for that.
    unreachable(tmp_path)
    with pytest.raises(Exception, match="no route to the store"):
        connector.get(key)
