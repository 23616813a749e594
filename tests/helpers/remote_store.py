"""A store on the other side of a network that can be cut, for tests."""

from __future__ import annotations

import pickle
import secrets
import socket
import socketserver
import threading
from typing import Any, NamedTuple


class RemoteKey(NamedTuple):
    """Names an object."""

    name: str


class RemoteStore:
    """A server of objects, in threads of this process.

    Attributes
    ----------
    objects
        What it holds, by name.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self._connected = threading.Event()
        self._connected.set()
        self._refuses = False
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.05])
        self._thread.start()

    def connector(self, timeout: float | None = 2.0) -> RemoteConnector:
        """What reaches it; without a timeout it waits for ever."""
        return RemoteConnector(*self._server.server_address, timeout=timeout)

    def cut(self, how: str) -> None:
        """Cut the network.

        Parameters
        ----------
        how
            ``"refused"``: connections are reset, and new ones are refused. ``"silent"``:
            nothing comes through any more, and nobody is told.
        """
        self._refuses = how == "refused"
        self._connected.clear()
        if self._refuses:
            with self._lock:
                for connection in self._connections:
                    connection.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Let everything through again, also what has waited."""
        self._connected.set()

    def close(self) -> None:
        self.mend()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, connection: socket.socket) -> None:
        """Serve one request."""
        if self._refuses and not self._connected.is_set():
            return
        with self._lock:
            self._connections.add(connection)
        try:
            with connection.makefile("rwb") as stream:
                method, *arguments = pickle.load(stream)
                # On its way in and on its way out.
                self._connected.wait()
                if _is_closed(connection):
                    return  # as when it was lost, and not sent again
                answer = getattr(self, method)(*arguments)
                self._connected.wait()
                pickle.dump(answer, stream)
        except (OSError, EOFError):
            pass  # it was cut
        finally:
            with self._lock:
                self._connections.discard(connection)

    def put(self, data: bytes) -> str:
        name = "object-" + secrets.token_hex(8)
        self.objects[name] = data
        return name

    def get(self, name: str) -> bytes | None:
        return self.objects.get(name)

    def exists(self, name: str) -> bool:
        return name in self.objects

    def evict(self, name: str) -> None:
        self.objects.pop(name, None)


def _is_closed(connection: socket.socket) -> bool:
    """Whether the other side has given up."""
    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, store: RemoteStore):
        self.store = store
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.server.store.answer(self.request)


class RemoteConnector:
    """A ProxyStore connector to a :class:`RemoteStore`; a connection for each request."""

    def __init__(self, host: str, port: int, timeout: float | None):
        self._where = host, port
        self._timeout = timeout

    def _ask(self, *request: Any) -> Any:
        with (
            socket.create_connection(self._where, self._timeout) as connection,
            connection.makefile("rwb") as stream,
        ):
            pickle.dump(request, stream)
            stream.flush()
            return pickle.load(stream)

    def put(self, obj: bytes) -> RemoteKey:
        return RemoteKey(self._ask("put", bytes(obj)))

    def put_batch(self, objs: list[bytes]) -> list[RemoteKey]:
        return [self.put(obj) for obj in objs]

    def get(self, key: RemoteKey) -> bytes | None:
        return self._ask("get", key.name)

    def get_batch(self, keys: list[RemoteKey]) -> list[bytes | None]:
        return [self.get(key) for key in keys]

    def exists(self, key: RemoteKey) -> bool:
        return self._ask("exists", key.name)

    def evict(self, key: RemoteKey) -> None:
        self._ask("evict", key.name)

    def close(self) -> None:
        pass

    def config(self) -> dict[str, Any]:
        host, port = self._where
        return {"host": host, "port": port, "timeout": self._timeout}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> RemoteConnector:
        return cls(**config)
