"""How much memory may be taken, and what goes when it is needed."""

from __future__ import annotations

import gc
import os
import time
from types import SimpleNamespace

import numpy as np
import pytest
from nobody import Nobody
from processes import eventually
from shared_store import shared_store

import daskps
from daskps.objects.cache import Cache
from daskps.objects.catalog import Catalog
from daskps.stores import memory, pressure
from daskps.stores.files import warm
from daskps.stores.files.connector import SegmentConnector
from daskps.stores.memory import Room

MIB = 1 << 20
GIB = 1 << 30
MACHINE = 64 * GIB


def group_of(tmp_path, cgroup, mountinfo):
    """What the kernel would say of a process, and of its groups, which are given."""
    process = tmp_path / "process"
    process.mkdir()
    (process / "cgroup").write_text(cgroup)
    (process / "mountinfo").write_text(mountinfo)
    return memory._groups(str(process))


def write_group(path, **files):
    path.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (path / name.replace("__", ".")).write_text(f"{text}\n")


@pytest.fixture
def second(tmp_path):
    """A hierarchy (v2), where it is mounted, and what makes the group of a process."""
    mount = tmp_path / "unified"
    write_group(mount)

    def of(path, root="/"):
        line = f"31 23 0:28 {root} {mount} rw,relatime shared:9 - cgroup2 cgroup2 rw\n"
        (group,) = group_of(tmp_path, f"0::{path}\n", line)
        return list(group.limits(MACHINE))

    return mount, of


@pytest.fixture
def first(tmp_path):
    """The same with v1, whose other hierarchies do not matter."""
    mount = tmp_path / "memory"
    write_group(mount)

    def of(path, root="/"):
        lines = (
            f"30 23 0:27 {root} {tmp_path} rw - cgroup cgroup rw,cpu,cpuacct\n"
            f"31 23 0:28 {root} {mount} rw - cgroup cgroup rw,memory\n"
        )
        cgroup = f"9:name=systemd:/init\n4:memory:{path}\n1:cpu,cpuacct:/other\n"
        (group,) = group_of(tmp_path, cgroup, lines)
        return list(group.limits(MACHINE))

    return mount, of


class TestControlGroups:
    def test_page_cache_of_disks_is_free_and_shared_memory_is_not(self, second):
        mount, of = second
        write_group(
            mount / "job",
            memory__max=GIB,
            memory__current=800 * MIB,
            memory__stat=f"anon {100 * MIB}\nfile {700 * MIB}\nshmem {400 * MIB}\n"
            f"inactive_file {200 * MIB}\nactive_file {100 * MIB}",
        )
        (room,) = of("/job")
        assert (room.total, room.free) == (GIB, GIB - 500 * MIB)
        assert "/job" in room.limit

    def test_the_same_with_the_first_version(self, first):
        mount, of = first
        write_group(
            mount / "job",
            memory__limit_in_bytes=GIB,
            memory__usage_in_bytes=800 * MIB,
            memory__stat=f"inactive_file 0\ntotal_inactive_file {200 * MIB}\n"
            f"total_active_file {100 * MIB}\ntotal_shmem {400 * MIB}",
        )
        (room,) = of("/job")
        assert (room.total, room.free) == (GIB, GIB - 500 * MIB)

    def test_parents_limit_all_of_their_groups_together(self, second):
        mount, of = second
        write_group(
            mount / "user",
            memory__max=2 * GIB,
            memory__current=GIB,
            memory__stat="inactive_file 0",
        )
        write_group(
            mount / "user/job",
            memory__max="max",
            memory__current=MIB,
            memory__stat="inactive_file 0",
        )
        (room,) = of("/user/job")
        assert (room.total, room.free) == (2 * GIB, GIB)

    def test_a_group_that_is_slowed_down_before_it_is_full(self, second):
        mount, of = second
        write_group(
            mount / "job",
            memory__max=2 * GIB,
            memory__high=GIB,
            memory__current=0,
            memory__stat="anon 0",
        )
        (room,) = of("/job")
        assert room.total == GIB

    def test_a_parent_that_a_container_does_not_see(self, first):
        mount, of = first
        write_group(
            mount,
            memory__limit_in_bytes=1 << 62,
            memory__usage_in_bytes=100 * MIB,
            memory__stat=f"hierarchical_memory_limit {GIB}\ntotal_inactive_file 0",
        )
        (room,) = of("/docker/name", root="/docker/name")
        assert (room.total, room.free) == (GIB, GIB - 100 * MIB)

    @pytest.mark.parametrize("path", ["/", "/../..", "/elsewhere/../job"])
    def test_a_namespace_shows_its_own_group_as_the_root(self, second, path):
        mount, of = second
        write_group(
            mount, memory__max=GIB, memory__current=0, memory__stat="inactive_file 0"
        )
        (room,) = of(path)
        assert room.total == GIB

    def test_without_a_limit(self, first):
        mount, of = first
        write_group(
            mount / "job",
            memory__limit_in_bytes=9223372036854771712,
            memory__usage_in_bytes=MIB,
            memory__stat="hierarchical_memory_limit 9223372036854771712",
        )
        assert of("/job") == []

    def test_a_process_without_groups(self, tmp_path):
        assert memory._groups(str(tmp_path / "nothing")) == []

    def test_both_versions_at_once(self, tmp_path):
        lines = (
            f"31 23 0:28 / {tmp_path}/memory rw - cgroup cgroup rw,memory\n"
            f"38 31 0:41 / {tmp_path}/unified rw - cgroup2 cgroup2 rw\n"
        )
        groups = group_of(tmp_path, "4:memory:/a\n0::/b\n", lines)
        assert [g.path for g in groups] == [
            f"{tmp_path}/memory/a",
            f"{tmp_path}/unified/b",
        ]


class TestRoom:
    def test_a_disk_is_not_limited_by_memory(self, tmp_path, leave):
        leave(MIB, of=GIB)
        if memory.is_in_memory(str(tmp_path)):
            pytest.skip("the temporary directory is memory")
        status = os.statvfs(tmp_path)
        assert memory.total(str(tmp_path)) == status.f_blocks * status.f_frsize
        assert memory.room(str(tmp_path)).free > MIB

    def test_memory_is_limited_by_what_is_left(self, store_directory, leave):
        leave(300 * MIB, of=800 * MIB)
        room = memory.room(store_directory)
        assert room.free == 250 * MIB, "a sixteenth of the limit is left to others"
        assert room.limit == "a test"
        assert memory.total(store_directory) == 800 * MIB


@pytest.fixture
def store_directory(connector):
    return connector.directories[0]


@pytest.fixture
def connector():
    with daskps.open_store("shm://") as store:
        yield store.connector


@pytest.fixture
def leave(monkeypatch):
    """Have a limit leave so many bytes."""

    def leave(free, of):
        monkeypatch.setattr(memory, "_read", lambda: [Room(of, free, "a test")])
        monkeypatch.setattr(memory, "_limits", memory._read)

    return leave


def free_segments(connector):
    names = os.listdir(connector.directories[0])
    return [name for name in names if name.startswith("free.")]


class TestWarmMemory:
    def test_stays_where_there_is_room(self, connector, leave):
        leave(20 * GIB, of=24 * GIB)
        connector.evict(connector.put(bytes(8 * MIB)))
        assert len(free_segments(connector)) == 1

    def test_is_not_kept_where_memory_is_scarce(self, connector, leave):
        leave(200 * MIB, of=800 * MIB)
        connector.evict(connector.put(bytes(8 * MIB)))
        assert free_segments(connector) == []

    def test_makes_room_for_what_is_stored(self, connector, leave):
        leave(20 * GIB, of=24 * GIB)
        connector.evict(connector.put(bytes(8 * MIB)))
        leave(200 * MIB, of=800 * MIB)
        connector.put(bytes(32 * MIB))
        assert free_segments(connector) == []

    def test_goes_before_somebody_else_takes_the_rest(self, connector, leave):
        leave(20 * GIB, of=24 * GIB)
        connector.evict(connector.put(bytes(8 * MIB)))
        leave(90 * MIB, of=800 * MIB)
        assert eventually(lambda: not free_segments(connector))

    def test_goes_when_it_is_not_used(self, connector, monkeypatch):
        connector.evict(connector.put(bytes(8 * MIB)))
        assert len(free_segments(connector)) == 1
        monkeypatch.setattr(warm, "UNUSED_SECONDS", 0.1)
        assert eventually(lambda: not free_segments(connector))

    def test_is_unmapped_by_who_has_left(self, connector):
        def mapped():
            with open("/proc/self/maps") as maps:
                return sum(connector.directories[0] in line for line in maps)

        for _ in range(2):
            connector.evict(connector.put(bytes(8 * MIB)))
        assert mapped()
        connector.rest()
        assert eventually(lambda: not mapped())
        assert len(free_segments(connector)) == 1, "others may write it"

    def test_nothing_is_looked_after_for_ever(self, connector, monkeypatch):
        connector.evict(connector.put(bytes(8 * MIB)))
        monkeypatch.setattr(warm, "UNUSED_SECONDS", 0.1)
        assert eventually(lambda: pressure._thread is None)


class TestNoRoomInMemory:
    """The kernel would kill: so what is stored goes elsewhere."""

    def test_it_goes_to_the_next_directory(self, leave):
        with daskps.open_store("shm://") as store:
            if memory.is_in_memory(store.connector.directories[1]):
                pytest.skip("the temporary directory is memory")
            leave(100 * MIB, of=800 * MIB)
            with pytest.warns(UserWarning, match="no room"):
                assert store.connector.put(bytes(60 * MIB)).place == 1

    def test_without_another_one_it_is_an_error(self, store_directory, leave):
        leave(100 * MIB, of=800 * MIB)
        alone = SegmentConnector([store_directory], keep=0)
        before = os.listdir(store_directory)
        with pytest.raises(daskps.StoreFullError, match=r"60\.00 MiB"):
            alone.put(bytes(60 * MIB))
        assert os.listdir(store_directory) == before

    def test_what_others_take_meanwhile(self, store_directory, monkeypatch):
        """It stops before the kernel kills."""
        rooms = iter([GIB] * 6)
        monkeypatch.setattr(
            memory, "_read", lambda: [Room(GIB, next(rooms, MIB), "a test")]
        )
        monkeypatch.setattr(memory, "_limits", memory._read)
        alone = SegmentConnector([store_directory], keep=0)
        before = os.listdir(store_directory)
        with pytest.raises(daskps.StoreFullError):
            alone.put(bytes(100 * MIB))
        assert os.listdir(store_directory) == before


class TestCache:
    @pytest.fixture
    def graph(self, connector):
        """Store a graph that has these objects."""
        with shared_store() as store:
            catalog = Catalog(store, Nobody())
            self.cache = Cache(GIB)

            def graph(*contents):
                turn = self.cache.turn()
                for content in contents:
                    stored = catalog.put([np.full(1000, content, "u1").data])
                    self.cache.add(stored, turn)
                self.cache.was_stored(turn)
                return len(self.cache)

            yield graph

    def test_what_the_next_graph_does_not_use_goes(self, graph):
        assert graph(1) == 1
        assert graph(2) == 1
        assert graph(3, 4) == 2

    def test_what_the_next_graph_uses_stays(self, graph):
        graph(1)
        graph(1)
        assert [graph(2), graph(3), graph(4)] == [2, 2, 2]

    def test_twice_in_one_graph_is_no_second_use(self, graph):
        graph(1, 1)
        assert graph(2) == 1

    def test_what_comes_back_is_kept(self, graph):
        """Two models in turn are stored twice, and then no more."""
        for content in (1, 2, 1, 2):
            graph(content)
        assert [graph(1), graph(2), graph(3), graph(4)] == [2, 2, 3, 3]

    def test_without_room_the_least_useful_goes_first(self, graph):
        graph(1)
        graph(1)
        graph(2)
        (_, second) = self.cache._objects.values()
        assert self.cache.give_back(1) == second.stored.nbytes
        assert len(self.cache) == 1
        assert self.cache.give_back(10_000) == 1000
        assert self.cache.give_back(1) == 0

    def test_what_is_being_stored_is_not_given_back(self, graph):
        graph(1)
        turn = self.cache.turn()
        (kept,) = self.cache._objects.values()
        self.cache.add(kept.stored, turn)
        assert self.cache.give_back(1) == 0
        del turn
        gc.collect()
        assert self.cache.give_back(1) == 1000

    def test_goes_under_pressure(self, graph, leave):
        self.cache.in_memory = True
        graph(1)
        leave(50 * MIB, of=800 * MIB)
        assert eventually(lambda: not len(self.cache))


def test_much_that_is_wanted_in_small_pieces_is_seen(monkeypatch):
    """Or else a fast writer would go beyond a limit before it is looked at again."""
    last = SimpleNamespace()

    def read(free):
        last.limits = [Room(2 * GIB, free, "a test")]
        last.until, last.wanted = float("inf"), 0
        return last.limits

    monkeypatch.setattr(memory, "_Reading", last)
    monkeypatch.setattr(memory, "_read", lambda: read(100 * MIB))
    read(GIB)
    found = [memory.available(8 * MIB).free for _ in range(20)]
    # Sixteen are an eighth of what was free.
    assert found == [GIB] * 16 + [100 * MIB] * 4


def test_reading_takes_little():
    """It is done at most every half a second, unless much is wanted."""
    start = time.process_time()
    for _ in range(50):
        memory._read()
    assert time.process_time() - start < 2.5
