"""How this host reaches the objects of another one. Runs in every process that reads.

Whoever can be connected to is read from. A host that takes no connections is asked by way
of the owner of the store, to whom its server stays connected, and connects to this host's
server itself. What its own host cannot give is read from any host that has a copy.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import secrets
import ssl
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from daskps.serialize.slabs import write_all
from daskps.stores.damaged import DamagedError
from daskps.stores.interfaces import Address, pair
from daskps.stores.peer.channels import PeerChannels
from daskps.stores.peer.chunks import Receiver, SlowError
from daskps.stores.peer.protocol import Channel, RefusedError, connect

if TYPE_CHECKING:
    from daskps.stores.keys import PeerKey

logger = logging.getLogger(__name__)

# An object is given up if nothing new has come for so long (seconds), from anybody.
PATIENCE_SECONDS = 30.0
# If nobody could be reached: a server that was killed is replaced in this time (seconds).
RESTART_SECONDS = 2.5
# So many sources in a row may have damaged the same chunk.
DAMAGED_AT_MOST = 3
# So often an object is read from somebody else since a copy comes slowly: all links may be.
SLOW_AT_MOST = 2
PAUSE_SECONDS = 0.1
# How long (seconds) to wait for a push. Who sends it may have to find out first that it
# cannot connect to this host.
PUSHED_SECONDS = 5.0
PUSHED_SECONDS_AT_LEAST = 1.0
# How long (seconds) a host that took no connection is not tried again.
CLOSED_SECONDS = 60.0
# Errors of this host, not of the network.
_OURS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)


class Ways:
    """Ways to other hosts.

    Parameters
    ----------
    channels
        Connections.
    registry
        Where the owner is.

    Notes
    -----
    Thread-safe.
    """

    def __init__(self, channels: PeerChannels, registry: Address):
        self._channels = channels
        self._registry = registry
        self._lock = threading.Lock()
        self._closed: dict[Address, float] = {}

    def try_connection(self, address: Address, here: Address, timeout: float) -> None:
        """Make sure that a host can be reached, one way or the other.

        Parameters
        ----------
        address, here
            Of its server, and of this host's.
        timeout
            About how long (seconds) to try.

        Raises
        ------
        OSError
            If it can be reached in no way: why it cannot be connected to.
        """
        deadline = time.monotonic() + timeout
        try:
            # Time is left for the other way round.
            direct = timeout if address == self._registry else 0.6 * timeout
            connect(address, self._channels.keys, direct).close()
        except OSError as e:
            self._has_closed(address, e)
            if address == self._registry:
                raise
            self._try_push(address, here, e, deadline)

    def _try_push(
        self, address: Address, here: Address, why: OSError, deadline: float
    ) -> None:
        nothing = {"name": "", "nbytes": 0, "start": 0, "without": []}
        while True:
            try:
                left = max(PUSHED_SECONDS_AT_LEAST, deadline - time.monotonic())
                with self._pushed(address, {**nothing, "reader": here}, left):
                    return
            except _NotConnectedError as e:
                # Its server may have been started a moment ago.
                if time.monotonic() > deadline:
                    raise why from e
            except OSError as e:
                logger.info("%s cannot connect to this host, either: %s", address, e)
                raise why from e
            time.sleep(PAUSE_SECONDS)

    def is_closed(self, address: Address) -> bool:
        """Whether a host has not taken a connection lately."""
        with self._lock:
            return self._closed.get(address, 0.0) > time.monotonic()

    def has(self, key: PeerKey) -> bool:
        """Whether an object is on its host.

        Raises
        ------
        OSError
            If that cannot be reached.
        """
        op = "holds" if self.is_closed(key.origin) else "has"
        message = {"op": op, "name": key.name, "nbytes": key.nbytes}
        return bool(self._tell(key.origin, message)["found"])

    def evict(self, key: PeerKey) -> None:
        """Delete an object on its host, and the copies of which that knows.

        Raises
        ------
        OSError
            If that cannot be reached.
        """
        message = {"op": "evict", "names": [key.name]}
        for copies in self._tell(key.origin, message)["copies"].values():
            for address in copies:
                with contextlib.suppress(OSError):
                    self._tell(pair(address), message)

    def _tell(self, address: Address, message: dict[str, Any]) -> dict[str, Any]:
        if self.is_closed(address):
            return self._order(address, message)
        return self._channels.ask(address, message)

    def fetch(self, key: PeerKey, here: Address, fd: int) -> bool:
        """Write an object's bytes to a file; False if nobody has it.

        Parameters
        ----------
        key
            Of the object.
        here
            Of this host's server.
        fd
            The file.

        Raises
        ------
        DamagedError
            If what comes is not what was stored.
        OSError
            If nobody who has it can be reached, or there is no room.
        """
        return _Fetch(self, self._channels, key, here, fd).run()

    # Of hosts that take no connections

    def _has_closed(self, address: Address, why: OSError) -> None:
        # Otherwise somebody is there, and answers at once the next time, too.
        if not isinstance(why, ConnectionError):
            with self._lock:
                self._closed[address] = time.monotonic() + CLOSED_SECONDS
            logger.info("%s, port %s, takes no connections: %s", *address, why)

    def _order(self, address: Address, order: dict[str, Any]) -> dict[str, Any]:
        """Have the owner tell a host to do something; the host's answer."""
        message = {"op": "order", "host": address, "order": order}
        answer: dict[str, Any] | None
        answer = self._channels.ask(self._registry, message)["answer"]
        if answer is None:
            raise _NotConnectedError("it is not connected to the owner of the store")
        return answer

    @contextlib.contextmanager
    def _pushed(
        self, address: Address, wanted: dict[str, Any], seconds: float = PUSHED_SECONDS
    ) -> Iterator[tuple[Channel | None, dict[str, Any]]]:
        """Have a host send an object to this one.

        Yields
        ------
        tuple
            From where it comes, and what its host answers. No channel: somebody else has
            it, and the host is to be told when it has come.
        """
        ticket = secrets.token_urlsafe(16)
        here = wanted["reader"]
        wait = {"op": "wait", "ticket": ticket, "seconds": seconds}
        channel, _ = self._channels.request(here, wait)
        try:
            order = {"op": "push", "ticket": ticket, **wanted}
            answer = self._order(address, order)
            if "source" in answer:
                yield None, answer
                return
            pushed = channel.receive()
            if not pushed["pushed"]:
                raise ConnectionError("it could not connect to this host")
            yield channel, pushed
        finally:
            channel.close()

    def _copies(self, key: PeerKey) -> list[Address]:
        """Who else has an object."""
        message = {"op": "find", "name": key.name, "nbytes": key.nbytes}
        return [pair(a) for a in self._channels.ask(self._registry, message)["found"]]


class _Fetch:
    """Of one object, from whoever can give it."""

    def __init__(
        self,
        ways: Ways,
        channels: PeerChannels,
        key: PeerKey,
        here: Address,
        fd: int,
    ):
        self._ways = ways
        self._channels = channels
        self._key = key
        self._here = here
        self._without: set[Address] = set()
        self._slow = 0
        self._receiver = Receiver(
            channels.keys, key.name, key.nbytes, lambda data: write_all(fd, data)
        )

    def run(self) -> bool:
        """Read it, if need be from several hosts, one after the other."""
        reached, since, damaged = 0, time.monotonic(), 0
        while True:
            try:
                return self._attempt()
            except (DamagedError, OSError) as e:
                if isinstance(e, OSError) and e.errno in _OURS:
                    raise
                if self._receiver.start > reached:
                    reached, since, damaged = self._receiver.start, time.monotonic(), 0
                damaged += _is_damage(e)
                patience = PATIENCE_SECONDS
                if isinstance(e, _NobodyError):
                    patience = RESTART_SECONDS
                late = time.monotonic() > since + patience
                if late or damaged >= DAMAGED_AT_MOST or isinstance(e, RefusedError):
                    raise
                logger.info("Reading object %s is begun again: %s", self._key.name, e)
                time.sleep(PAUSE_SECONDS)

    def _attempt(self) -> bool:
        origin = self._key.origin
        why: OSError | None = None
        if not self._ways.is_closed(origin):
            try:
                channel, answer = self._channels.request(origin, self._wanted("get"))
            except OSError as e:
                why = e
                self._ways._has_closed(origin, e)
            else:
                if self._from_origin(channel, answer):
                    return True
        if why is not None or self._ways.is_closed(origin):
            try:
                if self._from_pushes():
                    return True
            except OSError as e:
                if self._receiver.start:
                    raise
                why = why or e
        return self._from_copies(why)

    def _wanted(self, op: str) -> dict[str, Any]:
        return {
            "op": op,
            "name": self._key.name,
            "nbytes": self._key.nbytes,
            "start": self._receiver.start,
            "reader": self._here,
            "without": sorted(self._without),
        }

    def _from_origin(self, channel: Channel, answer: dict[str, Any]) -> bool:
        """Read from its host, or from whom that names; whether there is one."""
        try:
            if "source" in answer:
                whole = False
                try:
                    whole = self._from_copy(pair(answer["source"]))
                finally:
                    channel.send({"whole": whole})
                if not whole:
                    raise ConnectionError("the host that was to have a copy has none")
            elif answer["found"]:
                self._receiver.receive(channel)
        except BaseException:
            channel.close()
            raise
        self._channels.give_back(self._key.origin, channel)
        return "source" in answer or bool(answer["found"])

    def _from_pushes(self) -> bool:
        wanted = self._wanted("push")
        del wanted["op"]
        with self._ways._pushed(self._key.origin, wanted) as (channel, answer):
            if channel is not None:
                if answer["found"]:
                    self._receiver.receive(channel)
                return bool(answer["found"])
        whole = False
        try:
            whole = self._from_copy(pair(answer["source"]))
        finally:
            with contextlib.suppress(OSError):
                self._ways._order(
                    self._key.origin, {**wanted, "op": "ended", "whole": whole}
                )
        return whole

    def _from_copy(self, source: Address) -> bool:
        """Read from a host that has a copy, or a part of one; whether it has."""
        try:
            channel, answer = self._channels.request(source, self._wanted("copy"))
            try:
                if answer["found"]:
                    may_be_slow = self._slow >= SLOW_AT_MOST
                    self._receiver.receive(channel, may_be_slow)
            except BaseException:
                channel.close()
                raise
            self._channels.give_back(source, channel)
        except (DamagedError, OSError) as e:
            self._slow += isinstance(e, SlowError)
            if not (isinstance(e, OSError) and e.errno in _OURS):
                self._without.add(source)
            raise
        if not answer["found"]:
            self._without.add(source)
        return bool(answer["found"])

    def _from_copies(self, why: OSError | None) -> bool:
        """Read from any host that has a copy, since its own does not give it."""
        try:
            copies = self._ways._copies(self._key)
        except OSError as e:
            raise why or e from None
        for source in copies:
            if source not in {self._here, *self._without} and self._from_copy(source):
                return True
        if isinstance(why, RefusedError):
            raise why
        if why is not None:
            raise _NobodyError(str(why) or type(why).__name__) from why
        return False


class _NotConnectedError(ConnectionError):
    """A host's server is not there, or reaches the owner as little as others reach it."""


class _NobodyError(ConnectionError):
    """An object's host cannot be reached, and nobody else has the object."""


def _is_damage(e: Exception) -> bool:
    """Whether what came was changed on its way, or before."""
    cut = ssl.SSLEOFError, ssl.SSLZeroReturnError
    return isinstance(e, DamagedError | ssl.SSLError) and not isinstance(e, cut)
