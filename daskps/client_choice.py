"""Which store suits a cluster, where the user names none. Runs on the client.

The client makes a private directory with a random name, and the scheduler and all workers
say whether they see it. That is what a store has to rely on; host names and addresses are
not, since containers on one host may have memory of their own, and hosts may share disks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from dask.utils import format_bytes

from daskps.exceptions import ClusterError
from daskps.stores.probe import Sight, can_encrypt, look, probes
from daskps.stores.urls import StoreRequest

if TYPE_CHECKING:
    from distributed import Client

# With less in shared memory, most large data would go to a disk.
ROOM_AT_LEAST = 256 << 20
# Addresses of clusters that encrypt what they send.
ENCRYPTED = ("tls://", "wss://")


class Choice(NamedTuple):
    """A store, and why it is this one.

    Attributes
    ----------
    request
        The store.
    reason
        For people.
    """

    request: StoreRequest
    reason: str

    def __str__(self) -> str:
        return f"{self.request.url} ({self.reason})"


async def choose(client: Client, candidates: tuple[StoreRequest, ...]) -> Choice:
    """Choose a store that the client, the scheduler and all workers can use.

    Parameters
    ----------
    client
        Connected.
    candidates
        Stores to choose from: in memory, in a shared directory if there may be one, and
        two between hosts, of which the second one encrypts what it sends.

    Raises
    ------
    ClusterError
        If there is none.
    """
    *in_directories, peer, encrypted = candidates
    with probes([_directory(request) for request in in_directories]) as paths:
        here = look(paths)
        scheduler = await client.run_on_scheduler(look, paths)
        # One that dies meanwhile does not matter, nor does one without daskps: it is
        # found out when the store is opened.
        workers = await client.run(look, paths, on_error="ignore")
    answers = [here, scheduler, *workers.values()]
    seen = [
        _Seen(request, [Sight(*answer[i]) for answer in answers])
        for i, request in enumerate(in_directories)
    ]
    if workers:
        # Little memory is better than a network.
        for one in sorted(seen, key=lambda one: one.room < ROOM_AT_LEAST):
            if one.by_all:
                return Choice(one.request, one.reason)
    why = seen[0].reason_against if workers else "there is no worker yet"
    if not client.scheduler.address.startswith(ENCRYPTED):
        return Choice(peer, why)
    if await _everywhere(client, can_encrypt):
        return Choice(encrypted, f"{why}, and this cluster encrypts what it sends")
    raise ClusterError(
        f"No store suits this cluster by itself: {why}, and peer:// does not encrypt "
        "what it sends, as this cluster does. zmq:// does, and is chosen if it is "
        "installed on the client, the scheduler and all workers: pip install "
        "'daskps[zmq]'. Or name a store: daskps.proxy_graph(store=\"peer://\") if the "
        'network can be trusted, or store="file:///shared/directory".'
    )


async def _everywhere(client: Client, function: Callable[[], bool]) -> bool:
    workers = await client.run(function, on_error="ignore")
    return all([function(), await client.run_on_scheduler(function), *workers.values()])


class _Seen(NamedTuple):
    """A store in a directory, and who sees the directory: first the client."""

    request: StoreRequest
    sights: list[Sight]

    @property
    def by_all(self) -> bool:
        return all(sight.room is not None for sight in self.sights)

    @property
    def room(self) -> int:
        return min(sight.room or 0 for sight in self.sights)

    @property
    def reason(self) -> str:
        return (
            f"the client, the scheduler and {_count(len(self.sights) - 2, 'worker')} see "
            f"{_directory(self.request)}, with room for {format_bytes(self.room)}"
        )

    @property
    def reason_against(self) -> str:
        there = _directory(self.request)
        names = ["the scheduler", *["a worker"] * (len(self.sights) - 2)]
        for name, sight in zip(names, self.sights[1:], strict=True):
            if sight.room is None:
                mine = self.sights[0].host
                return f"{name} on {sight.host} does not see {there} of {mine}"
        return f"the client cannot write to {there}"


def _directory(request: StoreRequest) -> str:
    """Where a store keeps its objects."""
    parts = urlsplit(request.url or "")
    return str(dict(request.options).get("directory") or parts.path)


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' if n != 1 else ''}"
