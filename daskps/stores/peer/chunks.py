"""Objects on their way from one host to another: chunks, each with a seal.

A chunk is its length (4 bytes), its bytes, and a keyed hash of them, of the object's name
and size, and of where in it they belong. So each host checks what it gets, and may pass it
on before it has the rest; and who has lost the other end goes on with somebody else from
where it was. A length of 0 says that the other end lives and has nothing new.

Uses the standard library and BLAKE3 alone: the server imports it.
"""

from __future__ import annotations

import hmac
import os
import time
from collections.abc import Callable
from typing import NamedTuple

from daskps.stores.damaged import DamagedError
from daskps.stores.peer.protocol import SEAL_NBYTES, Channel, Keys, receive_into

# Small enough to stay in the processor's cache between the network, the hash and the file,
# and for the last one of a row of hosts to be only a little later than the first.
CHUNK_NBYTES = 1 << 19
_HEAD_NBYTES = 4
# How often (seconds) to say that this end lives, and to look whether there is more.
ALIVE_SECONDS = 0.5
LOOK_SECONDS = 0.002
# How long (seconds) the other end may say nothing before somebody else is asked. Others
# that wait for it hear from it meanwhile, and do not ask, too.
SILENCE_SECONDS = 3.0
# How long (seconds) the other end may have nothing new.
NOTHING_NEW_SECONDS = 20.0
# Who gives less (bytes a second) after so long (seconds) is slow: somebody else may be on a
# better link.
SLOW_BYTES_PER_SECOND = 20e6
SLOW_SECONDS = 2.0


class Wanted(NamedTuple):
    """What is sent.

    Attributes
    ----------
    name, nbytes
        Of the object.
    start
        The first byte to send.
    """

    name: str
    nbytes: int
    start: int


def send(
    channel: Channel, keys: Keys, wanted: Wanted, fd: int, there: Callable[[], int]
) -> None:
    """Send an object from a byte on.

    Parameters
    ----------
    channel, keys
        To whom, and the cluster's.
    wanted, fd
        The object, and a file that has it.
    there
        How many bytes the file has by now. It raises OSError if there will be no more.

    Raises
    ------
    OSError
        If the other end has gone, or what is sent.
    """
    name, nbytes, start = wanted
    room = min(CHUNK_NBYTES, nbytes - start)
    buffer = memoryview(bytearray(_HEAD_NBYTES + room + SEAL_NBYTES))
    while start < nbytes:
        end = min(nbytes, start - start % CHUNK_NBYTES + CHUNK_NBYTES)
        _wait(channel, there, end)
        # Not a mapping: a partial copy may be cut short, which would kill this process.
        data = buffer[_HEAD_NBYTES : _HEAD_NBYTES + end - start]
        if os.preadv(fd, [data], start) != data.nbytes:
            raise ConnectionAbortedError("the object is no longer whole")
        seal = keys.seal(name, nbytes, start)
        seal.update(data)
        after = _HEAD_NBYTES + data.nbytes
        buffer[:_HEAD_NBYTES] = data.nbytes.to_bytes(_HEAD_NBYTES, "big")
        buffer[after : after + SEAL_NBYTES] = seal.digest()
        channel.socket.sendall(buffer[: after + SEAL_NBYTES])
        start = end


def _wait(channel: Channel, there: Callable[[], int], end: int) -> None:
    """Wait until the file has so much, and let the other end know that we do."""
    said = time.monotonic()
    while there() < end:
        now = time.monotonic()
        if now > said + ALIVE_SECONDS:
            channel.socket.sendall(bytes(_HEAD_NBYTES))
            said = now
        time.sleep(LOOK_SECONDS)


class SlowError(ConnectionError):
    """The other end gives little."""


class Receiver:
    """Takes chunks of one object, perhaps from several hosts, one after the other.

    Not thread-safe.

    Parameters
    ----------
    keys
        The cluster's.
    name, nbytes
        Of the object.
    write
        Given each chunk, in order, once it is known to be right.

    Attributes
    ----------
    start
        How many bytes have come.
    """

    start: int

    def __init__(
        self,
        keys: Keys,
        name: str,
        nbytes: int,
        write: Callable[[memoryview], object],
    ):
        self._keys = keys
        self._name, self._nbytes = name, nbytes
        self._write = write
        room = min(CHUNK_NBYTES, nbytes)
        self._buffer = memoryview(bytearray(room + SEAL_NBYTES))
        self.start = 0

    def receive(self, channel: Channel, may_be_slow: bool = True) -> None:
        """Take what is missing.

        Raises
        ------
        SlowError
            If that takes long, and it may not.
        DamagedError
            If a chunk is not what was stored.
        OSError
            If the other end has gone, or says nothing. Those before are written.
        """
        channel.socket.settimeout(SILENCE_SECONDS)
        begun, start = time.monotonic(), self.start
        new = begun
        while self.start < self._nbytes:
            nbytes = _receive_head(channel)
            if nbytes:
                self._take(channel, nbytes)
                new = time.monotonic()
            elif time.monotonic() > new + NOTHING_NEW_SECONDS:
                raise TimeoutError("the other end has nothing new")
            seconds = time.monotonic() - begun
            if (
                not may_be_slow
                and seconds > SLOW_SECONDS
                and self.start - start < SLOW_BYTES_PER_SECOND * seconds
            ):
                raise SlowError("the other end is slow")

    def _take(self, channel: Channel, nbytes: int) -> None:
        end = nbytes + SEAL_NBYTES
        if end > self._buffer.nbytes or nbytes > self._nbytes - self.start:
            raise DamagedError("it is longer than what was stored")
        receive_into(channel.socket, self._buffer[:end])
        data = self._buffer[:nbytes]
        seal = self._keys.seal(self._name, self._nbytes, self.start)
        seal.update(data)
        if not hmac.compare_digest(seal.digest(), self._buffer[nbytes:end]):
            raise DamagedError("its bytes are not those that its host has stored")
        self._write(data)
        self.start += nbytes


def forward(source: Channel, to: Channel, nbytes: int) -> None:
    """Hand on the chunks of so many bytes, without a look at them."""
    buffer = memoryview(bytearray(CHUNK_NBYTES + SEAL_NBYTES))
    source.socket.settimeout(SILENCE_SECONDS)
    while nbytes > 0:
        size = _receive_head(source)
        if size > CHUNK_NBYTES:
            raise ConnectionAbortedError("a chunk is too long")
        data = buffer[: size + SEAL_NBYTES if size else 0]
        receive_into(source.socket, data)
        to.socket.sendall(size.to_bytes(_HEAD_NBYTES, "big"))
        to.socket.sendall(data)
        nbytes -= size


def _receive_head(channel: Channel) -> int:
    head = bytearray(_HEAD_NBYTES)
    receive_into(channel.socket, memoryview(head))
    return int.from_bytes(head, "big")
