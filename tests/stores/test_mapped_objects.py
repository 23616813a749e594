"""What is stored and is an object already, mapped: it gets one more name."""

from __future__ import annotations

import os

import numpy as np
import pytest
from processes import eventually, released

import daskps
from benchmarks.cluster import objects_in
from daskps.stores.files import mapping

MIB = 1 << 20
X = np.random.default_rng(0).random(MIB // 8 * 3)


@pytest.fixture(params=["shm://", "file://"])
def connector(request, tmp_path):
    url = f"file://{tmp_path}" if request.param == "file://" else request.param
    with daskps.open_store(url) as store:
        yield store.connector


def inode(connector, key):
    return os.stat(connector._path(key)).st_ino


def test_it_is_not_stored_again(connector):
    one = connector.put_frames([X], "me")
    mapped = connector.get(one)
    for frame in mapped, np.frombuffer(mapped, X.dtype), mapped.toreadonly():
        two = connector.put_frames([frame], "you")
        assert two != one
        assert two.name.startswith("you.")
        assert inode(connector, two) == inode(connector, one)
        connector.evict(two)
    assert connector.exists(one)


@pytest.mark.parametrize("at", [0, MIB, X.nbytes - 1])
def test_what_was_written_to_is(connector, at):
    one = connector.put_frames([X])
    mapped = connector.get(one)
    mapped[at] ^= 255
    two = connector.put_frames([mapped])
    assert inode(connector, two) != inode(connector, one)
    mapped[at] ^= 255  # equal again, in a page of its own
    assert bytes(connector.get(one)) == X.tobytes()
    changed = np.frombuffer(connector.get(two), np.uint8) != X.view(np.uint8)
    assert list(np.flatnonzero(changed)) == [at]


def test_so_is_a_part_and_what_is_mapped_no_more(connector):
    one = connector.put_frames([X])
    mapped = connector.get(one)
    for part in [mapped[:-1]], [mapped[1:]], [mapped, b"more"], [mapped[::2]]:
        frames = [np.asarray(frame) for frame in part]
        two = connector.put_frames(frames)
        assert inode(connector, two) != inode(connector, one)
        assert bytes(connector.get(two)) == b"".join(f.tobytes() for f in frames)
    assert connector._mapped._objects
    del mapped, part, frames
    assert not connector._mapped._objects


def test_the_other_name_stays_what_it_was(connector):
    one = connector.put_frames([X])
    mapped = connector.get(one)
    two = connector.put_frames([mapped])
    del mapped
    connector.evict(one)
    assert not connector.exists(one)
    for i in range(5):  # in its memory, if that could be
        connector.evict(connector.put_frames([X + i + 1]))
    assert bytes(connector.get(two)) == X.tobytes()
    connector.evict(two)
    assert connector.get(two) is None


def test_a_name_given_at_the_moment_of_eviction():
    """After it was looked at whether there is another one."""
    with daskps.open_store("shm://") as store:
        connector = store.connector
        one = connector.put_frames([X])
        path = connector._path(one)
        connector.evict(one)
        [free] = [
            entry.path
            for entry in os.scandir(os.path.dirname(path))
            if entry.name.startswith("free.")
        ]
        os.link(free, path)
        for i in range(3):
            connector.put_frames([X + i + 1])
        assert bytes(connector.get(one)) == X.tobytes()


def test_a_kernel_that_does_not_tell(connector, monkeypatch):
    monkeypatch.setattr(mapping, "_kernel_tells", lambda: False)
    one = connector.put_frames([X])
    mapped = connector.get(one)
    two = connector.put_frames([mapped])
    assert inode(connector, two) != inode(connector, one)


def test_this_kernel_does():
    assert mapping._kernel_tells()


def test_a_file_system_without_links(connector, monkeypatch):
    def refused(*paths):
        raise PermissionError(1, "Operation not permitted")

    one = connector.put_frames([X])
    mapped = connector.get(one)
    monkeypatch.setattr(os, "link", refused)
    two = connector.put_frames([mapped])
    assert bytes(connector.get(two)) == X.tobytes()


def stored(cluster):
    """Large objects: names, and files."""
    stats = [os.stat(path) for path in objects_in(cluster)]
    large = [status for status in stats if status.st_size >= X.nbytes]
    return len(large), len({status.st_ino for status in large})


def test_a_result_that_is_an_argument(cluster, client):
    with daskps.proxy_graph():
        future = client.submit(np.asarray, X)
        result = future.result()
        np.testing.assert_array_equal(result, X)
        assert stored(cluster) == (2, 1)
        result[:] = 0
        np.testing.assert_array_equal(future.result(), X)
        # It goes where others read it, and comes back again.
        again = client.submit(np.asarray, future.result())
        np.testing.assert_array_equal(again.result(), X)
        assert stored(cluster)[1] == 1
        changed = client.submit(np.add, X, 1).result()
        np.testing.assert_array_equal(changed, X + 1)
    del future, again
    assert released(client)
    assert eventually(lambda: stored(cluster) == (0, 0))
