"""The owner of a ``peer://`` store and many hosts: ``python -m benchmarks.thousand_hosts``.

Real connections, and no data: one process is the owner, as a scheduler is, and another one
plays the servers of all hosts. What the owner's process takes is told by the kernel.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import selectors
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe

import psutil

from daskps.stores.peer.protocol import Channel, Keys, connect
from daskps.stores.peer.registry import PeerRegistry

KEY = bytes(32)
LEASE = 600.0
EVICTED = 100_000


def own(pipe: Pipe) -> None:
    """Be the owner; do as the other end says."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    registry = PeerRegistry("127.0.0.1", Keys(KEY), LEASE)
    pipe.send(registry.address)
    while (order := pipe.recv()) is not None:
        for name, origin in order:
            registry.evict(name, origin)
        pipe.send(None)
    registry.close()


class Hosts:
    """The servers of all hosts: they answer at once, in one thread."""

    def __init__(self, owner: tuple[str, int]):
        self._owner = owner
        self._selector = selectors.DefaultSelector()
        self.channels: list[Channel] = []
        self.evicted = 0
        self._joined = 0

    def join(self, n: int) -> None:
        """Connect so many more."""
        for _ in range(n):
            channel = connect(self._owner, Keys(KEY))
            channel.send({"address": (f"host{self._joined}", 1)})
            self._joined += 1
            self._selector.register(channel.socket, selectors.EVENT_READ, channel)
            self.channels.append(channel)

    def die(self, n: int) -> None:
        """Have so many go without a word."""
        for channel in self.channels[:n]:
            self._selector.unregister(channel.socket)
            channel.close()
        del self.channels[:n]

    def answer(self, seconds: float, done: Callable[[], bool] = lambda: False) -> None:
        """Do what the owner says, for a time, or until something is so."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not done():
            for key, _ in self._selector.select(min(left, 0.1)):
                self._obey(key.data)

    def _obey(self, channel: Channel) -> None:
        order = channel.receive()
        if order["op"] == "evict":
            self.evicted += len(order["names"])
        channel.send({})
        if order["op"] == "close":
            self._selector.unregister(channel.socket)
            channel.close()
            self.channels.remove(channel)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.thousand_hosts",
        description="What many hosts cost the process that is the owner of a store.",
    )
    parser.add_argument("--hosts", type=int, default=1000, help="default: 1000")
    parser.add_argument("--seconds", type=float, default=30, help="idle (default: 30)")
    args = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    context = multiprocessing.get_context("spawn")
    mine, other = context.Pipe()
    process = context.Process(target=own, args=(other,), daemon=True)
    process.start()
    owner = psutil.Process(process.pid)
    hosts = Hosts(mine.recv())

    def measured(what: str, do: Callable[[], None]) -> None:
        before, since = sum(owner.cpu_times()[:2]), time.monotonic()
        do()
        cpu = sum(owner.cpu_times()[:2]) - before
        seconds = time.monotonic() - since
        rss = owner.memory_info().rss
        print(
            f"{what:34}{seconds:8.1f} s{cpu:8.2f} s CPU{cpu / seconds:8.1%}"
            f"{rss / 2**20:8.0f} MiB{(rss - base) / 1000 / args.hosts:7.1f} kB a host",
            flush=True,
        )

    def evict() -> None:
        mine.send(
            [(f"x.{i:022}", (f"host{i % args.hosts}", 1)) for i in range(EVICTED)]
        )
        hosts.answer(300, lambda: hosts.evicted >= EVICTED)
        mine.recv()

    time.sleep(1)
    base = owner.memory_info().rss
    measured(f"{args.hosts} hosts join", lambda: hosts.join(args.hosts))
    measured("nothing happens", lambda: hosts.answer(args.seconds))
    measured(f"{EVICTED:,} objects are evicted", evict)
    measured("nothing happens", lambda: hosts.answer(args.seconds))
    few = args.hosts // 10

    def replace() -> None:
        hosts.die(few)
        hosts.join(few)
        hosts.answer(5)

    measured(f"{few} hosts die, and others come", replace)
    mine.send(None)
    hosts.answer(20, lambda: not process.is_alive())
    process.join(5)
    return 0


if __name__ == "__main__":
    sys.exit(main())
