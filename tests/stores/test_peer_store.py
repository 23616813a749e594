"""Objects that stay on the host that made them, and who may come for them."""

from __future__ import annotations

import concurrent.futures
import contextlib
import copy
import fcntl
import multiprocessing
import os
import pickle
import secrets
import shutil
import signal
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from urllib.parse import urlsplit

import dask
import numpy as np
import psutil
import pytest
from certificates import Authority
from peers import ADDRESSES, Peers, between
from processes import PATIENCE, eventually
from proxystore.connectors.protocols import Connector

import daskps
from daskps.exceptions import ConfigError
from daskps.stores.damaged import DamagedError
from daskps.stores.files.shared_directory import SharedDirectory
from daskps.stores.files.warm import LISTING_SECONDS
from daskps.stores.peer import protocol as peer_protocol
from daskps.stores.peer import scheme as peer
from daskps.stores.peer import ways
from daskps.stores.peer.chunks import Receiver
from daskps.stores.peer.connector import PeerConnector
from daskps.stores.peer.listener import Listener
from daskps.stores.peer.protocol import Keys, RefusedError, connect, listen
from daskps.stores.peer.registry import PeerRegistry
from daskps.stores.peer.server import LOOK_SECONDS, Owner, PeerServer
from daskps.stores.secret import new_key

MIB = 1 << 20


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def encrypted(request):
    return request.param


@pytest.fixture
def peers(encrypted):
    peers = Peers(encrypted=encrypted)
    yield peers
    peers.close()


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture
def here(peers):
    """On the first host."""
    return peers.connect(0)


@pytest.fixture
def there(peers):
    """On the second one."""
    return peers.connect(1)


def inode_of(connector, key):
    return os.stat(connector._here().segments._path(key.segment)).st_ino


class TestTwoHosts:
    @pytest.mark.parametrize("nbytes", [0, 1, 4097, 20 * MIB + 3])
    def test_an_object_is_read_on_both(self, here, there, nbytes):
        data = np.random.default_rng(nbytes).bytes(nbytes)
        key = here.put(data)
        assert key.origin[0] == ADDRESSES[0]
        assert bytes(here.get(key)) == data
        assert bytes(there.get(key)) == data
        assert there.exists(key)

    def test_it_is_a_connector_of_proxystore(self, here):
        assert isinstance(here, Connector)

    def test_what_a_reader_writes_nobody_else_sees(self, here, there):
        key = here.put(bytes(MIB))
        mine = there.get(key)
        mine[:3] = b"abc"
        assert bytes(there.get(key)[:3]) == bytes(here.get(key)[:3]) == bytes(3)

    def test_a_missing_object_is_missing_everywhere(self, here, there):
        key = here.put(b"x")
        missing = key._replace(name="." + secrets.token_urlsafe(16))
        assert here.get(missing) is there.get(missing) is None
        assert not here.exists(missing)
        assert not there.exists(missing)

    def test_an_object_of_another_size_is_not_the_object(self, here, there):
        key = here.put(b"12345")._replace(nbytes=4)
        assert there.get(key) is None

    @pytest.mark.parametrize("by", ["here", "there", "owner"])
    def test_it_is_evicted_from_anywhere(self, peers, here, there, by):
        key = here.put(bytes(MIB))
        mapped = there.get(key)
        {"here": here, "there": there, "owner": peers.owner}[by].evict(key)
        assert eventually(lambda: not here.exists(key))
        assert here.get(key) is None
        assert bytes(mapped) == bytes(MIB)
        here.evict(key)
        there.evict(key)

    def test_the_owner_evicts_copies_too(self, peers, here, there):
        key = here.put(bytes(MIB))
        there.get(key)
        assert peers.files(1) == [f"cached.{key.name}"]
        peers.owner.evict(key)
        assert eventually(lambda: not peers.files(0) + peers.files(1))
        assert there.get(key) is None

    @pytest.mark.parametrize("by", ["here", "there", "owner"])
    def test_its_memory_is_used_again(self, peers, here, there, by):
        key = here.put(bytes(MIB))
        inode = inode_of(here, key)
        {"here": here, "there": there, "owner": peers.owner}[by].evict(key)
        assert eventually(lambda: not here.exists(key))
        time.sleep(2 * LISTING_SECONDS)  # whoever evicted it
        data = secrets.token_bytes(MIB)
        key = here.put(data)
        assert inode_of(here, key) == inode
        assert bytes(there.get(key)) == bytes(here.get(key)) == data

    def test_its_memory_is_not_used_while_it_is_sent(self, here, there):
        data = secrets.token_bytes(32 * MIB)
        key = here.put(data)
        inode = inode_of(here, key)
        wanted = {"name": key.name, "nbytes": key.nbytes, "start": 0, "without": []}
        message = {"op": "get", "reader": there.serves_at(), **wanted}
        channel, answer = there._channels.request(key.origin, message)
        assert answer["found"]
        here.evict(key)
        other = here.put(bytes(len(data)))
        assert inode_of(here, other) != inode
        came = bytearray()
        receiver = Receiver(there._keys, key.name, key.nbytes, came.extend)
        receiver.receive(channel)
        assert came == data
        channel.close()
        here.evict(other)
        # Both are free.
        assert eventually(
            lambda: {inode_of(here, here.put(data)) for _ in range(2)} >= {inode}
        )

    def test_what_a_dead_process_left_is_deleted_on_all_hosts(self, peers, here, there):
        keys = [
            connector.put_frames([b"x"], creator)
            for connector in (here, there)
            for creator in ("dead", "alive")
        ]
        # The servers are known to the owner a moment after they were started.
        assert eventually(lambda: len(peers.owner._owner._hosts) == 2)
        peers.owner.evict_orphans("dead", {keys[0]})
        left = [True, True, False, True]
        assert eventually(lambda: [here.exists(key) for key in keys] == left)

    def test_what_a_process_was_writing_goes_once_it_has_ended(self, peers, here):
        here.put(b"x")
        path = os.path.join(here._here().segments.directories[0], "dead.object.part")
        assert eventually(lambda: len(peers.owner._owner._hosts) == 1)
        with open(path, "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            peers.owner.evict_orphans("dead", set())
            time.sleep(2 * LOOK_SECONDS)
            assert os.path.exists(path)
        assert eventually(lambda: not os.path.exists(path))

    def test_many_readers_at_once(self, here, there):
        data = [secrets.token_bytes(300_000 + i) for i in range(32)]
        keys = here.put_batch(data)
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            found = pool.map(there.get, keys * 2)
            assert [bytes(x) for x in found] == data * 2

    def test_a_forked_process_reads(self, here, there):
        key, other = here.put(b"one"), here.put(b"two")
        there.get(key)  # a connection is open
        pid = os.fork()
        if not pid:
            os._exit(0 if bytes(there.get(other)) == b"two" else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert bytes(there.get(here.put(b"three"))) == b"three"


class TestOnce:
    """An object crosses the network once for each host."""

    def test_readers_of_one_host_share_a_copy(self, peers, here, there):
        key = here.put(secrets.token_bytes(4 * MIB))
        with between(key.origin) as network:
            key = key._replace(host="127.0.0.1", port=network.port)
            context = multiprocessing.get_context("spawn")
            with concurrent.futures.ProcessPoolExecutor(4, context) as pool:
                jobs = [
                    pool.submit(_read, peers.settings(1), peers.owner.config(), key)
                    for _ in range(8)
                ]
                found = {job.result() for job in jobs}
            assert found == {bytes(here.get(key))}
            assert 4 * MIB <= network.sent < 4.1 * MIB

    def test_a_killed_reader_leaves_it_to_the_next(self, peers, here, there):
        key = here.put(secrets.token_bytes(4 * MIB))
        reached = threading.Event()

        def stop(sent, data):
            if sent > MIB and not reached.is_set():
                reached.set()
                time.sleep(1)
            return data

        with between(key.origin, stop) as network:
            slow = key._replace(host="127.0.0.1", port=network.port)
            process = multiprocessing.get_context("spawn").Process(
                target=_read, args=(peers.settings(1), peers.owner.config(), slow)
            )
            process.start()
            assert reached.wait(PATIENCE)
            process.kill()
            assert bytes(there.get(key)) == bytes(here.get(key))
            process.join()
        assert peers.files(1) == [f"cached.{key.name}"]

    def test_copies_are_bounded(self):
        peers = Peers(cache=5 * MIB)
        here, there = peers.connect(0), peers.connect(1)
        keys = [here.put(bytes([i]) * (2 * MIB)) for i in range(4)]
        for key in [keys[0], keys[1], keys[0], keys[2]]:
            assert bytes(there.get(key)) == bytes(here.get(key))
            time.sleep(0.02)
        # The one that was used longest ago has gone.
        kept = sorted(f"cached.{keys[i].name}" for i in (0, 2))
        assert peers.files(1) == kept
        large = here.put(bytes(6 * MIB))
        assert bytes(there.get(large)) == bytes(6 * MIB)
        assert not any(large.name in name for name in peers.files(1))
        peers.close()


def _read(settings, config, key):
    with dask.config.set(settings):
        connector = PeerConnector.from_config(config)
        try:
            return bytes(connector.get(key))
        finally:
            connector.close()


def _put_and_wait(settings, config, pipe):
    with dask.config.set(settings):
        connector = PeerConnector.from_config(config)
        pipe.send(connector.put(bytes(MIB)))
        time.sleep(100)


class TestServer:
    def test_it_outlives_the_process_that_started_it(self, peers, there):
        context = multiprocessing.get_context("spawn")
        mine, other = context.Pipe()
        process = context.Process(
            target=_put_and_wait, args=(peers.settings(0), peers.owner.config(), other)
        )
        process.start()
        key = mine.recv()
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        time.sleep(1.5)  # it looks whether it is needed
        assert bytes(there.get(key)) == bytes(MIB)
        peers.owner.evict(key)
        assert eventually(lambda: not os.listdir(peers.directories[0]))
        assert not peers.servers(0)

    def test_a_killed_one_is_replaced_at_the_same_address(self, peers, here, there):
        key = here.put(bytes(MIB))
        [server] = peers.servers(0)
        os.kill(server, signal.SIGKILL)
        assert eventually(lambda: peers.servers(0) not in ([], [server]))
        assert bytes(there.get(key)) == bytes(MIB)
        assert here.put(b"x").origin == key.origin
        peers.owner.evict(key)  # the new one takes orders
        assert eventually(lambda: not here.exists(key))

    def test_also_if_its_host_is_given_by_name(self, peers, monkeypatch):
        monkeypatch.setattr("peers.ADDRESSES", ("localhost", *ADDRESSES[1:]))
        here = peers.connect(0)
        key = here.put(b"x")
        [server] = peers.servers(0)
        os.kill(server, signal.SIGKILL)
        assert eventually(lambda: peers.servers(0) not in ([], [server]))
        assert here.put(b"y").origin == key.origin

    def test_orders_wait_for_it(self, peers, here):
        key = here.put(bytes(MIB))
        [server] = peers.servers(0)
        assert eventually(lambda: peers.owner._owner._hosts)
        os.kill(server, signal.SIGSTOP)
        peers.owner.evict(key)
        os.kill(server, signal.SIGKILL)
        assert eventually(lambda: not here.exists(key))

    def test_it_ends_without_an_owner_and_users(self):
        peers = Peers(lease=1)
        context = multiprocessing.get_context("spawn")
        mine, other = context.Pipe()
        config = peers.owner.config()
        # An owner that was killed says nothing.
        registry = ("127.0.0.1", 1)
        config = {"settings": config["settings"]._replace(registry=registry)}
        process = context.Process(
            target=_put_and_wait, args=(peers.settings(0), config, other)
        )
        process.start()
        mine.recv()
        time.sleep(2.5)
        assert len(peers.servers(0)) == 1  # it has a user
        process.kill()
        process.join()
        assert eventually(lambda: not os.listdir(peers.directories[0]))
        peers.close()

    def test_closing_the_store_ends_it_at_once(self, peers, here, there):
        here.put(bytes(MIB))
        there.put(bytes(MIB))
        assert eventually(lambda: len(peers.owner._owner._hosts) == 2)
        peers.owner.close()
        assert not os.listdir(peers.directories[0])
        assert not os.listdir(peers.directories[1])
        assert eventually(lambda: not peers.servers(0) + peers.servers(1))
        with pytest.raises(OSError, match="No such file"):
            here.put(b"x")

    def test_one_for_each_host(self, peers, here):
        others = [peers.connect(0) for _ in range(3)]
        assert len({c.put(b"x").origin for c in [here, *others]}) == 1
        assert len(peers.servers(0)) == 1

    def test_it_is_small_and_listens_on_one_address(self, peers, here):
        key = here.put(b"x")
        [pid] = peers.servers(0)
        process = psutil.Process(pid)
        assert eventually(process.net_connections)
        listening = [
            c.laddr for c in process.net_connections() if c.status == psutil.CONN_LISTEN
        ]
        assert listening == [key.origin]
        assert eventually(lambda: process.memory_info().rss > 5 * MIB)
        assert process.memory_info().rss < 40 * MIB


class TestWhoMayComeIn:
    def test_the_key_is_shown_nowhere(self, peers, here):
        here.put(b"x")
        [pid] = peers.servers(0)
        key = peers.owner._settings.secret.value
        private = peers.tls.key.splitlines()[1] if peers.tls else "PRIVATE KEY"
        shown = [repr(peers.owner), str(peers.owner.config()), repr(here)]
        for name in "cmdline", "environ":
            with open(f"/proc/{pid}/{name}", "rb") as f:
                shown.append(f.read().decode("latin1"))
        for directory, _, names in os.walk(peers.directories[0]):
            for name in names:
                with open(os.path.join(directory, name), "rb") as f:
                    shown.append(f.read().decode("latin1"))
        for text in shown:
            assert key.hex() not in text
            assert private not in text
            assert key.decode("latin1") not in text

    def test_another_key_is_refused(self, peers, here):
        key = here.put(b"x")
        with pytest.raises(ConnectionError):
            connect(key.origin, Keys(secrets.token_bytes(32), peers.tls))
        other = peers.connect(
            1,
            {
                "settings": peers.owner._settings._replace(
                    token="other", secret=new_key()
                )
            },
        )
        with pytest.raises(OSError, match=r"closed|reset|key"):
            other.get(key)
        with pytest.raises(OSError, match=r"closed|reset|key"):
            other.evict(key)
        assert here.exists(key)

    def test_a_server_without_the_key_is_refused(self):
        with listen("127.0.0.1") as impostor:
            greeting = peer_protocol._GREETING
            mine = Keys(secrets.token_bytes(32))

            def answer():
                sock, _ = impostor.accept()
                with sock:
                    sock.sendall(greeting + bytes(32))
                    theirs = sock.recv(64)
                    # What it could have seen elsewhere, or made up.
                    sock.sendall(theirs[32:])

            thread = threading.Thread(target=answer)
            thread.start()
            with pytest.raises(RefusedError):
                connect(impostor.getsockname(), mine)
            thread.join()

    def test_nothing_is_read_without_the_key(self, here, encrypted):
        key = here.put(b"secret bytes")
        for said in (b"", b"GET / HTTP/1.1\r\n\r\n" + bytes(100), bytes(64)):
            with socket.create_connection(key.origin, timeout=PATIENCE) as sock:
                sock.sendall(said)
                if not said:
                    sock.shutdown(socket.SHUT_WR)
                received = b""
                try:
                    while data := sock.recv(1000):
                        received += data
                except ConnectionResetError:
                    pass
            if encrypted:
                # At most that this is no TLS.
                assert len(received) < 10
            else:
                assert len(received) == len(peer_protocol._GREETING) + 32
        assert here.exists(key)

    def test_a_recorded_connection_cannot_be_repeated(self, here, there, encrypted):
        key = here.put(b"x")
        with between(key.origin) as network:
            direct = key._replace(host="127.0.0.1", port=network.port)
            there.evict(direct)
        key = here.put(b"y")
        with socket.create_connection(key.origin, timeout=PATIENCE) as sock:
            sock.sendall(bytes(network.requests))
            # TLS answers before it knows.
            with pytest.raises(ConnectionError):
                peer_protocol.receive_exactly(sock, 10_000 if encrypted else 100)
        assert here.exists(key)

    @pytest.mark.parametrize("at", [70_000, -40, -5])
    def test_changed_bytes_are_refused(self, peers, here, there, at, encrypted):
        key = here.put(secrets.token_bytes(100_000))
        total = []

        def flip(sent, data):
            # Handshake and answer, the object, and its seal.
            position = at if at > 0 else length + at
            if sent <= position < sent + len(data):
                i = position - sent
                data = data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :]
            total.append(len(data))
            return data

        with between(key.origin) as network:
            there.exists(key._replace(host="127.0.0.1", port=network.port))
            there.get(key._replace(host="127.0.0.1", port=network.port))
            # Of one connection: without what "exists" had answered.
            answer = 4 + 32 + len('{"found":true}') + 22 * encrypted
            length = network.sent - answer
        there._here().cache.evict(key.name)
        with between(key.origin, flip) as network:
            changed = key._replace(host="127.0.0.1", port=network.port)
            with pytest.raises(ssl.SSLError if encrypted else DamagedError):
                there.get(changed)
        assert peers.files(1) == []
        assert bytes(there.get(key)) == bytes(here.get(key))

    @pytest.mark.parametrize("encrypted", [False], indirect=True)
    def test_changed_messages_are_refused(self, here, there):
        key = here.put(bytes(10))
        handshake = len(peer_protocol._GREETING) + 32 + 32

        def say_no(sent, data):
            return data.replace(b"true", b"fals")

        with between(key.origin, say_no) as network:
            changed = key._replace(host="127.0.0.1", port=network.port)
            with pytest.raises(RefusedError, match="not from the other end"):
                there.exists(changed)
            assert network.sent > handshake

    def test_a_cut_connection_is_no_object(self, peers, here, there, monkeypatch):
        monkeypatch.setattr(ways, "PATIENCE_SECONDS", 1.0)
        key = here.put(bytes(4 * MIB))
        with between(
            key.origin, lambda sent, data: None if sent > 10_000 else data
        ) as network:
            cut = key._replace(host="127.0.0.1", port=network.port)
            with pytest.raises(ConnectionError):
                there.get(cut)
        assert peers.files(1) == []
        assert bytes(there.get(key)) == bytes(4 * MIB)

    def test_an_object_in_the_place_of_another_is_refused(self, here, there):
        one, two = here.put(b"one"), here.put(b"two")
        directory = here._here().segments.directories[0]
        with between(one.origin) as network:
            there.get(one._replace(host="127.0.0.1", port=network.port))
        # The server, too, would have to say that it is another one: the name is sealed.
        keys = Keys(here._settings.secret.value)
        assert keys.seal(one.name, 3, 0).digest() != keys.seal(two.name, 3, 0).digest()
        assert os.path.exists(os.path.join(directory, one.name))

    @pytest.mark.parametrize("name", ["owner.lock", "../../x", "/etc/passwd", ""])
    def test_nothing_but_objects_is_given_or_deleted(self, here, there, name):
        key = here.put(b"x")._replace(name=name, nbytes=0)
        assert not there._ways.has(key)
        there._ways.evict(key)
        directory = here._here().segments.directories[0]
        assert os.path.exists(os.path.join(directory, "owner.lock"))

    def test_a_symbolic_link_is_not_followed(self, here, there, tmp_path):
        key = here.put(b"x")
        directory = here._here().segments.directories[0]
        target = tmp_path / "private"
        target.write_bytes(b"y")
        os.unlink(os.path.join(directory, key.name))
        os.symlink(target, os.path.join(directory, key.name))
        with pytest.raises(OSError, match=r"symbolic|closed"):
            there.get(key)

    def test_a_directory_of_somebody_else_is_refused(self, peers, tmp_path):
        token = peers.owner._settings.token
        place = SharedDirectory.path_of(peers.directories[0], token)
        for make in (
            lambda: os.symlink(tmp_path, place),
            lambda: os.mkdir(place, 0o755),
        ):
            make()
            with pytest.raises(PermissionError):
                peers.connect(0)
            (os.unlink if os.path.islink(place) else os.rmdir)(place)

    @pytest.mark.parametrize("host", ["", "0.0.0.0", "::"])
    def test_no_port_is_opened_on_all_interfaces(self, host):
        with pytest.raises(ValueError, match="every interface"):
            listen(host)


def test_keys_are_small_when_pickled(here):
    key = here.put(b"x")
    assert len(pickle.dumps(key)) < 200


def test_a_peer_url_names_nothing():
    for url in ("peer://host", "peer:///directory"):
        with pytest.raises(ConfigError, match="takes no address"):
            daskps.open_store(url)
    assert peer.options(urlsplit("peer://"))["lease"] == 600


def test_a_scheduler_address_of_another_host_is_an_error():
    with pytest.raises(ConfigError, match=r"cannot take connections at 192\.0\.2\.1"):
        peer.make(
            urlsplit("peer://"), {"host": "192.0.2.1", "lease": 1, "host_cache": 0}
        )


def test_a_server_that_comes_while_the_store_is_closed():
    keys = Keys(new_key().value)
    registry = PeerRegistry("127.0.0.1", keys, 600.0)
    channel = connect(registry.address, keys)
    registry.close()
    channel.send({"address": ["127.0.0.1", 1]})
    assert channel.receive() == {"op": "close"}
    channel.close()


def test_what_a_process_left_is_deleted_now_or_not_at_all():
    """It may have come back under the same name, and have stored something else."""
    keys = Keys(new_key().value)
    registry = PeerRegistry("127.0.0.1", keys, 600.0)
    address = ("127.0.0.1", 1)
    channel = connect(registry.address, keys)
    channel.send({"address": address})
    assert eventually(lambda: registry._hosts)
    registry.evict_orphans("me", [])
    assert channel.receive()["op"] == "orphans"
    channel.close()  # before it has answered
    assert eventually(lambda: registry._hosts[address].connection is None)
    registry.evict_orphans("me", [])
    registry.evict("me.object", address)
    channel = connect(registry.address, keys)
    channel.send({"address": address})
    assert channel.receive() == {"op": "evict", "names": ["me.object"]}
    channel.close()
    registry.close()


def echo(channel):
    channel.send(channel.receive())


@pytest.fixture(params=[False])
def listening(request, authority):
    """The address of something that listens, its keys, and the listener."""
    keys = Keys(new_key().value, authority.tls() if request.param else None)
    sock = listen("127.0.0.1")
    address = sock.getsockname()[:2]
    listener = Listener(sock, keys, echo)
    yield address, keys, listener
    listener.close()


@contextlib.contextmanager
def idle_connections(address, n):
    """Of somebody who says nothing."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection(address, PATIENCE))
            for _ in range(n)
        ]


PLAIN_AND_TLS = pytest.mark.parametrize(
    "listening", [False, True], ids=["plain", "tls"], indirect=True
)


@PLAIN_AND_TLS
def test_eight_hundred_who_say_nothing_keep_nobody_out(listening):
    address, keys, _ = listening
    threads = threading.active_count()
    with idle_connections(address, 800):
        since = time.monotonic()
        channel = connect(address, keys)
        assert channel.request({"op": "echo"}) == {"op": "echo"}
        # Before, in the order in which they came: 64 every five seconds.
        assert time.monotonic() - since < 20
        assert threading.active_count() <= threads + 1
        channel.close()


class Handshake:
    """The client's side of TLS, whose bytes the test sends itself."""

    def __init__(self, tls):
        self._came, self._goes = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = tls.connecting.wrap_bio(self._came, self._goes)

    def answer(self, said=b""):
        """What is to be sent, given what has come."""
        self._came.write(said)
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
        return self._goes.read()


@pytest.mark.parametrize("listening", [True], ids=["tls"], indirect=True)
def test_a_handshake_that_comes_in_pieces(listening, authority):
    """Nobody waits for it, and it is dropped in a second."""
    address, keys, listener = listening
    handshake = Handshake(authority.tls())
    hello = handshake.answer()
    with socket.create_connection(address, PATIENCE) as sock:
        since = time.monotonic()
        for at in (slice(0, 3), slice(3, 100), slice(100, None)):
            sock.sendall(hello[at])
            time.sleep(0.02)
        assert sock.recv(1)
        channel = connect(address, keys)
        assert channel.request({"op": "echo"}) == {"op": "echo"}
        channel.close()
        sock.settimeout(PATIENCE)
        with contextlib.suppress(ConnectionError):
            while sock.recv(10_000):
                pass
        assert time.monotonic() - since > 0.5
        assert eventually(lambda: not listener._unproved)


@pytest.mark.parametrize("listening", [True], ids=["tls"], indirect=True)
@pytest.mark.parametrize("who", ["plain", "another authority's", "none", "no key"])
def test_who_does_not_get_in_with_tls(listening, authority, who, monkeypatch):
    monkeypatch.setattr(peer_protocol, "CONNECT_ATTEMPTS", 1)
    address, keys, _ = listening
    mine = copy.copy(keys)
    if who == "plain":
        mine.tls = None
    elif who == "another authority's":
        mine.tls = Authority().tls()
    elif who == "none":
        context = ssl.create_default_context(cadata=authority.certificate)
        context.check_hostname = False
        mine.tls = SimpleNamespace(connecting=context)
    else:
        mine = Keys(secrets.token_bytes(32), authority.tls())
    with pytest.raises(ConnectionError):
        connect(address, mine)
    channel = connect(address, keys)
    assert channel.request({"op": "echo"}) == {"op": "echo"}
    channel.close()


def test_a_server_of_another_authority_is_refused(authority, monkeypatch):
    """It gets no answer, although it has the key."""
    key = new_key().value
    sock = listen("127.0.0.1")
    listener = Listener(sock, Keys(key, Authority().tls()), echo)
    with pytest.raises(RefusedError, match=r"no TLS with .*self-signed certificate"):
        connect(sock.getsockname(), Keys(key, authority.tls()))
    listener.close()


def test_a_listener_is_closed_while_it_is_busy():
    """Its thread sees that before it is woken."""

    class Slow(socket.socket):
        def shutdown(self, how):
            with socket.create_connection(self.getsockname()):
                time.sleep(0.3)
            super().shutdown(how)

    sock = listen("127.0.0.1")
    slow = Slow(fileno=sock.detach())
    listener = Listener(slow, Keys(new_key().value, None), echo)
    listener.close()
    assert eventually(lambda: slow.fileno() == -1)


@pytest.mark.parametrize("encrypted", [True], indirect=True, ids=["tls"])
class TestCertificates:
    def test_what_is_sent_is_not_seen(self, here, there):
        data = secrets.token_bytes(MIB)
        key = here.put(data)
        sent = bytearray()

        def look(_, data):
            sent.extend(data)
            return data

        with between(key.origin, look) as network:
            seen = key._replace(host="127.0.0.1", port=network.port)
            assert bytes(there.get(seen)) == data
        assert len(sent) > len(data)
        assert not any(data[i : i + 64] in sent for i in range(0, MIB, MIB // 50))
        assert key.name.encode() not in network.requests

    def test_a_process_without_any_does_not_open_the_store(self, peers):
        with pytest.raises(ConfigError, match=r"no authority and certificate.*client"):
            PeerConnector.from_config(peers.owner.config())

    def test_those_of_another_authority_open_nothing(self, peers, here, authority):
        key = here.put(b"x")
        settings = {**peers.settings(1), **authority.settings(peers.certificates)}
        with dask.config.set(settings):
            other = PeerConnector.from_config(peers.owner.config())
            with pytest.raises(RefusedError, match="no TLS with"):
                other.get(key)
            other.close()

    def test_a_server_takes_many_authorities(self, peers, monkeypatch):
        """More than a pipe holds."""
        [path] = [v for k, v in peers.settings(0).items() if k.endswith("ca-file")]
        with open(path, "a") as file:
            for _ in range(150):
                file.write("# \u00e9\n" + Authority().certificate)
        assert os.path.getsize(path) > 1 << 16
        here, there = peers.connect(0), peers.connect(1)
        assert bytes(there.get(here.put(b"x"))) == b"x"


def test_who_says_nothing_is_dropped_in_a_second(listening):
    address, _, listener = listening
    greeting = len(peer_protocol._GREETING) + 32
    with idle_connections(address, 3) as [_, half, _]:
        half.sendall(bytes(63))  # all but the last byte
        since = time.monotonic()
        assert len(peer_protocol.receive_exactly(half, greeting)) == greeting
        with pytest.raises(ConnectionError):
            peer_protocol.receive_exactly(half, 1, PATIENCE)
        assert time.monotonic() - since > 0.5
        assert eventually(lambda: not listener._unproved)


@PLAIN_AND_TLS
def test_a_burst_of_readers_is_served(listening):
    """None of those who prove it in time is dropped for the ones after it."""
    address, keys, _ = listening
    # TLS takes ten times as long.
    n = 300 if keys.tls is None else 100
    with ThreadPoolExecutor(n // 2) as pool:
        channels = list(pool.map(lambda _: connect(address, keys), range(n)))
    for channel in channels:
        channel.close()


def test_a_proof_that_comes_in_pieces(listening):
    address, keys, _ = listening
    with socket.create_connection(address, PATIENCE) as sock:
        greeting = peer_protocol._GREETING
        theirs = peer_protocol.receive_exactly(sock, len(greeting) + 32)
        mine = secrets.token_bytes(32)
        nonces = theirs[len(greeting) :] + mine
        said = mine + keys.proof(b"initiator", nonces)
        for at in (slice(0, 10), slice(10, 40), slice(40, 64)):
            sock.sendall(said[at])
            time.sleep(0.02)
        answer = peer_protocol.receive_exactly(sock, 32)
        assert answer == keys.proof(b"acceptor", nonces)


@PLAIN_AND_TLS
def test_who_is_slow_on_a_busy_host_connects_again(listening, monkeypatch):
    address, keys, _ = listening
    introduce, attempts = peer_protocol._introduce, []

    def slow(sock, *args):
        if not attempts:
            time.sleep(2 * peer_protocol.PROOF_SECONDS)
        attempts.append(sock)
        return introduce(sock, *args)

    monkeypatch.setattr(peer_protocol, "_introduce", slow)
    channel = connect(address, keys)
    assert channel.request({"op": "echo"}) == {"op": "echo"}
    assert len(attempts) == 2
    channel.close()


def test_a_closed_listener_takes_nobody(listening):
    address, keys, listener = listening
    unproved = socket.create_connection(address, PATIENCE)
    assert eventually(lambda: listener._unproved)
    listener.close()
    assert peer_protocol.receive_exactly(unproved, 10)
    with pytest.raises(ConnectionError):
        connect(address, keys)
    with pytest.raises(ConnectionError):
        peer_protocol.receive_exactly(unproved, 1000, PATIENCE)
    unproved.close()


def test_a_connection_for_which_there_is_no_thread(monkeypatch):
    keys = Keys(new_key().value)
    sock = listen("127.0.0.1")
    address = sock.getsockname()[:2]
    listener = Listener(sock, keys, echo)
    start = listener._start

    def refused(*args):
        monkeypatch.setattr(listener, "_start", start)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(listener, "_start", refused)
    with pytest.raises(ConnectionError):
        connect(address, keys)
    channel = connect(address, keys)
    assert channel.request({"op": "echo"}) == {"op": "echo"}
    channel.close()
    listener.close()


def test_a_server_ends_when_it_has_deleted_what_it_had(tmp_path, monkeypatch):
    keys = Keys(new_key().value)
    registry = PeerRegistry("127.0.0.1", keys, 600.0)
    user = SharedDirectory(str(tmp_path), "token")
    directory = SharedDirectory(str(tmp_path), "token", is_user=False)
    plain = shutil.rmtree

    def slowly(*args, **kwargs):
        time.sleep(2 * LOOK_SECONDS)
        plain(*args, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", slowly)
    owner = Owner(registry.address, 600.0)
    server = PeerServer(listen("127.0.0.1"), keys, [directory], owner, 0)
    thread = threading.Thread(target=server.run)
    thread.start()
    assert eventually(lambda: registry._hosts)
    closing = threading.Thread(target=registry.close)
    closing.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert not os.listdir(tmp_path)
    closing.join()
    user.close()
