"""``zmq://``: who is let in, and what happens when a producer goes."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import socketserver
import threading
import time

import dask.array as da
import numpy as np
import psutil
import pytest
import zmq
from distributed import wait
from processes import PATIENCE, ProcessCluster, eventually, released
from proxystore.serialize import serialize
from proxystore_ex.connectors.dim.models import RPC, DIMKey

import daskps
from daskps.client.link import ClusterLink
from daskps.stores.interfaces import local_host
from daskps.stores.secret import new_key
from daskps.stores.zmq import connector as zmq_connector
from daskps.stores.zmq.connector import ZmqConnector
from daskps.stores.zmq.wire import Keys, pack_request

X = np.arange(1 << 18, dtype="f8").reshape(512, 512)  # 2 MiB


@pytest.fixture
def secret():
    return new_key()


@pytest.fixture
def connector(secret):
    connector = ZmqConnector(secret, "127.0.0.1")
    yield connector
    connector.close()


@pytest.fixture
def other(secret, connector):
    """The same store, as another process has it."""
    other = ZmqConnector.from_config(connector.config())
    yield other
    other.close()


@pytest.fixture
def dial(connector):
    """Connects to the server as anybody can, with these keys, or without."""
    context = zmq.Context()

    def dial(client=None, server=None, kind=zmq.REQ):
        socket = context.socket(kind)
        socket.linger = 0
        socket.rcvtimeo = socket.sndtimeo = 500
        if server:
            socket.curve_serverkey = server
            socket.curve_publickey, socket.curve_secretkey = client
        socket.connect(f"tcp://127.0.0.1:{port(connector)}")
        return socket

    yield dial
    context.destroy(linger=0)


def port(connector):
    return connector._here.server.port


def objects(connector):
    return connector._here.server._objects.data


class Bomb:
    """Goes off when it is unpickled."""

    def __reduce__(self):
        return print, ("unpickled",)


class Web(socketserver.BaseRequestHandler):
    """Another server."""

    def handle(self):
        self.request.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(100))


def ask(socket, message):
    socket.send(message)
    return socket.recv()


class TestWhoIsLetIn:
    def test_it_listens_on_one_interface_alone(self, connector):
        listening = {
            c.laddr
            for c in psutil.Process().net_connections("tcp")
            if c.status == psutil.CONN_LISTEN
        }
        assert [a.ip for a in listening if a.port == port(connector)] == ["127.0.0.1"]

    def test_the_interface_is_the_one_that_leads_there(self):
        assert local_host(("127.0.0.5", 1)).startswith("127.")
        assert local_host(("::1", 1)) == "::1"

    def test_each_has_a_port_of_its_own(self, connector, other):
        assert port(connector) != port(other)

    @pytest.mark.parametrize("keys", ["none", "another cluster's", "its own"])
    def test_nobody_without_the_key(self, connector, other, dial, keys, capfd):
        """Not even who has found out the server's public key."""
        key = connector.put(b"secret")
        mine = zmq.curve_keypair()
        server = {
            "none": None,
            "another cluster's": Keys(new_key().value).server.public,
            "its own": connector._keys.server.public,
        }[keys]
        for message in (
            pack_request(RPC("get", key)),
            pack_request(RPC("evict", key)),
            serialize(RPC("evict", key)),  # as ProxyStore sends it
            pickle.dumps(Bomb()),
            b"ping",
        ):
            with pytest.raises(zmq.Again):
                ask(dial(mine, server), message)
        assert bytes(other.get(key)) == b"secret"
        assert "unpickled" not in capfd.readouterr().out

    def test_what_is_no_request(self, connector, other, dial, secret, capfd):
        """The server says so, and goes on."""
        keys = Keys(secret.value)
        key = connector.put(b"abc")
        forged = DIMKey("zmq", "forged", 1, "127.0.0.1", 1)
        for parts in (
            [b"not json"],
            [b"[1, 2]"],
            [b"{}"],
            [pickle.dumps(Bomb())],
            [pack_request(RPC("get", key)), b"more"],
            [pack_request(RPC("put", forged)), b"data"],
            [pack_request(RPC("put", forged))],
        ):
            socket = dial(keys.client, keys.server.public)
            socket.rcvtimeo = socket.sndtimeo = 20_000
            socket.send_multipart(parts)
            assert b'"error": "' in socket.recv()
        assert "forged" not in objects(connector)
        assert bytes(other.get(key)) == b"abc"
        assert "unpickled" not in capfd.readouterr().out

    def test_somebody_else_answers(self, connector, monkeypatch):
        """A server without the key is not listened to."""
        monkeypatch.setattr(zmq_connector, "TIMEOUT", 0.5)
        context = zmq.Context()
        fake = context.socket(zmq.REP)
        fake.curve_server = True
        fake.curve_publickey, fake.curve_secretkey = zmq.curve_keypair()
        fake.rcvtimeo = 0
        key = connector.put(b"abc")
        key = key._replace(peer_port=fake.bind_to_random_port("tcp://127.0.0.1"))
        with pytest.raises(TimeoutError):
            connector.get(key)
        with pytest.raises(zmq.Again):
            fake.recv()
        context.destroy(linger=0)

    def test_something_else_has_the_port(self, connector, monkeypatch):
        monkeypatch.setattr(zmq_connector, "TIMEOUT", 0.5)
        key = connector.put(b"abc")
        with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Web) as server:
            threading.Thread(target=server.serve_forever).start()
            key = key._replace(peer_port=server.server_address[1])
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    connector.get(key)
            server.shutdown()

    def test_the_key_does_not_show(self, connector, secret):
        shown = repr(connector) + repr(connector.config()) + repr(connector._keys)
        assert repr(secret.value)[2:-1] not in shown
        assert connector._keys.client.secret.decode() not in shown


class TestAProducerThatIsGone:
    def test_takes_its_objects_with_it(self, connector, other):
        key = other.put(b"abc")
        assert bytes(connector.get(key)) == b"abc"
        other.close()
        start = time.monotonic()
        assert connector.get(key) is None
        assert not connector.exists(key)
        connector.evict(key)
        assert time.monotonic() - start < PATIENCE

    def test_also_if_it_is_killed(self, connector):
        context = multiprocessing.get_context("spawn")
        parent, child = context.Pipe()
        process = context.Process(target=produce, args=(connector.config(), child))
        process.start()
        key = parent.recv()
        assert bytes(connector.get(key)) == bytes(3_000_000)
        process.kill()
        process.join()
        assert connector.get(key) is None
        assert not connector.exists(key)
        connector.evict(key)

    def test_while_it_is_stopped(self, connector, monkeypatch):
        monkeypatch.setattr(zmq_connector, "TIMEOUT", 0.5)
        context = multiprocessing.get_context("spawn")
        parent, child = context.Pipe()
        process = context.Process(target=produce, args=(connector.config(), child))
        process.start()
        try:
            key = parent.recv()
            psutil.Process(process.pid).suspend()
            with pytest.raises(TimeoutError, match=f":{key.peer_port} did not answer"):
                connector.get(key)
            psutil.Process(process.pid).resume()
            monkeypatch.setattr(zmq_connector, "TIMEOUT", 20)
            assert bytes(connector.get(key)) == bytes(3_000_000)
        finally:
            process.kill()
            process.join()


def produce(config, pipe):
    connector = ZmqConnector.from_config(config)
    pipe.send(connector.put(bytes(3_000_000)))
    signal.pause()


def test_a_closed_zmq_store_leaves_nothing_open(secret):
    def open_and_close():
        one = ZmqConnector(secret, "127.0.0.1")
        two = ZmqConnector(secret, "127.0.0.1")
        one.get(two.put(b"abc"))
        one.close()
        two.close()
        one.close()

    open_and_close()  # what is opened once
    process = psutil.Process()
    before = process.num_fds(), process.num_threads()
    for _ in range(5):
        open_and_close()
    after = process.num_fds(), process.num_threads()
    assert after[0] <= before[0] + 1
    assert after[1] <= before[1] + 1


def test_a_program_on_a_zmq_store_survives_a_worker():
    """On a cluster of real processes, of which one is lost."""
    with ProcessCluster() as cluster, cluster.client() as client:
        with daskps.proxy_graph(store="zmq://"):
            x = da.from_array(X, chunks=(256, 512))
            np.testing.assert_array_equal((x @ x.T).compute(), X @ X.T)
            future = client.submit(np.add, X, 1)
            np.testing.assert_array_equal(future.result(), X + 1)
            (catalog,) = ClusterLink.of(client)._catalogs.values()
            stored = objects(catalog.store.connector._connector._connector)
            assert stored, "the data stays with its producer"

            kept = client.persist(x + 1)
            wait(kept)
            cluster.workers[0].kill()
            cluster.workers[0].wait()
            np.testing.assert_array_equal(kept.compute(), X + 1)
            del kept, future, x
        assert released(client)
        assert eventually(lambda: not stored)
