"""Which store suits a cluster, where the user names none. Runs on the client.

The client makes a private directory with a random name, and the scheduler and all workers
say whether they see it. That is what a store has to rely on; host names and addresses are
not, since containers on one host may have memory of their own, and hosts may share disks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from dask.utils import format_bytes

from daskps.stores.probe import Sight, look, look_from_scheduler, probes
from daskps.stores.remarks import Remark
from daskps.stores.requests import UrlRequest
from daskps.tls import encrypts

if TYPE_CHECKING:
    from distributed import Client


class Choice(NamedTuple):
    """A store, and why it is this one.

    Attributes
    ----------
    request
        The store.
    reason
        For people.
    remark
        What they should know besides, if the store does not say it.
    """

    request: UrlRequest
    reason: str
    remark: Remark | None = None

    def __str__(self) -> str:
        return f"{self.request.url} ({self.reason})"


class Choices(NamedTuple):
    """The stores that may suit a cluster.

    Attributes
    ----------
    stores
        The best one first.
    against
        Why there are no others, for people.
    workers
        How many workers were asked.
    """

    stores: list[Choice]
    against: str
    workers: int


async def choose(client: Client, candidates: tuple[UrlRequest, ...]) -> Choices:
    """Find the stores that the client, the scheduler and all workers can use.

    Parameters
    ----------
    client
        Connected.
    candidates
        Stores to choose from: in memory, in a shared directory if there may be one, and
        one between hosts, which encrypts what it sends if the cluster does.
    """
    from daskps.stores.files.places import spill_directory

    *in_directories, peer = candidates
    directories = [_directory(request) for request in in_directories]
    # Where the store in memory keeps its objects if there is no memory.
    directories.append(spill_directory())
    with probes(directories) as paths:
        here = look(paths)
        scheduler, addresses = await client.run_on_scheduler(look_from_scheduler, paths)
        # One that dies meanwhile does not matter, nor does one without daskps: it is
        # found out when the store is opened.
        workers = await client.run(look, paths, on_error="ignore")
    answers = [here, scheduler, *workers.values()]
    requests = [*in_directories, in_directories[0]]
    seen = [
        _Seen(request, directory, [Sight(*answer[i]) for answer in answers])
        for i, (request, directory) in enumerate(
            zip(requests, directories, strict=True)
        )
    ]
    stores, why = _on_one_host(seen) if workers else ([], "there is no worker yet")
    if any(map(encrypts, addresses)):
        why += ", and peer:// encrypts what it sends, as this cluster does"
    elif encrypts(client.scheduler.address):
        why += (
            f", and what this client sends to {client.scheduler.address} is encrypted, "
            "but not what is sent within the cluster, so that peer:// would not be either"
        )
        return Choices(stores, why, len(workers))
    return Choices([*stores, Choice(peer, why)], why, len(workers))


def _on_one_host(seen: list[_Seen]) -> tuple[list[Choice], str]:
    """Stores in directories that all see, and why there are no others.

    Parameters
    ----------
    seen
        The directory in memory, others, and the one that takes the first one's place.
    """
    from daskps.stores.files.places import without_memory

    memory, *_, spill = seen
    stores = [Choice(one.request, one.reason) for one in seen[:-1] if one.by_all]
    if memory.by_client:
        return stores, memory.reason_against
    remark = without_memory(memory.directory, spill.directory)
    stores = [choice._replace(remark=remark) for choice in stores]
    if spill.by_all:
        stores.append(Choice(spill.request, spill.reason, remark))
    return stores, f"{memory.reason_against}, and {spill.reason_against}"


class _Seen(NamedTuple):
    """A store in a directory, and who sees the directory: first the client."""

    request: UrlRequest
    directory: str
    sights: list[Sight]

    @property
    def by_client(self) -> bool:
        return self.sights[0].room is not None

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
            f"{self.directory}, with room for {format_bytes(self.room)}"
        )

    @property
    def reason_against(self) -> str:
        there = self.directory
        if not self.by_client:
            return f"the client, on {self.sights[0].host}, cannot write to {there}"
        names = ["the scheduler", *["a worker"] * (len(self.sights) - 2)]
        for name, sight in zip(names, self.sights[1:], strict=True):
            if sight.room is None:
                mine = self.sights[0].host
                return f"{name} on {sight.host} does not see {there} of {mine}"
        return f"all see {there}"


def _directory(request: UrlRequest) -> str:
    """Where a store keeps its objects."""
    parts = urlsplit(request.url)
    return str(dict(request.options).get("directory") or parts.path)


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' if n != 1 else ''}"
