"""Large values to and from a Redis server, without the copies of a general client.

redis-py reads a value through a buffer that grows, and then cuts it out. So its connections
are used here, which know how to connect, to log in and to encrypt, and what is large is
written from where it lies and read to where it is wanted.

To read 1 to 256 MiB into given memory takes redis-py 8.1 longer by these factors. (Server
and reader on one host of two cores, 1.7 to 2.1 GB/s here; medians of 15 rounds in turn, as
``python -m benchmarks.redis_reading`` measures.)

=============================  ======================  ============
Public calls                   Its own parser, Python  hiredis, C
=============================  ======================  ============
``GET``                        6.3 to 10.6             1.5 to 5.9
``GETRANGE``, 256 KiB, 8 each  3.4 to 4.3              1.6 to 1.9
``GETRANGE``, 2 MiB, 8 each    4.8 to 6.2              1.5 to 2.1
=============================  ======================  ============

The protocol: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from typing import Any

from daskps import progress

# What is smaller is joined before it is sent: a call, and a packet, cost more than a copy.
JOIN_NBYTES_BELOW = 1 << 16
# What is larger is sent in pieces of this size.
SEND_NBYTES = 1 << 20
# A value is asked for in pieces of this size, of which so many are under way. The server
# copies what it is asked for, and only then sends: piece by piece the two overlap, and it
# does not hold a large value twice.
WINDOW_NBYTES = 2 << 20
WINDOW_PIECES = 3


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
        if part.nbytes >= JOIN_NBYTES_BELOW:
            if waiting:
                yield bytes(waiting)
                waiting.clear()
            # The time limit of a socket is for each call, whatever it has sent.
            for start in range(0, part.nbytes, SEND_NBYTES):
                yield part[start : start + SEND_NBYTES]
                progress.moved(SEND_NBYTES)
        else:
            waiting += part
            if len(waiting) >= JOIN_NBYTES_BELOW:
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
        for ahead in pieces[asked : i + WINDOW_PIECES]:
            behind = ahead + WINDOW_NBYTES
            # With the byte behind the last one: what is longer is not the object.
            end = behind - 1 if behind < into.nbytes else into.nbytes
            connection.send_command("GETRANGE", name, ahead, end)
            asked += 1
        # The attribute is not public; it is there in redis-py 6 to 8.
        if not _read_reply(connection._sock, into[start : start + WINDOW_NBYTES]):
            connection.disconnect()
            return False
        progress.moved(WINDOW_NBYTES)
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
