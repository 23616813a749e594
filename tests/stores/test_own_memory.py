"""What of a process's resident set is its own, and what belongs to a store."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from multiprocessing.shared_memory import SharedMemory

import numpy as np
import pytest

from daskps.stores.files import mapping, own_memory
from daskps.stores.files.mapping import is_unwritten, map_private
from daskps.stores.files.own_memory import OwnMemory

pytestmark = pytest.mark.core

MIB = 1 << 20
NBYTES = 64 * MIB
# Whatever else a process does meanwhile.
NEAR = 8 * MIB


@pytest.fixture(params=["memory", "disk"])
def fd(request, tmp_path):
    """An object of a store, whose name is gone already."""
    where = "/dev/shm" if request.param == "memory" else tmp_path
    directory = os.path.join(where, f"daskps-own-memory-{os.getpid()}")
    os.mkdir(directory)
    path = os.path.join(directory, "a.b")
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.write(fd, np.ones(NBYTES, np.uint8))
    os.unlink(path)
    os.rmdir(directory)
    yield fd
    os.close(fd)


def read(view):
    return int(np.frombuffer(view, np.uint8)[::4096].sum())


def address_of(array):
    return array.__array_interface__["data"][0]


def own():
    return OwnMemory(os.getpid()).own()


def test_mapped_pages_are_a_stores_until_they_are_written(fd):
    watched = OwnMemory(os.getpid())
    resident, before = watched.resident(), watched.own()
    views = [map_private(fd, NBYTES) for _ in range(4)]
    for view in views:
        read(view)
    assert watched.resident() - resident > 4 * NBYTES - NEAR, (
        "Linux counts each mapping"
    )
    assert abs(watched.own() - before) < NEAR
    assert abs(own() - before) < NEAR
    np.frombuffer(views[0], np.uint8)[: NBYTES // 2] = 2
    assert abs(watched.own() - before - NBYTES // 2) < NEAR
    assert abs(own() - before - NBYTES // 2) < NEAR


def test_memory_that_the_user_shares_is_the_process_own(fd):
    before = own()
    view = map_private(fd, NBYTES)
    read(view)
    theirs = SharedMemory(create=True, size=NBYTES)
    try:
        theirs.buf[:] = bytes(NBYTES)
        assert abs(own() - before - NBYTES) < NEAR
    finally:
        theirs.close()
        theirs.unlink()


def test_it_is_looked_at_rarely_and_known_always(fd, monkeypatch):
    looked = []
    look = own_memory._shared_with_others
    monkeypatch.setattr(
        own_memory, "_shared_with_others", lambda pid: looked.append(1) or look(pid)
    )
    monkeypatch.setattr(own_memory, "PAUSE_SECONDS", 1000.0)
    watched = OwnMemory(os.getpid())
    before = watched.own()
    view = map_private(fd, NBYTES)
    read(view)
    assert abs(watched.own() - before) < NEAR
    del view
    assert abs(watched.own() - before) < NEAR
    assert len(looked) == 1


def test_looking_takes_a_small_share_of_the_time(fd, monkeypatch):
    def slow(pid):
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass
        return 0

    monkeypatch.setattr(own_memory, "_shared_with_others", slow)
    watched = OwnMemory(os.getpid())
    watched.own()
    assert watched._next - time.monotonic() > 0.05 / own_memory.TIME_SHARE - 1


def test_a_kernel_that_does_not_say(monkeypatch):
    def refuse(pid):
        raise PermissionError

    monkeypatch.setattr(own_memory, "_shared_with_others", refuse)
    watched = OwnMemory(os.getpid())
    assert abs(watched.own() - watched.resident()) < NEAR


def test_another_process():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for of in OwnMemory.resident, OwnMemory.own:
        with pytest.raises(FileNotFoundError):
            of(OwnMemory(ended.pid))
    assert OwnMemory(os.getppid()).own() > 0


@pytest.mark.parametrize(
    ("path", "is_stores"),
    [
        ("/dev/shm/daskps-x/a.b", True),
        ("/dev/shm/daskps-x/a.b (deleted)", True),
        ("/tmp/daskps.new-daskps-x-y/cached.a", True),
        ("/home/user/daskps-env/lib/libz.so", False),
        ("/home/user/daskps/lib.so", False),
        ("", False),
    ],
)
def test_files_of_stores(path, is_stores):
    text = (
        "7f00-7f10 r--p 00000000 00:1a 5 /lib/libc.so\nSize: 64 kB\nRss: 64 kB\n"
        f"Anonymous: 0 kB\nVmFlags: rd\n7f10-7f20 rw-p 00000000 00:1a 6    {path}\n"
        "Size:    64 kB\nRss:   48 kB\nPss: 1 kB\nAnonymous:    16 kB\nVmFlags: rd\n"
        "7f20-7f30 rw-p 00000000 00:00 0\nSize: 64 kB\nRss: 64 kB\nAnonymous: 64 kB\n"
    )
    found = own_memory._FILE_OF_STORE.findall(text.encode())
    assert found == ([(b"48", b"16")] if is_stores else [])


def test_what_was_written_is_known_by_page(fd):
    view = map_private(fd, NBYTES)
    array = np.frombuffer(view, np.uint8)
    start = address_of(array)
    assert is_unwritten(start, NBYTES), "nor read"
    read(view)
    assert is_unwritten(start, NBYTES)
    array[5000] = 1
    assert not is_unwritten(start, NBYTES)
    assert not is_unwritten(start + 4096 + 10, 1)
    assert is_unwritten(start + 8192, NBYTES - 8192)
    assert not is_unwritten(start + 8192, NBYTES), "beyond its end"
    other = np.zeros(100_000, np.uint8)
    assert not is_unwritten(address_of(other), other.nbytes), "not mapped at all"


def test_mappings_are_forgotten(fd):
    before = set(mapping._private)
    view = map_private(fd, NBYTES)
    assert len(mapping._private) == len(before) + 1
    del view
    assert set(mapping._private) == before
