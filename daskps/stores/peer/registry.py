"""The owner of a ``peer://`` store and the servers of all hosts. Runs on the scheduler.

Each host's server connects to the owner and stays connected. Over that connection it gets
orders, and an order, if only to answer, every few seconds: as long as they come, the store
has an owner. What cannot be ordered now, since a server is not connected, is ordered when
it is again.
"""

from __future__ import annotations

import collections
import os
import threading
import time
from collections.abc import Iterable
from typing import Any

from daskps.stores.interfaces import Address
from daskps.stores.peer.listener import Listener
from daskps.stores.peer.protocol import Channel, Keys, listen

# Seconds between orders to a server. Less than protocol.ANSWER_SECONDS.
REGISTRY_PING_SECONDS = 3.0
ORPHANS = "orphans"
# So many names in one order.
NAMES_AT_MOST = 1000
# How long (seconds) servers may take to delete everything when the store is closed.
CLOSE_SECONDS = 3.0


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
    Thread-safe. Orders are given in the background, in threads.
    """

    address: Address
    _hosts: dict[Address, _Host]

    def __init__(self, host: str, keys: Keys, lease: float):
        sock = listen(host)
        self.address = sock.getsockname()[:2]
        self._lease = lease
        self._hosts = {}
        self._changed = threading.Condition()
        self._closed = False
        self._process = os.getpid()
        self._listener = Listener(sock, keys, self._serve)

    def evict(self, name: str, origin: Address) -> None:
        """Have an object deleted, and all copies of it."""
        with self._changed:
            self._forget_dead()
            self._hosts.setdefault(origin, _Host())
            # Threads that have orders to give come back for more by themselves.
            waiting = any(not host.orders for host in self._hosts.values())
            for host in self._hosts.values():
                host.evict(name)
            if waiting:
                self._changed.notify_all()

    def evict_orphans(self, creator: str, keep: Iterable[str]) -> None:
        """Have all hosts delete what one process stored, except what is needed.

        A host that is not connected is not told later: the process may have come back by
        then, and have stored something else. What it left there goes with the store.
        """
        order = {"op": ORPHANS, "creator": creator, "keep": list(keep)}
        with self._changed:
            for host in self._hosts.values():
                host.orders.append(order)
            self._changed.notify_all()

    def close(self) -> None:
        """Have all servers delete everything and end; wait a little for that."""
        if self._closed or os.getpid() != self._process:
            return
        self._listener.close()
        with self._changed:
            self._closed = True
            for host in self._hosts.values():
                host.orders.clear()
                host.orders.append({"op": "close"})
            self._changed.notify_all()
            self._changed.wait_for(self._all_done, CLOSE_SECONDS)

    def _all_done(self) -> bool:
        return all(host.channel is None for host in self._hosts.values())

    def _forget_dead(self) -> None:
        """Forget servers that have ended, and deleted everything, for want of orders."""
        long_ago = time.monotonic() - 2 * self._lease
        for address, host in list(self._hosts.items()):
            if host.channel is None and host.seen < long_ago:
                del self._hosts[address]

    def _serve(self, channel: Channel) -> None:
        name, port = channel.receive()["address"]
        with self._changed:
            host = self._hosts.setdefault((name, port), _Host())
            host.channel = channel
            host.forget_orphans()
            if self._closed:  # since it has been let in
                host.orders.append({"op": "close"})
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(
                        lambda: host.orders or self._closed,
                        timeout=REGISTRY_PING_SECONDS,
                    )
                    # A server may have died, and another one taken its place.
                    if host.channel is not channel:
                        return
                    order = host.orders.popleft() if host.orders else {"op": "ping"}
                if not self._give(channel, host, order):
                    return
        finally:
            with self._changed:
                if host.channel is channel:
                    host.channel = None
                self._changed.notify_all()

    def _give(self, channel: Channel, host: _Host, order: dict[str, Any]) -> bool:
        """Give an order; whether others may follow."""
        try:
            channel.request(order)
        except OSError:
            with self._changed:
                host.orders.appendleft(order)  # when it is back
            raise
        host.seen = time.monotonic()
        return bool(order["op"] != "close")


class _Host:
    """What is known of a host's server.

    Attributes
    ----------
    orders
        Not given yet.
    channel
        None while it is not connected.
    seen
        When it last did what it was told (``time.monotonic``).
    """

    orders: collections.deque[dict[str, Any]]
    channel: Channel | None
    seen: float

    def __init__(self) -> None:
        self.orders = collections.deque()
        self.channel = None
        self.seen = time.monotonic()

    def forget_orphans(self) -> None:
        """Drop the orders that it is too late for."""
        in_time = (order for order in self.orders if order["op"] != ORPHANS)
        self.orders = collections.deque(in_time)

    def evict(self, name: str) -> None:
        """Order that an object be deleted, together with others."""
        last: dict[str, Any] = self.orders[-1] if self.orders else {"op": ""}
        if last["op"] == "evict" and len(last["names"]) < NAMES_AT_MOST:
            last["names"].append(name)
        else:
            self.orders.append({"op": "evict", "names": [name]})
