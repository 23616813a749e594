"""How the processes of a ``peer://`` store talk to each other over TCP.

Each end first proves that it knows the cluster's key: it sends a nonce, and answers the
other's with a keyed hash (BLAKE3) of both nonces and of its role. Nothing else is read
before. The key of the connection is made from the nonces as well. Each message then carries
a keyed hash of its bytes and its number, so that none can be forged, changed, left out,
sent twice, or sent on another connection or in the other direction. Messages are JSON:
nothing is unpickled.

Objects follow a message in chunks (:mod:`daskps.stores.peer.chunks`).

All of that is within TLS where Dask's own connections use it, with their certificates
(:mod:`daskps.tls`). Elsewhere nothing is encrypted.

Uses the standard library and BLAKE3 alone: the server imports it.
"""

from __future__ import annotations

import hmac
import json
import secrets
import selectors
import socket
import ssl
import time
from typing import Any, ClassVar, TypeAlias

from blake3 import blake3

from daskps.stores.interfaces import Address
from daskps.tls import Tls

Socket: TypeAlias = socket.socket

NONCE_NBYTES = 32
MAC_NBYTES = 32
SEAL_NBYTES = 32
# How long (seconds) who connects may take to prove that it has the key, and the other end
# to answer.
PROOF_SECONDS = 1.0
HANDSHAKE_SECONDS = 5.0
# Who was so slow (seconds), on a busy host, that the other end may have dropped him for
# others, connects again, so often at most. Less than listener.UNDISTURBED_SECONDS.
SLOW_SECONDS = 0.05
CONNECT_ATTEMPTS = 10
# How long (seconds) an end waits for the other to go on.
ANSWER_SECONDS = 10.0
MESSAGE_NBYTES_AT_MOST = 16 << 20

_GREETING = b"daskps peer 2\n"


class RefusedError(ConnectionError):
    """The other end does not have the cluster's key, or somebody is in between."""


class Keys:
    """What a process proves itself with.

    From the cluster's key, other keys are made for one use each.

    Parameters
    ----------
    key
        32 random bytes.
    tls
        The process's certificates; None: the cluster's connections do not use TLS.

    Attributes
    ----------
    tls
        The same.
    """

    tls: Tls | None
    _handshake: bytes
    _seal: bytes

    __slots__ = ("_handshake", "_seal", "tls")

    def __init__(self, key: bytes, tls: Tls | None = None):
        self.tls = tls
        self._handshake = blake3(b"handshake", key=key).digest()
        self._seal = blake3(b"seal", key=key).digest()

    def proof(self, role: bytes, nonces: bytes) -> bytes:
        """What an end in this role has to answer."""
        return blake3(role + nonces, key=self._handshake).digest()

    def seal(self, name: str, nbytes: int, start: int) -> Any:
        """A hash to be updated with a chunk's bytes, whose digest is its seal.

        Parameters
        ----------
        name, nbytes
            Of the object.
        start
            Where in it the chunk begins.
        """
        return blake3(f"{nbytes} {start} {name}\n".encode(), key=self._seal)


class Conversation:
    """Makes and checks the messages of a connection whose ends have the key.

    Not thread-safe.

    Parameters
    ----------
    key
        The connection's.
    initiator
        Whether this end has opened it.
    """

    #: Bytes before the body of a message.
    HEAD_NBYTES: ClassVar[int] = 4 + MAC_NBYTES

    def __init__(self, key: bytes, initiator: bool):
        self._key = key
        self._sent = self._received = 0
        self._roles = (b"i", b"a") if initiator else (b"a", b"i")

    def pack(self, message: dict[str, Any]) -> bytes:
        """The next message, as it is sent."""
        body = json.dumps(message, separators=(",", ":")).encode()
        mac = self._mac(self._roles[0], self._sent, body)
        self._sent += 1
        return len(body).to_bytes(4, "big") + mac + body

    def nbytes(self, head: bytes | bytearray) -> int:
        """How long the body is that follows.

        Raises
        ------
        RefusedError
            If it is too long.
        """
        nbytes = int.from_bytes(head[:4], "big")
        if nbytes > MESSAGE_NBYTES_AT_MOST:
            raise RefusedError("a message is too long")
        return nbytes

    def unpack(self, head: bytes | bytearray, body: bytes | bytearray) -> Any:
        """What the other end says.

        Raises
        ------
        RefusedError
            If it is not from the other end, or not the next message.
        """
        mac = self._mac(self._roles[1], self._received, body)
        if not hmac.compare_digest(mac, head[4:]):
            raise RefusedError("a message is not from the other end")
        self._received += 1
        return json.loads(body)

    def _mac(self, role: bytes, number: int, body: bytes | bytearray) -> bytes:
        return blake3(role + number.to_bytes(8, "big") + body, key=self._key).digest()


class Channel:
    """A connection whose ends have proved that they have the key.

    Not thread-safe. Any error leaves it unusable: close it.

    Attributes
    ----------
    socket
        For the bytes of objects, which come between messages.
    conversation
        For those who do not wait for messages.
    """

    socket: Socket
    conversation: Conversation

    def __init__(self, sock: Socket, key: bytes, initiator: bool):
        self.socket = sock
        self.conversation = Conversation(key, initiator)
        sock.settimeout(ANSWER_SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, message: dict[str, Any]) -> None:
        """Send a message."""
        self.socket.sendall(self.conversation.pack(message))

    def receive(self) -> dict[str, Any]:
        """Wait for a message.

        Raises
        ------
        RefusedError
            If it is not from the other end, or not the next one.
        ConnectionError, TimeoutError
            If none comes.
        """
        head = receive_exactly(self.socket, Conversation.HEAD_NBYTES)
        body = receive_exactly(self.socket, self.conversation.nbytes(head))
        message: dict[str, Any] = self.conversation.unpack(head, body)
        return message

    def request(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a message and wait for the answer."""
        self.socket.settimeout(ANSWER_SECONDS)
        self.send(message)
        return self.receive()

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()


def connect(address: Address, keys: Keys, timeout: float = ANSWER_SECONDS) -> Channel:
    """Open a connection, and have both ends prove that they have the key.

    Raises
    ------
    RefusedError
        If the other end does not have it, or one of the two does not accept the other's
        certificate.
    OSError
        If nobody is there.
    """
    deadline = time.monotonic() + timeout
    for attempt in range(CONNECT_ATTEMPTS):
        sock = socket.create_connection(address, timeout)
        connected = time.monotonic()
        try:
            if keys.tls is not None:
                sock = keys.tls.connecting.wrap_socket(
                    sock, do_handshake_on_connect=False
                )
            return _introduce(sock, address, keys)
        except BaseException as e:
            sock.close()
            slow = time.monotonic() > connected + SLOW_SECONDS
            last = attempt == CONNECT_ATTEMPTS - 1 or time.monotonic() > deadline
            # The other end may not have waited for the proof.
            dropped = isinstance(e, (ConnectionError, ssl.SSLEOFError))
            if last or not slow or not dropped:
                if isinstance(e, ssl.SSLError):
                    raise RefusedError(f"no TLS with {address}: {e}") from e
                raise
    raise AssertionError("the last attempt has returned or raised")


def _introduce(sock: socket.socket, address: Address, keys: Keys) -> Channel:
    """Prove that this end has the key, and check that the other one has it."""
    if isinstance(sock, ssl.SSLSocket):
        sock.settimeout(HANDSHAKE_SECONDS)
        sock.do_handshake()
    theirs = receive_exactly(sock, len(_GREETING) + NONCE_NBYTES, HANDSHAKE_SECONDS)
    if not theirs.startswith(_GREETING):
        raise RefusedError(f"no store of daskps answers at {address}")
    mine = secrets.token_bytes(NONCE_NBYTES)
    nonces = theirs[len(_GREETING) :] + mine
    sock.sendall(mine + keys.proof(b"initiator", nonces))
    try:
        answer = receive_exactly(sock, MAC_NBYTES, HANDSHAKE_SECONDS)
    except ConnectionError as e:
        why = "the other end does not accept our key, or is gone"
        raise RefusedError(why) from e
    _check(answer, keys.proof(b"acceptor", nonces))
    return Channel(sock, keys.proof(b"connection", nonces), True)


class Newcomer:
    """The other end of :func:`connect`: a connection that came in, and what it has said.

    Nothing here waits. The caller closes the socket if something is raised.

    Parameters
    ----------
    sock
        The connection.
    keys
        The cluster's.

    Attributes
    ----------
    since
        When it came in (``time.monotonic``).
    event
        For what of it to wait, as :mod:`selectors` has it.

    Raises
    ------
    OSError
        If it has gone again.
    """

    socket: Socket
    since: float
    event: int

    def __init__(self, sock: Socket, keys: Keys):
        self.since = time.monotonic()
        self.event = selectors.EVENT_READ
        self._keys = keys
        self._mine = secrets.token_bytes(NONCE_NBYTES)
        self._greeted = False
        self._said = b""
        sock.setblocking(False)
        self.socket = sock
        if keys.tls is None:
            self._greet()
        else:
            self.socket = keys.tls.listening.wrap_socket(
                sock, server_side=True, do_handshake_on_connect=False
            )

    def has_proved(self) -> bool:
        """Read what there is; whether it has proved by now that it has the key.

        Raises
        ------
        RefusedError
            If it does not have it.
        OSError
            If it has gone again.
        """
        self.event = selectors.EVENT_READ
        try:
            self._greet()
            while len(self._said) < NONCE_NBYTES + MAC_NBYTES:
                self._hear()
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except ssl.SSLWantWriteError:
            self.event = selectors.EVENT_WRITE
            return False
        except ssl.SSLEOFError as e:
            raise _closed() from e
        except ssl.SSLError as e:
            raise RefusedError(f"no TLS: {e}") from e
        _check(self._said[NONCE_NBYTES:], self._keys.proof(b"initiator", self._nonces))
        return True

    def _greet(self) -> None:
        if self._greeted:
            return
        if isinstance(self.socket, ssl.SSLSocket):
            self.socket.do_handshake()
        # There is room for so little.
        self.socket.send(_GREETING + self._mine)
        self._greeted = True

    def _hear(self) -> None:
        data = self.socket.recv(NONCE_NBYTES + MAC_NBYTES - len(self._said))
        if not data:
            raise _closed()
        self._said += data

    def channel(self) -> Channel:
        """Answer with our proof. May wait.

        Raises
        ------
        OSError
            If it has gone again.
        """
        self.socket.settimeout(HANDSHAKE_SECONDS)
        self.socket.sendall(self._keys.proof(b"acceptor", self._nonces))
        key = self._keys.proof(b"connection", self._nonces)
        return Channel(self.socket, key, False)

    @property
    def _nonces(self) -> bytes:
        return self._mine + self._said[:NONCE_NBYTES]


def _check(found: bytes, proof: bytes) -> None:
    if not hmac.compare_digest(found, proof):
        raise RefusedError("the other end does not have the key of this cluster")


def receive_exactly(
    sock: socket.socket, nbytes: int, timeout: float | None = None
) -> bytes:
    """This many bytes; the other end may take `timeout` seconds for all of them.

    None: as long as it goes on.
    """
    data = bytearray(nbytes)
    receive_into(sock, memoryview(data), timeout)
    return bytes(data)


def receive_into(
    sock: socket.socket, view: memoryview, timeout: float | None = None
) -> None:
    """Fill a buffer; see :func:`receive_exactly`."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while view:
        if deadline is not None:
            sock.settimeout(max(0.001, deadline - time.monotonic()))
        n = sock.recv_into(view)
        if not n:
            raise _closed()
        view = view[n:]


def _closed() -> ConnectionError:
    return ConnectionResetError("the other end has closed the connection")


def listen(host: str, port: int = 0) -> socket.socket:
    """A socket that takes connections on one interface of this host.

    Parameters
    ----------
    host
        The interface's address. Never all interfaces.
    port
        0: any that is free.
    """
    if host in ("", "0.0.0.0", "::"):
        raise ValueError(f"{host!r} is every interface of this host: name one")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Connections of a predecessor may linger on the same port.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(1024)
    except BaseException:
        sock.close()
        raise
    return sock
