"""One object for many hosts, simulated: ``python -m benchmarks.spreading``.

The code that chooses sources in a ``peer://`` store chooses here, too; hosts, links and
chunks are simulated. All links carry as much in either direction; a host gives its readers
a chunk each in turn.
"""

from __future__ import annotations

import argparse
import collections
import heapq
import itertools
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from daskps.stores.interfaces import Address
from daskps.stores.peer.chunks import CHUNK_NBYTES, SILENCE_SECONDS, SLOW_SECONDS
from daskps.stores.peer.sources import Sources

ORIGIN: Address = ("origin", 0)
# Readers ask for it in so many seconds: tasks do not begin at the same time.
BEGIN_SECONDS = 0.05
HOSTS = (1, 2, 4, 8, 12, 50, 100, 300, 1000)


@dataclass
class Host:
    """A simulated host.

    Attributes
    ----------
    seconds
        That a chunk takes on its link.
    chunks
        How many it has.
    source
        From whom it reads.
    readers
        Who read from it: the next one first.
    sending, receiving
        Whether a chunk is on its way.
    done
        When it had all.
    """

    address: Address
    seconds: float
    chunks: int = 0
    source: Host | None = None
    readers: collections.deque[Host] = field(default_factory=collections.deque)
    sending: bool = False
    receiving: bool = False
    done: float = 0.0
    dead: bool = False


class Simulation:
    """Of one object for all of some hosts.

    Parameters
    ----------
    nbytes
        Of the object.
    rate
        Bytes a second of each link.
    """

    def __init__(self, nbytes: int, rate: float):
        self._nbytes = nbytes
        self._n_chunks = -(-nbytes // CHUNK_NBYTES)
        self._seconds = CHUNK_NBYTES / rate
        self._sources = Sources(ORIGIN)
        self._hosts = {ORIGIN: Host(ORIGIN, self._seconds, self._n_chunks)}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._now = 0.0

    def run(self, n: int, dying: int = 0, slow: int = 0) -> float:
        """How many times one transfer it takes until all that live have it.

        Parameters
        ----------
        n
            Hosts.
        dying
            So many of them die at any time during one transfer.
        slow
            So many have a link with a tenth of the rate.
        """
        random.seed(n)
        transfer = self._n_chunks * self._seconds
        for number in range(n):
            seconds = self._seconds * (10 if number in range(1, 1 + slow) else 1)
            host = Host((f"host{number}", 1), seconds)
            self._hosts[host.address] = host
            self._at(random.uniform(0, BEGIN_SECONDS), partial(self._ask, host))
            if number < dying:
                when = random.uniform(0, transfer)
                self._at(when, partial(self._die, host))
        while self._events:
            self._now, _, happens = heapq.heappop(self._events)
            happens()
        # A slow link's own time says nothing.
        fast = [h for h in self._hosts.values() if h.seconds == self._seconds]
        return max(host.done for host in fast if not host.dead) / transfer

    def _at(self, when: float, happens: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), happens))

    def _ask(self, host: Host, without: tuple[Address, ...] = ()) -> None:
        if host.dead:
            return
        address = self._sources.begins("", self._nbytes, host.address, without)
        host.source = self._hosts[address]
        host.source.readers.append(host)
        if host.source.dead:
            self._at(self._now + SILENCE_SECONDS, partial(self._lose, host))
        elif host.source.seconds > host.seconds:
            self._at(self._now + SLOW_SECONDS, partial(self._leave, host, host.source))
        self._send(host.source)

    def _die(self, host: Host) -> None:
        host.dead = True
        self._sources.ended("", host.address, whole=False)
        if host.source is not None and host in host.source.readers:
            host.source.readers.remove(host)
        for reader in host.readers:
            # Its kernel, or its host, still answers: the connection is closed at once.
            self._at(self._now + self._seconds, partial(self._lose, reader))

    def _lose(self, reader: Host) -> None:
        source = reader.source
        if source is not None and source.dead:
            self._ask(reader, (source.address,))

    def _leave(self, reader: Host, source: Host) -> None:
        """Read from somebody else, since a source is slow."""
        if reader.source is source and not reader.done:
            source.readers.remove(reader)
            self._ask(reader, (source.address,))

    def _send(self, source: Host) -> None:
        """Have a host send the next chunk, if it sends none and somebody can take one."""
        if source.sending or source.dead:
            return
        for _ in range(len(source.readers)):
            reader = source.readers.popleft()
            source.readers.append(reader)
            if reader.chunks < source.chunks and not reader.receiving:
                source.sending = reader.receiving = True
                seconds = max(source.seconds, reader.seconds)
                # A slow reader takes no more of a fast one's link than it can.
                free = self._now + source.seconds
                self._at(free, partial(self._sent, source))
                self._at(self._now + seconds, partial(self._got, reader, source))
                return

    def _sent(self, source: Host) -> None:
        source.sending = False
        self._send(source)

    def _got(self, reader: Host, source: Host) -> None:
        reader.receiving = False
        if reader.dead or reader.source is not source:
            return
        reader.chunks += 1
        if reader.chunks == self._n_chunks:
            reader.done = self._now
            source.readers.remove(reader)
            self._sources.ended("", reader.address, whole=True)
        self._send(reader)
        self._send(source)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.spreading",
        description="How the time for one object grows with the hosts that need it.",
    )
    parser.add_argument("--mb", type=float, default=64, help="default: 64")
    parser.add_argument(
        "--mbit", type=float, default=1000, help="a second, of a link (default: 1000)"
    )
    args = parser.parse_args()
    nbytes, rate = int(args.mb * 1e6), args.mbit * 1e6 / 8
    print(f"{args.mb:g} MB, links of {args.mbit:g} Mbit/s; times one transfer")
    print(f"{'hosts':>6}{'all well':>10}{'1 % die':>10}{'1 % slow':>10}")
    for n in HOSTS:
        few = max(1, n // 100)
        ways = [{}, {"dying": few}, {"slow": few}] if n > few + 1 else [{}]
        times = [Simulation(nbytes, rate).run(n, **way) for way in ways]
        print(f"{n:6}" + "".join(f"{time:10.2f}" for time in times), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
