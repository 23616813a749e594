"""Directories that live as long as any process uses them."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading

import pytest

from daskps.stores.files import directories as directory
from daskps.stores.files.directories import LOCK, PREFIX, delete, sweep
from daskps.stores.files.shared_directory import SharedDirectory

HOLD = """
import sys
from daskps.stores.files.shared_directory import SharedDirectory
directory = SharedDirectory(sys.argv[1], "x")
print("open", flush=True)
input()
"""


def holder(parent):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "open\n"
    return process


def test_the_last_user_deletes_the_directory(tmp_path):
    one, two = SharedDirectory(str(tmp_path), "x"), SharedDirectory(str(tmp_path), "x")
    assert one.path == two.path
    assert os.stat(one.path).st_mode & 0o777 == 0o700
    one.close()
    one.close()
    assert os.path.isdir(two.path)
    two.close()
    assert not os.listdir(tmp_path)


def test_a_directory_is_swept_when_all_its_users_were_killed(tmp_path):
    processes = [holder(tmp_path), holder(tmp_path)]
    for process in processes:
        assert sweep(str(tmp_path)) == []
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert len(sweep(str(tmp_path))) == 1
    assert not os.listdir(tmp_path)


def test_a_process_that_ends_gives_up_its_directory(tmp_path):
    process = holder(tmp_path)
    process.communicate("\n")
    assert not os.listdir(tmp_path)


def test_who_keeps_a_directory_for_others_does_not_use_it(tmp_path):
    with pytest.raises(FileNotFoundError):
        SharedDirectory(str(tmp_path), "x", is_user=False)
    user = SharedDirectory(str(tmp_path), "x")
    keeper = SharedDirectory(str(tmp_path), "x", is_user=False)
    assert keeper.has_users()
    user.close()
    assert not keeper.has_users()
    assert sweep(str(tmp_path)) == []
    keeper.close()
    assert not os.listdir(tmp_path)


def test_a_forked_process_gives_up_no_directory(tmp_path):
    directory = SharedDirectory(str(tmp_path), "x")
    pid = os.fork()
    if not pid:
        directory.close()
        directory.remove()
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.path.isdir(directory.path)
    directory.close()
    assert not os.listdir(tmp_path)


def test_users_of_a_directory_come_and_go_at_once(tmp_path):
    """Nobody has a directory that somebody else deletes."""
    failures = []

    def come_and_go(number):
        for _ in range(25):
            directory = SharedDirectory(str(tmp_path), "x")
            path = os.path.join(directory.path, str(number))
            try:
                with open(path, "w"):
                    pass
                if not os.path.exists(path):
                    failures.append(path)
            except OSError as e:
                failures.append(e)
            directory.close()

    threads = [threading.Thread(target=come_and_go, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert not os.listdir(tmp_path)


def test_others_may_take_a_directory_while_another_is_swept(tmp_path, monkeypatch):
    """Each is locked until it is deleted."""
    for token in "ab":
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD.replace('"x"', repr(token)), str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout.readline() == "open\n"
        process.kill()
        process.communicate()
    taken = []

    def take_the_other_meanwhile(path):
        if not taken:
            (other,) = set("ab") - {os.path.basename(path)[len(PREFIX)]}
            taken.append(SharedDirectory(str(tmp_path), other))
        delete(path)

    monkeypatch.setattr(directory, "delete", take_the_other_meanwhile)
    assert len(sweep(str(tmp_path))) == 1
    assert os.path.isdir(taken[0].path)
    taken[0].close()


def test_closing_deletes_no_directory_that_was_made_again(tmp_path):
    old = SharedDirectory(str(tmp_path), "x")
    delete(old.path)
    new = SharedDirectory(str(tmp_path), "x")
    old.close()
    assert os.path.isdir(new.path)
    new.close()


class TestWhatGoesWrong:
    """Nothing is left of an attempt, which may be repeated with every read."""

    @pytest.fixture(autouse=True)
    def descriptors(self):
        before = len(os.listdir("/proc/self/fd"))
        yield
        assert len(os.listdir("/proc/self/fd")) == before

    def test_a_file_system_without_locks(self, tmp_path, monkeypatch):
        def refused(fd, kind):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", refused)
        with pytest.raises(OSError, match="No locks"):
            SharedDirectory(str(tmp_path), "x")

    def test_a_full_disk(self, tmp_path, monkeypatch):
        def full():
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("daskps.stores.files.shared_directory.this_host", full)
        path = str(tmp_path / "directory")
        monkeypatch.setattr(SharedDirectory, "path_of", staticmethod(lambda *_: path))
        with pytest.raises(OSError, match="No space"):
            SharedDirectory(str(tmp_path), "x")
        assert not os.listdir(tmp_path)

    def test_somebody_has_deleted_the_lock(self, tmp_path):
        directory = SharedDirectory(str(tmp_path), "x")
        os.unlink(os.path.join(directory.path, LOCK))
        with pytest.raises(FileNotFoundError, match="Something else deletes"):
            SharedDirectory(str(tmp_path), "x")
        directory.close()
