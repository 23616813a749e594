"""The owner of a ``peer://`` store and the servers of all hosts. Runs on the scheduler.

Each host's server connects to the owner and stays connected. Over that connection it gets
orders, and an order, if only to answer, every few seconds: as long as they come, the store
has an owner. What cannot be ordered now, since a server is not connected, is ordered when
it is again.

A reader that cannot connect to another host's server reaches it by way of the owner, if
that server has connected to it; and the owner can ask all hosts for an object.
"""

from __future__ import annotations

import collections
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from daskps.stores.interfaces import Address, pair
from daskps.stores.peer.exchange import Connection, Exchange, Listening
from daskps.stores.peer.listener import Listener
from daskps.stores.peer.protocol import ANSWER_SECONDS, Channel, Keys, listen

# Seconds between orders to a server. Less than protocol.ANSWER_SECONDS.
REGISTRY_PING_SECONDS = 5.0
TICK_SECONDS = 1.0
# So many names in one order.
NAMES_AT_MOST = 1000
# How long (seconds) servers may take to delete everything when the store is closed.
CLOSE_SECONDS = 3.0
# How long (seconds) hosts may take to say whether they have an object.
FIND_SECONDS = 2.0

Answer = dict[str, Any]


class PeerRegistry:
    """Gives orders to the servers of one store.

    Parameters
    ----------
    host
        The address of the interface by which other hosts reach this one.
    keys
        The cluster's.
    lease
        Seconds without an order after which a server takes the owner for dead.

    Attributes
    ----------
    address
        Where servers connect to.

    Notes
    -----
    Thread-safe. Everything is done in one thread, which the public methods tell what.
    """

    address: Address
    _hosts: dict[Address, _Host]
    _searches: list[_Search]

    def __init__(self, host: str, keys: Keys, lease: float):
        sock = listen(host)
        self.address = sock.getsockname()[:2]
        self._lease = lease
        self._hosts = {}
        self._searches = []
        self._closing: float | None = None
        self._all_closed = threading.Event()
        self._process = os.getpid()
        self._exchange = Exchange("daskps-peer-orders", self._tick, TICK_SECONDS)
        self._listener = Listener(sock, keys, self._take, in_threads=False)

    def evict(self, name: str, origin: Address) -> None:
        """Have an object deleted, and all copies of it."""
        self._exchange.call(lambda: self._evict(name, origin))

    def evict_orphans(self, creator: str, keep: Iterable[str]) -> None:
        """Have all hosts delete what one process stored, except what is needed.

        A host that is not connected is not told later: the process may have come back by
        then, and have stored something else. What it left there goes with the store.
        """
        order = {"op": "orphans", "creator": creator, "keep": list(keep)}
        self._exchange.call(lambda: self._order_all(order))

    def close(self) -> None:
        """Have all servers delete everything and end; wait a little for that."""
        if self._closing is not None or os.getpid() != self._process:
            return
        self._closing = time.monotonic()
        self._listener.close()
        self._exchange.call(self._close)
        self._all_closed.wait(CLOSE_SECONDS)

    # From here on in the exchange's thread

    def _take(self, channel: Channel) -> None:
        self._exchange.add(channel, lambda connection: _Newcomer(self, connection))

    def _evict(self, name: str, origin: Address) -> None:
        host = self._hosts.setdefault(origin, _Host())
        host.evict(name)
        # It knows of no copies that were made before it connected again, or is not there.
        if not host.knows_copies:
            self.evict_elsewhere(host, [name])

    def evict_copies(self, copies: dict[str, list[Any]]) -> None:
        """Have copies deleted of objects that their own host has deleted."""
        for name, addresses in copies.items():
            for address in addresses:
                host = self._hosts.get(pair(address))
                if host is not None:
                    host.evict(name)

    def evict_elsewhere(self, host: _Host, names: Iterable[str]) -> None:
        """Have copies deleted by whoever has them, but for this host."""
        for other in self._hosts.values():
            if other is not host:
                for name in names:
                    other.evict(name)

    def _order_all(self, order: Answer) -> None:
        for host in self._hosts.values():
            if host.connection is not None:
                host.ask(order)

    def join(self, address: Address, connection: Connection) -> Listening:
        """A server has connected."""
        host = self._hosts.setdefault(address, _Host())
        host.connected(connection, self)
        if self._closing is not None:
            host.ask({"op": "close"})
        return _Served(self, host, connection)

    def order(
        self, address: Address, order: Answer, done: Callable[[Answer | None], None]
    ) -> None:
        """Give an order for somebody else; `done` is told the answer, or None."""
        host = self._hosts.get(address)
        if host is None or host.connection is None:
            done(None)
        else:
            host.ask(order, done)

    def find(
        self, name: str, nbytes: int, done: Callable[[list[Address]], None]
    ) -> None:
        """Ask all hosts for an object, or a copy; `done` is told who has one."""
        search = _Search(time.monotonic() + FIND_SECONDS, done)
        order = {"op": "holds", "name": name, "nbytes": nbytes}
        for address, host in list(self._hosts.items()):
            if host.connection is not None:
                host.ask(order, search.asked(address))
        self._searches.append(search)
        search.all_asked()

    def _close(self) -> None:
        for host in self._hosts.values():
            host.orders.clear()
            host.ask({"op": "close"})
        self.look_whether_closed()

    def look_whether_closed(self) -> None:
        """Say so if all servers have ended that were told to."""
        if self._closing is not None and not any(
            host.connection for host in self._hosts.values()
        ):
            self._all_closed.set()

    def _tick(self) -> None:
        now = time.monotonic()
        for host in list(self._hosts.values()):
            host.tick(now)
        self._searches = [s for s in self._searches if not s.end_if_late(now)]
        # Servers that have ended, and deleted everything, for want of orders.
        long_ago = now - 2 * self._lease
        for address, host in list(self._hosts.items()):
            if host.connection is None and host.seen < long_ago:
                del self._hosts[address]
        if self._closing is not None and (
            self._exchange.is_empty or now > self._closing + ANSWER_SECONDS
        ):
            self._exchange.stop()


class _Order(NamedTuple):
    """What a server is to do, and who is told its answer: None if none comes."""

    message: Answer
    done: Callable[[Answer | None], None] | None = None


class _Host:
    """What is known of a host's server.

    Attributes
    ----------
    orders
        Not given yet.
    given
        The one that is not answered yet.
    connection
        None while it is not connected.
    seen
        When it last did what it was told (``time.monotonic``).
    """

    orders: collections.deque[_Order]
    given: _Order | None
    connection: Connection | None
    seen: float

    def __init__(self) -> None:
        self.orders = collections.deque()
        self.given = None
        self.connection = None
        self.seen = time.monotonic()
        self._times = 0
        self._since = 0.0

    @property
    def knows_copies(self) -> bool:
        """Whether it can say who has copies of its objects."""
        return self.connection is not None and self._times == 1

    def connected(self, connection: Connection, registry: PeerRegistry) -> None:
        """A server is there, perhaps in the place of one that died."""
        before, self.connection = self.connection, connection
        if before is not None:
            before.close()
        self._times += 1
        self.seen = time.monotonic()
        self.next()

    def ask(
        self, message: Answer, done: Callable[[Answer | None], None] | None = None
    ) -> None:
        """Give an order after those before."""
        self.orders.append(_Order(message, done))
        self.next()

    def evict(self, name: str) -> None:
        """Order that an object be deleted, together with others."""
        last: Answer = self.orders[-1].message if self.orders else {"op": ""}
        if last["op"] == "evict" and len(last["names"]) < NAMES_AT_MOST:
            last["names"].append(name)
        else:
            self.ask({"op": "evict", "names": [name]})

    def next(self) -> None:
        """Give the next order, if there is one and the last one is done."""
        if self.connection is not None and self.given is None and self.orders:
            self.given = self.orders.popleft()
            self._since = time.monotonic()
            self.connection.send(self.given.message)

    def answered(self, answer: Answer) -> _Order | None:
        """What the answer is to; the next order is given."""
        given, self.given = self.given, None
        self.seen = time.monotonic()
        if given is not None and given.done is not None:
            given.done(answer)
        self.next()
        return given

    def lost(self) -> None:
        """It is not connected any more: keep what it has to do when it is again."""
        self.connection = None
        orders = ([self.given] if self.given else []) + [*self.orders]
        self.given = None
        self.orders = collections.deque(
            order for order in orders if order.message["op"] == "evict"
        )
        for order in orders:
            if order.done is not None:
                order.done(None)

    def tick(self, now: float) -> None:
        """Have it answer from time to time, and give it up if it does not."""
        if self.connection is None:
            return
        if self.given is None:
            if now > self.seen + REGISTRY_PING_SECONDS:
                self.ask({"op": "ping"})
        elif now > self._since + ANSWER_SECONDS:
            self.connection.close()


class _Newcomer(Listening):
    """Somebody who has not said yet what it is."""

    def __init__(self, registry: PeerRegistry, connection: Connection):
        self._registry = registry
        self._connection = connection

    def heard(self, message: Answer) -> None:
        if "address" in message:
            connection = self._connection
            address = pair(message["address"])
            connection.listening = self._registry.join(address, connection)
        else:
            self._connection.listening = _Asking(self._registry, self._connection)
            self._connection.listening.heard(message)


class _Served(Listening):
    """A server."""

    def __init__(self, registry: PeerRegistry, host: _Host, connection: Connection):
        self._registry = registry
        self._host = host
        self._connection = connection

    def heard(self, message: Answer) -> None:
        if self._host.connection is not self._connection:
            return  # another one has taken its place
        order = self._host.answered(message)
        if "copies" in message:
            self._registry.evict_copies(message["copies"])
        if order is not None and order.message["op"] == "close":
            self._connection.close()

    def lost(self) -> None:
        if self._host.connection is self._connection:
            self._host.lost()
            # With it went what it knew of copies.
            names = [n for order in self._host.orders for n in order.message["names"]]
            self._registry.evict_elsewhere(self._host, names)
            self._registry.look_whether_closed()


class _Asking(Listening):
    """A reader that asks for something."""

    def __init__(self, registry: PeerRegistry, connection: Connection):
        self._registry = registry
        self._connection = connection

    def heard(self, message: Answer) -> None:
        send = self._connection.send
        match message["op"]:
            case "order":
                self._registry.order(
                    pair(message["host"]),
                    message["order"],
                    lambda answer: send({"answer": answer}),
                )
            case "find":
                self._registry.find(
                    *(message["name"], message["nbytes"]),
                    lambda found: send({"found": found}),
                )


class _Search:
    """For an object that is not where it should be."""

    def __init__(self, deadline: float, done: Callable[[list[Address]], None]):
        self._deadline = deadline
        self._done: Callable[[list[Address]], None] | None = done
        self._found: list[Address] = []
        self._open = 1

    def asked(self, address: Address) -> Callable[[Answer | None], None]:
        """Who is to be told what a host answers."""
        self._open += 1

        def answered(answer: Answer | None) -> None:
            if answer is not None and answer["found"]:
                self._found.append(address)
            self.all_asked()

        return answered

    def all_asked(self) -> None:
        """Say what was found, if nobody is to answer any more."""
        self._open -= 1
        if not self._open:
            self._end()

    def end_if_late(self, now: float) -> bool:
        """The same if it took too long; whether it has ended."""
        if now > self._deadline:
            self._end()
        return self._done is None

    def _end(self) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(self._found)
