"""Objects that stay in the process that stored them: the connector behind ``zmq://``.

ProxyStore's ``ZeroMQConnector`` with another way between processes. Its own one starts a
server on a fixed port, on whatever address the host's name resolves to, and the server
unpickles what anybody sends there; one socket serves all threads, which ZeroMQ forbids.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import zmq
from proxystore_ex.connectors.dim.models import RPC, DIMKey, RPCResponse
from proxystore_ex.connectors.dim.zmq import ZeroMQConnector

from daskps.serialize.frames import Frame, contiguous_parts
from daskps.stores.connectors.base import Serving, StoreConnector
from daskps.stores.interfaces import local_host
from daskps.stores.secret import Secret
from daskps.stores.zmq.server import ObjectServer, bracketed
from daskps.stores.zmq.wire import Keys, pack_request, unpack_answer

# Seconds: to reach a server; between two looks whether it is still there, and whether the
# store is closed; and for an answer, besides the time for its bytes at SLOWEST (bytes for
# each second).
CONNECT_TIMEOUT = 3.0
LOOK_EVERY = 2.0
CLOSED_EVERY = 0.1
TIMEOUT = 10.0
SLOWEST = 1e6

_forked: list[Any] = []


class ZmqConnector(ZeroMQConnector, StoreConnector[DIMKey]):
    """A ProxyStore ``Connector`` whose objects are in the memory of who stored them.

    Parameters
    ----------
    secret
        The cluster's key.
    towards
        A host of the cluster. This process serves its objects on the interface that leads
        there, and on no other.

    Notes
    -----
    Thread-safe. A forked process has no objects at first; it reads its parent's as any
    other process does.
    """

    def __init__(self, secret: Secret[bytes], towards: str):
        # Not super().__init__(), which starts ProxyStore's server.
        self._secret = secret
        self._towards = towards
        self._keys = Keys(secret.value)
        self._lock = threading.Lock()
        self.closed = threading.Event()
        self._here = self._open()

    def __repr__(self) -> str:
        return f"ZmqConnector({self._here.host}:{self._here.server.port})"

    def close(self, kill_server: bool = True) -> None:
        """Close the connector; the objects of this process go with it."""
        self.closed.set()
        self._here.close()

    def config(self) -> dict[str, Any]:
        """Arguments that make a connector of the same cluster, with its own server."""
        return {"secret": self._secret, "towards": self._towards}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ZmqConnector:
        """Make a connector from what :meth:`config` returned."""
        return cls(**config)

    def serving(self) -> Serving:
        """Itself: an object is read from the process that stored it."""
        return self

    def serves_at(self) -> tuple[str, int]:
        """Where this process serves its objects."""
        here = self._process()
        return here.host, here.server.port

    def registries(self) -> list[tuple[str, int]]:
        """None."""
        return []

    def try_connection(self, address: tuple[str, int], timeout: float) -> None:
        """Connect to another process.

        Raises
        ------
        OSError
            If it cannot be reached.
        """
        _look(address, timeout)

    def put(self, obj: Any) -> DIMKey:
        """Store the bytes of one object."""
        return self.put_frames([obj])

    def put_batch(self, objs: Sequence[Any]) -> list[DIMKey]:
        """Store several objects."""
        return [self.put(obj) for obj in objs]

    def put_frames(self, frames: Sequence[Frame], creator: str = "") -> DIMKey:
        """Store one object that is in several pieces. It does not leave this process."""
        here = self._process()
        data = b"".join(part for frame in frames for part in contiguous_parts(frame))
        name = f"{self._keys.mark}.{creator}.{secrets.token_urlsafe(16)}"
        key = DIMKey("zmq", name, len(data), here.host, here.server.port)
        self._send_rpcs([RPC("put", key, data)])
        return key

    def _send_rpcs(self, rpcs: Sequence[RPC]) -> list[RPCResponse]:
        # What ProxyStore's methods evict(), exists(), get() and get_batch() call.
        here = self._process()
        return [
            # Objects of other clusters do not exist for this one.
            here.ask(rpc)
            if rpc.key.obj_id.startswith(self._keys.mark)
            else _nothing(rpc)
            for rpc in rpcs
        ]

    def _open(self) -> _Process:
        here = _Process(local_host((self._towards, 1)), self._keys)
        # Also when the process ends: ZeroMQ waits for what is open then.
        weakref.finalize(self, here.close)
        return here

    def _process(self) -> _Process:
        with self._lock:
            if self._here.process != os.getpid():
                # Never to be collected here: its threads and sockets are the parent's.
                _forked.append(self._here)
                self._here = self._open()
            return self._here


class _Process:
    """What one process has open.

    Attributes
    ----------
    process
        Which one: it is of no use in a forked one.
    """

    def __init__(self, host: str, keys: Keys):
        self.process = os.getpid()
        self.host = host
        self._keys = keys
        self._context: zmq.Context[Any] = zmq.Context()
        self.server = ObjectServer(self._context, host, keys)
        #: Sockets that no thread uses now, by server.
        self._idle: dict[tuple[str, int], list[zmq.Socket[bytes]]] = {}
        self._lock = threading.Condition()
        self._in_use = 0
        self._closed = False

    def ask(self, rpc: RPC) -> RPCResponse:
        """Have the process that has the object do something with it.

        If that process is gone, so is the object.

        Raises
        ------
        OSError
            If it cannot be reached.
        """
        peer = rpc.key.peer_host, rpc.key.peer_port
        if self._closed:
            raise ConnectionError("this zmq:// store is closed")
        if peer == (self.host, self.server.port):
            response = self.server.handle(rpc)
            if response.exception is not None:
                raise response.exception
            return response
        try:
            with self._socket(peer) as connection:
                connection.send(pack_request(rpc))
                nbytes = rpc.key.size if rpc.operation == "get" else 0
                self._wait(connection, peer, nbytes)
                return unpack_answer(rpc, connection.recv_multipart(copy=False))
        except ConnectionRefusedError:
            return _nothing(rpc)
        except zmq.Again:
            # Something else has the port, and ZeroMQ has given up on it.
            raise _no_answer(peer) from None

    @contextlib.contextmanager
    def _socket(self, peer: tuple[str, int]) -> Iterator[zmq.Socket[bytes]]:
        """A connection for one request."""
        with self._lock:
            idle = self._idle.get(peer)
            connection = idle.pop() if idle else None
            self._in_use += 1
        keep = False
        try:
            connection = connection or self._connect(peer)
            yield connection
            keep = True
        finally:
            with self._lock:
                self._in_use -= 1
                if keep and connection is not None and not self._closed:
                    self._idle.setdefault(peer, []).append(connection)
                elif connection is not None:
                    # One that waits for an answer can be used for nothing else.
                    connection.close(linger=0)
                self._lock.notify_all()

    def _connect(self, peer: tuple[str, int]) -> zmq.Socket[bytes]:
        _look(peer)
        connection: zmq.Socket[bytes] = self._context.socket(zmq.REQ)
        connection.linger = 0
        connection.sndtimeo = round(1000 * TIMEOUT)
        connection.ipv6 = ":" in peer[0]
        connection.curve_publickey, connection.curve_secretkey = self._keys.client
        connection.curve_serverkey = self._keys.server.public
        connection.connect(f"tcp://{bracketed(peer[0])}:{peer[1]}")
        return connection

    def _wait(
        self, connection: zmq.Socket[bytes], peer: tuple[str, int], nbytes: int
    ) -> None:
        """Wait for an answer, as long as there is somebody who can give it."""
        now = time.monotonic()
        deadline, look = now + TIMEOUT + nbytes / SLOWEST, now + LOOK_EVERY
        while not connection.poll(round(1000 * CLOSED_EVERY)):
            now = time.monotonic()
            if self._closed:
                raise ConnectionError("this zmq:// store is closed")
            if now > deadline:
                raise _no_answer(peer)
            if now > look:
                _look(peer)
                look = now + LOOK_EVERY

    def close(self) -> None:
        """Close everything, once all requests have ended. Again: does nothing."""
        if os.getpid() != self.process:
            return  # it belongs to the process that this one was forked from
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._lock.wait_for(lambda: not self._in_use)
            for connection in (c for idle in self._idle.values() for c in idle):
                connection.close(linger=0)
        self.server.close()
        self._context.term()


def _nothing(rpc: RPC) -> RPCResponse:
    """What is answered for an object that is not there."""
    return RPCResponse(rpc.operation, rpc.key, exists=False)


def _no_answer(peer: tuple[str, int]) -> TimeoutError:
    return TimeoutError(f"{peer[0]}:{peer[1]} did not answer")


def _look(peer: tuple[str, int], timeout: float = CONNECT_TIMEOUT) -> None:
    """See whether a server is there: ZeroMQ itself would try for ever.

    Raises
    ------
    ConnectionRefusedError
        If its process is gone.
    OSError
        If its host cannot be reached.
    """
    socket.create_connection(peer, timeout).close()
