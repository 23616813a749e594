"""From which host each one reads an object, and how objects pass from host to host."""

from __future__ import annotations

import os
import re
import secrets
import signal
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peers import Peers, between
from processes import PATIENCE, eventually

from benchmarks.spreading import Simulation
from daskps.stores.damaged import DamagedError
from daskps.stores.peer import ways
from daskps.stores.peer.sources import PASSED_ON_NBYTES, Sources

MIB = 1 << 20
HERE, A, B, C = [(name, 1) for name in ("here", "a", "b", "c")]
LARGE = 64 * MIB


class TestChoice:
    def test_each_reads_from_the_one_before(self):
        sources = Sources(HERE)
        assert [sources.begins("x", LARGE, one) for one in (A, B, C)] == [HERE, A, B]

    def test_what_is_small_comes_from_its_host(self):
        sources = Sources(HERE)
        small = PASSED_ON_NBYTES - 1
        assert [sources.begins("x", small, one) for one in (A, B)] == [HERE, HERE]

    def test_nobody_reads_from_who_waits_for_it(self):
        sources = Sources(HERE)
        for one in (A, B, C):
            sources.begins("x", LARGE, one)
        # Its source has gone, and C reads from B.
        assert sources.begins("x", LARGE, B, without=[A]) == HERE
        assert sources.begins("x", LARGE, A, without=[HERE]) == C

    def test_who_has_all_of_it_is_not_further_than_its_host(self):
        sources = Sources(HERE)
        sources.begins("x", LARGE, A)
        sources.ended("x", A, whole=True)
        sources.begins("x", LARGE, B)
        assert {sources.begins("x", LARGE, one) for one in (C, B)} == {HERE, A}

    def test_who_did_not_have_it_is_not_named_again(self):
        sources = Sources(HERE)
        sources.begins("x", LARGE, A)
        sources.ended("x", A, whole=True)
        assert sources.begins("x", LARGE, B, without=[A, HERE]) == HERE
        assert sources.forget(["x"]) == {"x": [B]}

    def test_who_gave_up_has_none(self):
        sources = Sources(HERE)
        sources.begins("x", LARGE, A)
        sources.ended("x", A, whole=False)
        assert sources.forget(["x", "y"]) == {}

    def test_whoever_has_a_copy_is_told_of_the_end(self):
        sources = Sources(HERE)
        for one in (A, B, C):
            sources.begins("x", LARGE, one)
        sources.ended("x", A, whole=True)
        sources.ended("x", C, whole=False)
        assert sorted(sources.forget(["x"])["x"]) == [A, B]
        sources.ended("x", B, whole=True)  # it comes too late
        assert sources.forget(["x"]) == {}

    @given(
        st.lists(
            st.tuples(
                st.sampled_from("abcdef"), st.sampled_from(["begin", "end", "fail"])
            )
        )
    )
    def test_all_get_it_from_somebody_who_has_it(self, events):
        sources = Sources(HERE)
        reading = {}
        for name, event in events:
            one = (name, 1)
            if event == "begin" or one not in reading:
                reading[one] = sources.begins("x", LARGE, one)
            elif event == "end":
                sources.ended("x", one, whole=True)
                del reading[one]
            else:
                reading[one] = sources.begins("x", LARGE, one, [reading[one]])
            for each in reading:
                way = [each]
                while way[-1] in reading:
                    way.append(reading[way[-1]])
                    assert len(way) == len(set(way)), "they wait for each other"


@pytest.mark.parametrize(("n", "times"), [(2, 1.5), (12, 1.5), (300, 4)])
def test_many_hosts_take_little_longer_than_one(n, times):
    assert Simulation(LARGE, 125e6).run(n) < times


@pytest.fixture
def peers():
    peers = Peers()
    yield peers
    peers.close()


@pytest.fixture
def hosts(peers):
    """Connectors on four hosts."""
    return [peers.connect(host) for host in range(4)]


def reading(*jobs):
    """What is read at the same time, in threads."""
    found = [None] * len(jobs)

    def run(number, connector, key):
        found[number] = bytes(connector.get(key))

    threads = [
        threading.Thread(target=run, args=(number, *job))
        for number, job in enumerate(jobs)
    ]
    return threads, found


class TestOnTheWay:
    def both_read(self, hosts, key, network, stopped):
        """The second host reads what the first one has of it, when that is stopped."""
        slow = key._replace(host="127.0.0.1", port=network.port)
        (first, second), found = reading((hosts[1], slow), (hosts[2], key))
        first.start()
        assert stopped.wait(PATIENCE)
        second.start()
        copy = f"cached.{key.name}.part"
        assert eventually(lambda: sizes(hosts[2], copy) > [MIB])
        return (first, second), found

    def test_a_part_of_it_is_passed_on(self, hosts):
        """And whoever waits for a part goes on with the one that waited for more."""
        data = secrets.token_bytes(8 * MIB)
        key = hosts[0].put(data)
        stopped, go_on = threading.Event(), threading.Event()

        def stop(sent, chunk):
            if sent > 3 * MIB and not stopped.is_set():
                stopped.set()
                go_on.wait(PATIENCE)
                return None
            return chunk

        with between(key.origin, stop) as network:
            (first, second), found = self.both_read(hosts, key, network, stopped)
            assert network.sent < 4 * MIB
            go_on.set()
            first.join()
            second.join()
        assert found == [data, data]

    def test_a_source_that_is_killed_is_replaced(self, peers, hosts):
        data = secrets.token_bytes(32 * MIB)
        key = hosts[0].put(data)
        stopped = threading.Event()

        def stop(sent, chunk):
            if sent > 3 * MIB and not stopped.is_set():
                stopped.set()
                time.sleep(PATIENCE)
            return chunk

        with between(key.origin, stop) as network:
            (first, second), found = self.both_read(hosts, key, network, stopped)
            for pid in peers.servers(1):
                os.kill(pid, signal.SIGKILL)
            second.join()
            first.join()
        assert found == [data, data]

    def test_what_its_own_host_has_lost(self, hosts):
        data = secrets.token_bytes(4 * MIB)
        key = hosts[0].put(data)
        assert bytes(hosts[1].get(key)) == data
        for directory in hosts[0]._here().segments.directories:
            path = os.path.join(directory, key.name)
            if os.path.exists(path):
                os.unlink(path)
        assert bytes(hosts[2].get(key)) == data
        assert bytes(hosts[0].get(key)) == data

    def test_copies_are_evicted_wherever_they_are(self, peers, hosts):
        key = hosts[0].put(secrets.token_bytes(4 * MIB))
        for host in hosts:
            host.get(key)
        assert [len(peers.files(host)) for host in range(4)] == [1] * 4
        peers.owner.evict(key)
        assert eventually(lambda: not any(peers.files(host) for host in range(4)))

    def test_also_if_nobody_knows_of_them_any_more(self, peers, hosts):
        key = hosts[0].put(secrets.token_bytes(4 * MIB))
        hosts[1].get(key)
        [server] = peers.servers(0)
        os.kill(server, signal.SIGKILL)
        assert eventually(lambda: peers.servers(0) not in ([], [server]))
        peers.owner.evict(key)
        assert eventually(lambda: not peers.files(0) + peers.files(1))

    def test_a_damaged_chunk_is_asked_for_again(self, hosts):
        data = secrets.token_bytes(8 * MIB)
        key = hosts[0].put(data)
        damaged = []

        def damage(sent, chunk):
            if sent > 3 * MIB and not damaged:
                damaged.append(sent)
                return bytes(len(chunk))
            return chunk

        with between(key.origin, damage) as network:
            bad = key._replace(host="127.0.0.1", port=network.port)
            assert bytes(hosts[1].get(bad)) == data
            # From where it was.
            starts = re.findall(rb'"start":(\d+)', network.requests)
            assert int(starts[0]) == 0
            assert int(starts[1]) >= 2 * MIB
        assert damaged

    def test_one_that_is_always_damaged_is_an_error(self, peers, hosts):
        key = hosts[0].put(secrets.token_bytes(8 * MIB))

        def damage(sent, chunk):
            return bytes(len(chunk)) if sent > 3000 and len(chunk) > 2000 else chunk

        with between(key.origin, damage) as network:
            bad = key._replace(host="127.0.0.1", port=network.port)
            with pytest.raises(DamagedError):
                hosts[1].get(bad)
        assert peers.files(1) == []


def sizes(connector, name):
    """Of files on a host."""
    return [
        os.stat(path).st_size
        for directory in connector._here().segments.directories
        if os.path.exists(path := os.path.join(directory, name))
    ]


class TestAHostThatTakesNoConnections:
    @pytest.fixture
    def key(self, hosts):
        """Of an object that others cannot come for."""
        data = secrets.token_bytes(8 * MIB)
        key = hosts[0].put(data)
        for host in hosts[1:]:
            host._ways._closed[key.origin] = float("inf")
        return key

    def test_it_connects_itself(self, hosts, key):
        assert bytes(hosts[1].get(key)) == bytes(hosts[0].get(key))

    def test_the_next_reads_from_the_one_before(self, peers, hosts, key):
        data = bytes(hosts[0].get(key))
        assert bytes(hosts[1].get(key)) == data
        hosts[0].put(b"")  # it has a user
        for directory in hosts[0]._here().segments.directories:
            if os.path.exists(path := os.path.join(directory, key.name)):
                os.unlink(path)
        assert bytes(hosts[2].get(key)) == data

    def test_small_and_missing_objects(self, hosts, key):
        for nbytes in 0, 1, 1000:
            small = hosts[0].put(bytes(nbytes))
            assert bytes(hosts[1].get(small)) == bytes(nbytes)
        missing = key._replace(name="." + secrets.token_urlsafe(16))
        assert hosts[1].get(missing) is None
        assert not hosts[1].exists(missing)
        assert hosts[1].exists(key)

    def test_it_is_evicted(self, peers, hosts, key):
        hosts[1].get(key)
        hosts[1].evict(key)
        assert hosts[0].get(key) is None
        assert not peers.files(0) + peers.files(1)

    def test_it_can_be_reached(self, peers, hosts, key, monkeypatch):
        def refuse(address, *args):
            raise TimeoutError("timed out")

        monkeypatch.setattr(ways, "connect", refuse)
        hosts[1].try_connection(key.origin, 1.0)
        assert hosts[1]._ways.is_closed(key.origin)
        with pytest.raises(TimeoutError):
            hosts[1].try_connection(peers.owner._settings.registry, 1.0)
        with pytest.raises(TimeoutError):
            hosts[1].try_connection(("127.0.0.1", 1), 1.0)

    def test_it_is_killed_in_the_middle(self, peers, hosts):
        data = secrets.token_bytes(64 * MIB)
        key = hosts[0].put(data)
        hosts[1]._ways._closed[key.origin] = float("inf")
        (thread,), found = reading((hosts[1], key))
        thread.start()
        assert eventually(lambda: sizes(hosts[1], f"cached.{key.name}.part") > [MIB])
        for pid in peers.servers(0):
            os.kill(pid, signal.SIGKILL)
        # Another one is started, and goes on.
        thread.join()
        assert found == [data]
