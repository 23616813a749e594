"""What stores in directories do besides what every store does."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import errno
import gc
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import warnings

import dask
import numpy as np
import pytest
from file_systems import tmpfs
from processes import eventually

import daskps
from daskps.stores import leases, opened
from daskps.stores.files import connector as segments
from daskps.stores.files import directories, huge_pages
from daskps.stores.files.connector import SegmentConnector
from daskps.stores.files.directories import OwnedDirectory, check_private, sweep
from daskps.stores.files.mapping import HUGE_PAGE, in_huge_pages
from daskps.stores.keys import SegmentKey
from daskps.stores.store import Store

pytestmark = pytest.mark.core
MIB = 1 << 20


@pytest.fixture(params=["shm", "file"])
def url(request, tmp_path):
    return "shm://" if request.param == "shm" else tmp_path.as_uri()


@pytest.fixture
def store(url):
    with daskps.open_store(url) as store:
        yield store


@pytest.fixture
def connector(store):
    return store.connector


def files(connector):
    """Names of the objects in a connector's directories."""
    names = [name for d in connector.directories for name in os.listdir(d)]
    return sorted(name for name in names if name != directories.LOCK)


class TestSegments:
    """Objects as files that readers map."""

    def test_evicting_twice_is_no_error(self, connector):
        key = connector.put(b"x")
        connector.evict(key)
        connector.evict(key)
        assert files(connector) == []

    def test_what_a_reader_writes_nobody_else_sees(self, connector):
        key = connector.put(bytes(MIB))
        mine, other = connector.get(key), connector.get(key)
        mine[:3] = b"abc"
        assert bytes(mine[:3]) == b"abc"
        assert bytes(other[:3]) == bytes(3)
        assert bytes(connector.get(key)[:3]) == bytes(3)

    def test_an_object_of_another_size_is_not_the_object(self, connector):
        key = connector.put(b"12345")
        path = os.path.join(connector.directories[key.place], key.name)
        os.truncate(path, 4)
        assert connector.get(key) is None
        assert not connector.exists(key)

    def test_closing_leaves_nothing(self, url):
        store = daskps.open_store(url)
        store.connector.put(b"x")
        paths = store.connector.directories
        assert all(map(os.path.exists, paths))
        store.close()
        assert not any(map(os.path.exists, paths))
        store.close()

    def test_a_collected_store_leaves_nothing(self, connector):
        owner = OwnedDirectory(os.path.dirname(connector.directories[0]))
        path = owner.path
        SegmentConnector([path]).put(b"x")
        del owner
        assert not os.path.exists(path)

    def test_only_this_user_can_look(self, connector):
        old = os.umask(0)
        try:
            key = connector.put(b"secret")
        finally:
            os.umask(old)
        for path in connector.directories:
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
        path = os.path.join(connector.directories[key.place], key.name)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600

    def test_names_cannot_be_guessed(self, connector):
        names = {connector.put(b"").name for _ in range(100)}
        assert len(names) == 100
        assert all(len(name) >= 21 for name in names), "fewer than 128 bits"

    def test_mapping_uses_no_file_descriptor(self, connector):
        keys = [connector.put(bytes(5000)) for _ in range(50)]
        before = len(os.listdir("/proc/self/fd"))
        mapped = connector.get_batch(keys)
        assert len(os.listdir("/proc/self/fd")) == before
        assert len(mapped) == 50

    def test_mappings_go_with_their_last_view(self, connector):
        key = connector.put(bytes(MIB))

        def mapped():
            with open("/proc/self/maps") as maps:
                return key.name in maps.read()

        array = np.frombuffer(connector.get(key), "u1")[5:10]
        assert mapped()
        del array
        assert not mapped()

    def test_holds_values_for_proxystore(self, store):
        value = {"a": np.arange(10), "b": [b"x" * 100_000]}
        key = store.put(value)
        new = store.get(key)
        np.testing.assert_array_equal(new["a"], value["a"])
        assert new["b"] == value["b"]
        new["a"][0] = 99
        assert store.get(key)["a"][0] == 0, "each get makes a new object"

    def test_serves_proxies_made_by_hand(self, store):
        proxy = store.proxy(np.arange(10))
        assert proxy.sum() == 45


class TestAHalfWrittenObject:
    """is never visible: it has its name once it is whole."""

    def test_while_it_is_written(self, tmp_path):
        connector = make_connector(tmp_path)
        seen = []

        class Slow(list):
            def __iter__(self):
                yield b"first half"
                seen.extend(os.listdir(connector.directories[0]))
                yield b"second half"

        key = connector.put_frames(Slow([b"first half", b"second half"]))
        assert seen
        assert key.name not in seen
        assert bytes(connector.get(key)) == b"first halfsecond half"

    def test_after_an_error(self, tmp_path):
        connector = make_connector(tmp_path)
        with pytest.raises(TypeError):
            connector.put_frames([b"good", NotABuffer()])
        assert os.listdir(connector.directories[0]) == []

    @pytest.mark.parametrize("step", ["_create", "_write"])
    def test_after_an_interrupt(self, tmp_path, monkeypatch, step):
        """Between two steps: when the file was made, and when it has its name."""
        connector = make_connector(tmp_path)
        do = getattr(segments, step)

        def interrupted(*args):
            do(*args)
            raise KeyboardInterrupt

        monkeypatch.setattr(segments, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            connector.put_frames([b"x" * MIB])
        assert os.listdir(connector.directories[0]) == []

    def test_after_kill(self, tmp_path):
        connector = make_connector(tmp_path)
        code = (
            "import os, signal, sys\n"
            "from daskps.stores.files.connector import SegmentConnector\n"
            "class Dying(list):\n"
            "    def __iter__(self):\n"
            "        yield b'x' * 100_000\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n"
            "class Twice:\n"
            "    frames = [b'x' * 100_000, b'y']\n"
            "    calls = 0\n"
            "    def __iter__(self):\n"
            "        Twice.calls += 1\n"
            "        return iter(self.frames if self.calls == 1 else Dying())\n"
            "SegmentConnector(sys.argv[1:]).put_frames(Twice())\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *connector.directories], check=False
        )
        assert done.returncode == -signal.SIGKILL
        left = os.listdir(connector.directories[0])
        assert all(name.endswith(".part") for name in left)
        assert len(left) == 1


class NotABuffer:
    def __len__(self):
        return 3


def make_connector(*parents, reserve=0):
    paths = []
    for i, parent in enumerate(parents):
        path = os.path.join(parent, f"objects{i}")
        os.mkdir(path, 0o700)
        paths.append(path)
    return SegmentConnector(paths, reserve)


@pytest.fixture
def tiny(tmp_path_factory):
    """A shared memory of 2 MiB."""
    path = tmp_path_factory.mktemp("tiny")
    with tmpfs(path, "2m"):
        yield path


class TestOrphans:
    """What a process stored that has lost its connection to the scheduler."""

    @pytest.fixture
    def connector(self, tmp_path):
        tmp_path.chmod(0o700)
        return SegmentConnector([str(tmp_path)])

    def test_go_unless_somebody_needs_them(self, connector):
        needed = connector.put_frames([b"needed"], "me")
        not_needed = connector.put_frames([b"not needed"], "me")
        others = connector.put_frames([b"another's"], "you")
        connector.evict_orphans("me", {needed})
        assert [connector.exists(k) for k in (needed, not_needed, others)] == [1, 0, 1]

    def test_what_is_being_written_stays(self, connector, monkeypatch):
        write_all = segments.write_all

        def sweep_meanwhile(*args):
            assert connector.evict_orphans("me", set()), "to be asked again"
            write_all(*args)

        monkeypatch.setattr(segments, "write_all", sweep_meanwhile)
        key = connector.put_frames([b"first", b"second"], "me")
        assert bytes(connector.get(key)) == b"firstsecond"

    def test_what_a_dead_process_was_writing_goes(self, connector, tmp_path):
        (tmp_path / "me.object.part").write_bytes(b"half")
        assert not connector.evict_orphans("me", set())
        assert not os.listdir(tmp_path)


def test_a_place_that_has_become_read_only_is_passed_over(tmp_path, monkeypatch):
    connector = make_connector(str(tmp_path), str(tmp_path))
    create, unlink = segments._create, os.unlink

    def read_only(do):
        def refuse(path):
            if path.startswith(connector.directories[0]):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
            return do(path)

        return refuse

    monkeypatch.setattr(segments, "_create", read_only(create))
    monkeypatch.setattr(os, "unlink", read_only(unlink))
    with pytest.warns(UserWarning, match="goes to a file"):
        key = connector.put(b"x")
    assert key.place == 1
    assert bytes(connector.get(key)) == b"x"


class TestNoRoom:
    @pytest.fixture
    def store(self, tiny, tmp_path):
        with (
            dask.config.set(
                {
                    "daskps.shm.directory": str(tiny),
                    "daskps.shm.reserve": 0,
                    "temporary-directory": str(tmp_path),
                }
            ),
            daskps.open_store("shm://") as store,
        ):
            yield store

    def test_objects_go_to_the_temporary_directory_with_one_warning(
        self, store, tmp_path
    ):
        connector = store.connector
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            keys = [connector.put(bytes([i]) * MIB) for i in range(4)]
        for i, key in enumerate(keys):
            assert bytes(connector.get(key)) == bytes([i]) * MIB
        assert [key.place for key in keys[:1] + keys[-1:]] == [0, 1]
        assert any(tmp_path.glob("daskps-*/*"))
        (warning,) = warned
        assert "no room" in str(warning.message)
        assert "--shm-size" in str(warning.message)
        assert connector.directories[0] in str(warning.message)

    def test_room_that_goes_while_writing(self, tiny, tmp_path):
        # What statvfs promises, another process may take before the last byte is
        # written. With a reserve below zero, statvfs is never the one to say no.
        connector = make_connector(tiny, tmp_path, reserve=-100 * MIB)
        with pytest.warns(UserWarning, match="no room"):
            key = connector.put(b"z" * (3 * MIB))
        assert key.place == 1
        assert bytes(connector.get(key)) == b"z" * (3 * MIB)
        assert os.listdir(connector.directories[0]) == [], "nothing half-written"

    def test_the_reserve_stays_free(self, tiny, tmp_path):
        connector = make_connector(tiny, tmp_path, reserve=MIB)
        assert connector.put(bytes(MIB // 2)).place == 0
        with pytest.warns(UserWarning, match="no room"):
            assert connector.put(bytes(MIB)).place == 1

    def test_room_that_comes_back_is_used_again(self, tiny, tmp_path):
        connector = make_connector(tiny, tmp_path)
        key = connector.put(bytes(3 * MIB // 2))
        with pytest.warns(UserWarning, match="no room"):
            assert connector.put(bytes(MIB)).place == 1
        connector.evict(key)
        assert connector.put(bytes(MIB)).place == 0

    def test_nowhere_at_all(self, tiny):
        connector = make_connector(tiny)
        with pytest.raises(daskps.StoreFullError) as error:
            connector.put(bytes(3 * MIB))
        assert "3.00 MiB" in str(error.value)
        assert connector.directories[0] in str(error.value)
        assert os.listdir(connector.directories[0]) == []
        assert bytes(connector.get(connector.put(b"small"))) == b"small"


class InMemory:
    """Tests of shared memory alone."""

    @pytest.fixture
    def connector(self):
        with daskps.open_store("shm://") as store:
            yield store.connector


class TestWarmSegments(InMemory):
    """Evicted segments are written anew, through a mapping from the second time on."""

    def test_each_put_is_what_is_read(self, connector):
        for i in range(6):
            data = np.random.default_rng(i).bytes(2 * MIB - 4000 * i)
            key = connector.put_frames([data[:1000], data[1000:]])
            assert bytes(connector.get(key)) == data
            connector.evict(key)
            assert len(files(connector)) == 1, "the segment is kept"

    def test_large_objects_in_several_pieces(self, connector):
        """Several threads write them."""
        for i in range(3):
            data = np.random.default_rng(i).bytes(40 * MIB + 123)
            key = connector.put_frames([b"head", data, b"tail"])
            assert bytes(connector.get(key)) == b"head" + data + b"tail"
            connector.evict(key)
        assert len(files(connector)) == 1

    def test_an_interrupt_leaves_nothing(self, connector, monkeypatch):
        connector.evict(connector.put(bytes(MIB)))

        def interrupted(mapping, done):
            raise KeyboardInterrupt

        descriptors = len(os.listdir("/proc/self/fd"))
        monkeypatch.setattr("daskps.stores.files.mapped.collapse", interrupted)
        with pytest.raises(KeyboardInterrupt):
            connector.put(bytes(MIB))
        assert files(connector) == []
        assert len(os.listdir("/proc/self/fd")) == descriptors
        monkeypatch.undo()
        assert bytes(connector.get(connector.put(b"x" * MIB))) == b"x" * MIB

    def test_too_many_mappings(self, connector, monkeypatch):
        connector.evict(connector.put(bytes(MIB)))

        def refused(fd, nbytes):
            raise OSError(errno.ENOMEM, "Cannot allocate memory")

        monkeypatch.setattr("daskps.stores.files.mapped.map_shared", refused)
        key = connector.put(b"x" * MIB)
        monkeypatch.undo()
        assert bytes(connector.get(key)) == b"x" * MIB

    @pytest.mark.parametrize("keeps", [True, False], ids=["too", "nothing"])
    def test_what_a_reader_has_is_not_written(self, connector, keeps):
        """Whether or not the reader itself keeps evicted segments."""
        reader = connector
        if not keeps:
            reader = SegmentConnector(connector.directories, keep=0)
        held = []
        for i in range(4):
            key = connector.put(bytes([i]) * MIB)
            held.append(reader.get(key))
            connector.evict(key)
        assert [bytes(h[:1]) for h in held] == [bytes([i]) for i in range(4)]
        assert all(bytes(h) == bytes(h[:1]) * MIB for h in held)

    def test_what_another_process_has_taken_or_deleted_is_left_alone(self, connector):
        other = SegmentConnector.from_config(connector.config())
        key = connector.put(b"a" * MIB)
        connector.evict(key)
        key = connector.put(b"b" * MIB)
        connector.evict(key)  # mapped by this connector now
        theirs = other.put(b"c" * MIB)
        mine = connector.put(b"d" * MIB)
        assert bytes(other.get(theirs)) == b"c" * MIB
        assert bytes(other.get(mine)) == b"d" * MIB
        connector.evict(mine)
        other._warm.clear()  # as if there were no room
        again = connector.put(b"e" * MIB)
        assert bytes(other.get(again)) == b"e" * MIB
        assert bytes(other.get(theirs)) == b"c" * MIB

    def test_a_strided_array(self, connector):
        array = np.arange(MIB).reshape(1024, -1)[:, ::2]
        for _ in range(3):
            key = connector.put_frames([b"head", array])
            assert bytes(connector.get(key)) == b"head" + array.tobytes()
            connector.evict(key)

    def test_a_limited_amount_is_kept_of_what_was_used_last(self, connector):
        connector = SegmentConnector(connector.directories, keep=8 * MIB)

        def kept():
            return sorted(int(name.split(".")[1]) // MIB for name in files(connector))

        def put_and_evict(*sizes):
            for key in [connector.put(bytes(size * MIB)) for size in sizes]:
                connector.evict(key)

        put_and_evict(*[1] * 12)
        assert kept() == [1] * 8
        put_and_evict(6)
        assert kept() == [1, 1, 6]
        put_and_evict(8)
        assert kept() == [8]
        put_and_evict(9)
        assert kept() == [8], "too large to be kept"
        put_and_evict(2, 2)
        assert kept() == [2, 2]

    def test_a_limited_amount_is_kept_mapped(self, connector):
        def mapped():
            with open("/proc/self/maps") as maps:
                return sum(connector.directories[0] in line for line in maps)

        connector.map_at_most(3 * MIB)
        for _ in range(3):
            keys = [connector.put(bytes(MIB)) for _ in range(5)]
            for key in keys:
                connector.evict(key)
        assert mapped() == 3


def kernel_gives_huge_pages():
    version = tuple(map(int, os.uname().release.split(".")[:2]))
    try:
        with open("/sys/kernel/mm/transparent_hugepage/shmem_enabled") as file:
            return version >= (6, 1) and "[deny]" not in file.read()
    except FileNotFoundError:
        return False


class TestHugePages(InMemory):
    """Segments that are written anew consist of huge pages sooner or later."""

    @pytest.fixture
    def at_once(self, monkeypatch):
        monkeypatch.setattr(huge_pages, "SHARE", 1e9)

    @staticmethod
    def mapped(connector):
        """Bytes of this process's mappings of objects that are huge pages."""
        nbytes, ours = 0, False
        with open("/proc/self/smaps") as file:
            for line in file:
                if "-" in line.split(" ", 1)[0]:
                    ours = connector.directories[0] in line
                elif ours and line.startswith(("ShmemPmdMapped", "FilePmdMapped")):
                    nbytes += int(line.split()[1]) << 10
        return nbytes

    @pytest.mark.skipif(
        not kernel_gives_huge_pages(), reason="this kernel gives no huge pages"
    )
    def test_a_reader_maps_them(self, connector, at_once):
        nbytes = 2 * HUGE_PAGE - 4096 - 1000
        for _ in range(3):
            key = connector.put(np.ones(nbytes, np.uint8))
            read = np.frombuffer(connector.get(key), np.uint8)
            assert read.sum() == nbytes
            connector.evict(key)
            mapped = self.mapped(connector)
            del read
        assert mapped == 2 * 2 * HUGE_PAGE, "the writer's mapping and the reader's"

    def test_objects_of_many_sizes(self, connector, at_once):
        random = np.random.default_rng(0)
        held = []
        for _ in range(60):
            nbytes = int(random.integers(MIB, 3 * HUGE_PAGE))
            data = random.bytes(nbytes)
            key = connector.put_frames([data])
            read = connector.get(key)
            read[:: 1 << 12] = bytes(len(read[:: 1 << 12]))
            assert bytes(connector.get(key)) == data
            held = [*held[-2:], (data, connector.get(key))]
            connector.evict(key)
            assert all(bytes(mapping) == data for data, mapping in held)

    def test_only_where_little_is_wasted(self):
        for nbytes in (1, MIB, 3 * MIB, 10**6, 4 * 10**6, 10**9, 2 * MIB, 2 * MIB + 1):
            huge = in_huge_pages(nbytes)
            assert huge == 0 or nbytes <= huge <= 1.125 * nbytes
        assert in_huge_pages(10**9)

    def test_takes_a_small_share_of_the_time(self, connector, monkeypatch):
        spent = []

        def slowly(*args):
            spent.append(0.05)
            time.sleep(0.05)
            return True

        monkeypatch.setattr(huge_pages, "advise", slowly)
        start = time.monotonic()
        for _ in range(20):
            connector.evict(connector.put(bytes(2 * HUGE_PAGE)))
        allowed = huge_pages.SHARE * (huge_pages.SECONDS + time.monotonic() - start)
        assert 0 < sum(spent) <= allowed + 0.05

    def test_a_kernel_that_refuses(self, connector, monkeypatch):
        monkeypatch.setattr(huge_pages, "advise", lambda *args: False)
        for i in range(4):
            key = connector.put(bytes([i]) * 2 * HUGE_PAGE)
            assert bytes(connector.get(key)) == bytes([i]) * 2 * HUGE_PAGE
            connector.evict(key)

    def test_a_file_system_with_little_room(self, tmp_path_factory, at_once):
        with tmpfs(tmp_path_factory.mktemp("little"), "9m") as path:
            os.chmod(path, 0o700)
            connector = SegmentConnector([path], keep=1 << 20)
            connector._warm.keep = 9 * MIB
            keys = []
            for i in range(12):
                data = bytes([i]) * (4 * MIB - 5000)
                keys.append((connector.put(data), data))
                assert all(bytes(connector.get(k)) == data for k, data in keys)
                if len(keys) == 2:
                    connector.evict(keys.pop(0)[0])


class TestPrivacy:
    def test_a_symbolic_link_is_refused(self, tmp_path):
        real = tmp_path / "real"
        real.mkdir(0o700)
        link = tmp_path / "link"
        link.symlink_to(real)
        with pytest.raises(PermissionError, match="symbolic link"):
            SegmentConnector([str(link)])

    def test_a_directory_that_others_may_enter_is_refused(self, tmp_path):
        path = tmp_path / "open"
        path.mkdir()
        path.chmod(0o750)
        with pytest.raises(PermissionError, match="0700"):
            SegmentConnector([str(path)])

    def test_a_directory_of_another_user_is_refused(self, tmp_path):
        if os.geteuid() != 0:
            pytest.skip("only root can give a directory away")
        path = tmp_path / "theirs"
        path.mkdir(0o700)
        os.chown(path, 12345, 12345)
        with pytest.raises(PermissionError, match="12345"):
            check_private(str(path))

    def test_an_object_is_not_read_through_a_symbolic_link(self, tmp_path):
        connector = make_connector(tmp_path)
        secret = tmp_path / "secret"
        secret.write_bytes(b"12345")
        name = os.path.join(connector.directories[0], "planted")
        os.symlink(secret, name)
        with pytest.raises(OSError, match="symbolic links"):
            connector.get(SegmentKey("planted", 5, 0))

    def test_a_missing_directory_is_an_error_at_once(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            SegmentConnector([str(tmp_path / "nowhere")])

    def test_a_url_of_a_missing_directory(self, tmp_path):
        with pytest.raises(daskps.ConfigError, match=r"nowhere.*exists"):
            daskps.open_store((tmp_path / "nowhere").as_uri())


HOLDER = """
import os, sys, time
from daskps.stores.files.directories import OwnedDirectory
owned = OwnedDirectory(sys.argv[1])
open(os.path.join(owned.path, "object"), "w").close()
print(owned.path, flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def holder(parent):
    """A process that owns a directory; gives process and directory."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(parent)], stdout=subprocess.PIPE, text=True
    )
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


class TestSweep:
    def test_removes_what_a_killed_process_left_and_nothing_else(self, tmp_path):
        mine = OwnedDirectory(str(tmp_path))
        with holder(tmp_path) as (_, living), holder(tmp_path) as (victim, dead):
            assert sweep(str(tmp_path)) == []
            victim.kill()
            victim.wait()
            assert os.path.exists(dead)
            assert sweep(str(tmp_path), dry_run=True) == [dead]
            assert os.path.exists(dead)
            assert sweep(str(tmp_path)) == [dead]
            assert not os.path.exists(dead)
            assert os.path.exists(living)
            assert os.path.exists(mine.path)
        mine.remove()

    def test_happens_when_a_store_is_opened(self, tmp_path):
        with holder(tmp_path) as (victim, dead):
            pass
        assert victim.returncode == -signal.SIGKILL
        assert os.path.exists(dead)
        with daskps.open_store(tmp_path.as_uri()):
            assert not os.path.exists(dead)

    def test_leaves_other_things_alone(self, tmp_path):
        (tmp_path / "other").mkdir(0o700)
        (tmp_path / "daskps-open").mkdir()
        (tmp_path / "daskps-open").chmod(0o755)
        (tmp_path / "daskps-file").write_text("")
        (tmp_path / "daskps-link").symlink_to(tmp_path / "other")
        (tmp_path / "daskps-without-lock").mkdir(0o700)
        assert sweep(str(tmp_path)) == []
        assert len(list(tmp_path.iterdir())) == 5

    def test_of_a_directory_that_is_not_there(self, tmp_path):
        assert sweep(str(tmp_path / "nowhere")) == []

    def test_spares_a_directory_that_is_being_made(self, tmp_path):
        new = tmp_path / f"{directories.NEW_PREFIX}abc"
        new.mkdir(0o700)
        assert sweep(str(tmp_path)) == []
        old = time.time() - 2 * directories.NEW_GRACE_SECONDS
        os.utime(new, (old, old))
        assert sweep(str(tmp_path)) == [str(new)]

    def test_spares_an_owner_on_another_host_who_may_be_alive(self, tmp_path):
        """Its lock may not be seen, so nobody holding it says nothing."""
        with holder(tmp_path) as (_, dead):
            pass
        lock = os.path.join(dead, directories.LOCK)
        with open(lock, "w") as f:
            f.write("another host")
        assert sweep(str(tmp_path)) == []
        old = time.time() - 2 * directories.FOREIGN_LEASE_SECONDS
        os.utime(lock, (old, old))
        assert sweep(str(tmp_path)) == [dead]

    def test_owners_say_that_they_are_alive(self, tmp_path, monkeypatch):
        monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.05)
        with daskps.open_store(tmp_path.as_uri()) as store:
            (path,) = store.connector.directories
            lock = os.path.join(path, directories.LOCK)
            os.utime(lock, (0, 0))
            assert eventually(lambda: time.time() - os.stat(lock).st_mtime < 60)

    def test_by_several_at_once(self, tmp_path):
        with holder(tmp_path) as (_, dead):
            pass
        barrier = threading.Barrier(4)

        def work(_):
            barrier.wait()
            return sweep(str(tmp_path))

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            swept = list(pool.map(work, range(4)))
        assert [dead] in swept
        assert not os.path.exists(dead)


class TestFork:
    """A forked process shares the directories of its parent, and deletes nothing."""

    @pytest.mark.parametrize("ending", ["close", "exit", "collect"])
    def test_a_child_deletes_nothing(self, url, ending, tmp_path):
        code = (
            "import os, sys, daskps\n"
            "store = daskps.open_store(sys.argv[1])\n"
            "paths = store.connector.directories\n"
            "key = store.connector.put(b'x')\n"
            "if os.fork() == 0:\n"
            "    if sys.argv[2] == 'close': store.close()\n"
            "    if sys.argv[2] == 'collect': del store\n"
            "    sys.exit()\n"
            "assert os.wait()[1] == 0\n"
            "assert bytes(store.connector.get(key)) == b'x'\n"
            "store.close()\n"
            "assert not any(map(os.path.exists, paths))\n"
        )
        subprocess.run([sys.executable, "-c", code, url, ending], check=True)


class TestOpenStores:
    """Stores that several users in one process share."""

    def test_the_last_user_closes(self, tmp_path):
        config = Store("shared", make_connector(tmp_path)).config()
        first, second = opened.acquire(config), opened.acquire(config)
        assert first is second
        key = first.connector.put(b"x")
        opened.release("shared")
        assert bytes(opened.read("shared", key)) == b"x"
        opened.release("shared")
        with pytest.raises(daskps.ObjectMissingError, match="not open in this process"):
            opened.read("shared", key)

    def test_a_missing_object_says_what_to_do(self, tmp_path):
        connector = make_connector(tmp_path)
        opened.add(Store("mine", connector))
        try:
            with pytest.raises(daskps.ObjectMissingError) as error:
                opened.read("mine", SegmentKey("gone", 3, 0))
            assert "gone" in str(error.value)
            assert "Submit the computation again" in str(error.value)
        finally:
            opened.close("mine")

    def test_releasing_and_evicting_what_is_not_there_is_no_error(self):
        opened.release("never opened")
        opened.evict("never opened", None)
        opened.close("never opened")

    @pytest.mark.parametrize("end", ["cancelled", "forgotten"])
    def test_who_waited_is_gone_when_it_is_open(self, tmp_path, monkeypatch, end):
        """With the event loop: a client was closed meanwhile."""
        go, began = threading.Event(), threading.Event()
        before = set(threading.enumerate())
        make = Store.from_config

        def slowly(config):
            began.set()
            assert go.wait(30)
            return make(config)

        monkeypatch.setattr(Store, "from_config", slowly)
        config = Store("late", make_connector(tmp_path)).config()
        loop = asyncio.new_event_loop()
        opening = loop.create_task(opened.acquire_in_thread(config))
        loop.run_until_complete(asyncio.sleep(0))
        assert began.wait(30)
        if end == "cancelled":
            opening.cancel()
            loop.run_until_complete(asyncio.wait([opening]))
        else:
            opening._log_destroy_pending = False
        del opening
        loop.close()
        (thread,) = set(threading.enumerate()) - before
        go.set()
        thread.join(30)
        gc.collect()  # what waits for ever on a loop that was closed
        assert eventually(lambda: opened.get("late") is None)


def test_a_store_is_in_the_temporary_directory_of_dask(tmp_path):
    with (
        dask.config.set({"temporary-directory": str(tmp_path)}),
        daskps.open_store("shm://") as store,
    ):
        first, second = store.connector.directories
        assert os.path.dirname(first) == dask.config.get("daskps.shm.directory")
        assert os.path.dirname(second) == str(tmp_path)
    assert tempfile.gettempdir() != str(tmp_path)


def test_open_store_takes_nothing_but_urls():
    with pytest.raises(daskps.ConfigError, match="shm://"):
        daskps.open_store(None)
