"""Large values to and from a Redis server, without the copies of a general client.

redis-py (8.1) reads a value through a buffer that grows, and then cuts it out: 100 MB take
1.2 s where the network takes 0.2 s. So its connections are used here, which know how to
connect, to log in and to encrypt, and what is large is written from where it lies and read
to where it is wanted. The protocol: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from typing import Any

# What is smaller is joined before it is sent: a call, and a packet, cost more than a copy.
JOIN_BELOW = 1 << 16
# And what is larger is sent in pieces of this size.
SEND_NBYTES = 1 << 20
# A value is asked for in pieces of this size (bytes), of which so many are under way. The
# server copies what it is asked for, and only then sends: piece by piece the two overlap,
# and it does not hold a large value twice.
WINDOW_NBYTES = 2 << 20
WINDOW = 3


def set_command(
    name: str, nbytes: int, parts: Iterable[memoryview], milliseconds: int
) -> Iterator[bytes | memoryview]:
    """What to send to set a key, to be forgotten after some time.

    Parameters
    ----------
    name
        The key.
    nbytes
        Of all parts.
    parts
        The value, piece by piece.
    milliseconds
        Until the server forgets it.
    """
    key = name.encode()
    head = b"*5\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n" % (len(key), key, nbytes)
    time = b"%d" % milliseconds
    tail = b"\r\n$2\r\nPX\r\n$%d\r\n%b\r\n" % (len(time), time)
    return _joined([memoryview(head), *parts, memoryview(tail)])


def _joined(parts: Iterable[memoryview]) -> Iterator[bytes | memoryview]:
    waiting = bytearray()
    for part in parts:
        if part.nbytes >= JOIN_BELOW:
            if waiting:
                yield bytes(waiting)
                waiting.clear()
            # The time limit of a socket is for each call, whatever it has sent.
            for start in range(0, part.nbytes, SEND_NBYTES):
                yield part[start : start + SEND_NBYTES]
        else:
            waiting += part
            if len(waiting) >= JOIN_BELOW:
                yield bytes(waiting)
                waiting.clear()
    if waiting:
        yield bytes(waiting)


def read_value(connection: Any, name: str, into: memoryview) -> bool:
    """Read a key's value into memory of exactly its size.

    Parameters
    ----------
    connection
        Of redis-py, protocol 2, with nothing under way.
    name
        The key.
    into
        Where to, one byte or more.

    Returns
    -------
    bool
        False: the server has nothing of this size there, or reported an error. The
        connection was closed then, since more may have been on its way.

    Raises
    ------
    OSError
        If the connection fails.
    """
    pieces = range(0, into.nbytes, WINDOW_NBYTES)
    asked = 0
    for i, start in enumerate(pieces):
        for ahead in pieces[asked : i + WINDOW]:
            behind = ahead + WINDOW_NBYTES
            # With the byte behind the last one: what is longer is not the object.
            end = behind - 1 if behind < into.nbytes else into.nbytes
            connection.send_command("GETRANGE", name, ahead, end)
            asked += 1
        # The attribute is not public; it is there in redis-py 6 to 8.
        if not _read_reply(connection._sock, into[start : start + WINDOW_NBYTES]):
            connection.disconnect()
            return False
    return True


def _read_reply(sock: socket.socket, into: memoryview) -> bool:
    """Read a reply that should fill `into`; False if it is any other."""
    expected = b"$%d\r\n" % into.nbytes
    head = b""
    while len(head) < len(expected):
        # Another reply may be shorter, and is then all that comes.
        head += _received(sock.recv(len(expected) - len(head)))
        if not expected.startswith(head):
            return False
    while into.nbytes:
        into = into[_counted(sock.recv_into(into)) :]
    end = b""
    while len(end) < 2:
        end += _received(sock.recv(2 - len(end)))
    return end == b"\r\n"


def _received(data: bytes) -> bytes:
    _counted(len(data))
    return data


def _counted(n: int) -> int:
    if not n:
        raise ConnectionResetError("the server closed the connection")
    return n
