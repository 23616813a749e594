"""Gives out what this process has stored: the server of ``zmq://``.

The objects are in ProxyStore's ``ZeroMQServer``. ProxyStore runs that in a child process,
which is forked, listens to anybody, unpickles whatever arrives, and outlives a parent that
is killed. Here it is a thread: the data stays with its producer, and ends with it.
"""

from __future__ import annotations

import threading
from typing import Any

import zmq
from proxystore_ex.connectors.dim.models import RPC, RPCResponse
from proxystore_ex.connectors.dim.zmq import ZeroMQServer
from zmq.auth.thread import ThreadAuthenticator

from daskps.stores.zmq.wire import Keys, pack_answer, unpack_request

# Names our sockets for the authenticator.
DOMAIN = "daskps"


class ObjectServer:
    """Serves objects until it is closed.

    Parameters
    ----------
    context
        Of this process, used for this server and for clients.
    host
        The address of the interface to listen on.
    keys
        Only clients with the cluster's key are heard.

    Attributes
    ----------
    port
        One that was free.

    Notes
    -----
    :meth:`handle` is thread-safe.
    """

    port: int

    def __init__(self, context: zmq.Context[Any], host: str, keys: Keys):
        self._objects = ZeroMQServer()
        self._authenticator = ThreadAuthenticator(context)
        self._authenticator.start()
        self._authenticator.configure_curve_callback(
            DOMAIN, _OneKey(keys.client.public)
        )
        stop = f"inproc://{id(self)}"
        self._stop = context.socket(zmq.PAIR)
        self._stop.bind(stop)
        stopped = context.socket(zmq.PAIR)
        stopped.connect(stop)
        socket = context.socket(zmq.ROUTER)
        socket.linger = 0
        socket.ipv6 = ":" in host
        socket.curve_server = True
        socket.curve_publickey, socket.curve_secretkey = keys.server
        # Without an authenticator nobody is to be let in, rather than everybody.
        socket.zap_domain = DOMAIN.encode()
        socket.zap_enforce_domain = True
        self._thread = threading.Thread(
            target=self._run, args=(socket, stopped), name="daskps-zmq", daemon=True
        )
        try:
            self.port = socket.bind_to_random_port(f"tcp://{bracketed(host)}")
        except zmq.ZMQError:
            socket.close()
            stopped.close()
            self.close()
            raise
        self._thread.start()

    def handle(self, rpc: RPC) -> RPCResponse:
        """Do what this process itself, or another one, asks for."""
        return self._objects.handle_rpc(rpc)

    def close(self) -> None:
        """Serve nothing any more."""
        if self._thread.is_alive():
            self._stop.send(b"")
            self._thread.join()
        self._stop.close(linger=0)
        self._authenticator.stop()

    def _run(self, socket: zmq.Socket[bytes], stopped: zmq.Socket[bytes]) -> None:
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(stopped, zmq.POLLIN)
        with socket, stopped:
            while True:
                ready = dict(poller.poll())
                if stopped in ready:
                    return
                client, empty, *request = socket.recv_multipart()
                answer = self._answer(request)
                socket.send_multipart([client, empty, *answer], copy=False)

    def _answer(self, request: list[bytes]) -> list[Any]:
        try:
            (message,) = request
            response = self.handle(unpack_request(message))
        except (ValueError, TypeError) as e:
            response = RPCResponse("exists", key=None, exception=e)  # type: ignore[arg-type]
        return pack_answer(response)


class _OneKey:
    """Lets in those who have one key."""

    def __init__(self, public: bytes):
        self._public = public

    def callback(self, domain: str, key: bytes) -> bool:
        return key == self._public


def bracketed(host: str) -> str:
    """An address as it is in a URL."""
    return f"[{host}]" if ":" in host else host
