"""What the stores of a cluster hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dask.utils import format_bytes
from distributed import Client, default_client

from daskps.client.opening import install_plugin
from daskps.client.session import kept_in, sessions_here
from daskps.messages import USAGE
from daskps.safety_net import PROCESS, count
from daskps.stores import opened
from daskps.stores.holdings import Holdings


class Usage(dict[str, dict[str, Any]]):
    """For each store of a cluster, by name, what it holds.

    Each value is a dictionary. All sizes are bytes, of all hosts together if that is not
    said otherwise:

    - ``store``: URL.
    - ``objects``, ``bytes``: what tasks and sessions need; ``hits``: how often one of these
      objects was found stored already.
    - ``kept``: what sessions of this process keep for graphs that could follow, which is
      part of ``bytes``, or soon deleted; ``kept_at_most``.
    - ``results``, ``result_bytes``: objects that are results of workers which answered.
    - ``copies``: what hosts keep of what is stored elsewhere.
    - ``warm``: evicted objects whose memory is kept to be written anew; ``warm_at_most``.
    - ``room``: what may still be stored on the host that has least room; ``limit``: which
      limit makes that. None if nobody knows.

    Attributes
    ----------
    faults
        How often something could not be treated, here, on the scheduler or on a worker, and
        went as in plain Dask. The log says what.
    """

    faults: int = 0

    @property
    def objects(self) -> int:
        """Objects in all stores, but for results."""
        return self._sum("objects")

    @property
    def nbytes(self) -> int:
        """Bytes of these objects."""
        return self._sum("bytes")

    @property
    def hits(self) -> int:
        """Hits in all stores."""
        return self._sum("hits")

    @property
    def total(self) -> int:
        """Bytes of all that is there: objects, results, copies, and what is kept warm."""
        return sum(map(self._sum, ("bytes", "result_bytes", "copies", "warm")))

    def _sum(self, what: str) -> int:
        return sum(row[what] for row in self.values())

    def __repr__(self) -> str:
        lines = [_line(row) for row in self.values()]
        if self.faults:
            lines.append(f"{self.faults} times as in plain Dask: see the log")
        return "\n".join(lines) or "no store is open"


def _line(row: dict[str, Any]) -> str:
    parts = [
        f"{row['store']}: {row['objects']} objects, {format_bytes(row['bytes'])}, "
        f"{row['hits']} hits"
    ]
    if row["results"]:
        parts.append(f"{row['results']} results, {format_bytes(row['result_bytes'])}")
    for what, name in (("copies", "copies of other hosts"), ("warm", "kept warm")):
        if row[what]:
            parts.append(f"{format_bytes(row[what])} {name}")
    if row["room"] is not None:
        parts.append(f"room for {format_bytes(row['room'])} ({row['limit']})")
    return "; ".join(parts)


def usage(client: Client | None = None) -> Any:
    """What the stores of a cluster hold now, and how much room they have left.

    Workers are asked what they hold; one that does not answer for two seconds is left out.

    Parameters
    ----------
    client
        Whose cluster. Default: that of the client that the innermost block around this
        call is for, if it names one; otherwise the current client.

    Returns
    -------
    Usage
        Empty if no session was opened on the cluster. For an asynchronous client, a
        coroutine that gives one.

    Raises
    ------
    ValueError
        If there is no client.
    TypeError
        If `client` is none.

    Examples
    --------
    >>> daskps.usage()  # doctest: +SKIP
    shm://: 64 objects, 256.00 MiB, 0 hits; room for 11.42 GiB (the machine's memory)
    """
    if client is None:
        here = sessions_here()
        client = (here[-1].client if here else None) or default_client()
    elif not isinstance(client, Client):
        raise TypeError(f"usage() takes a distributed.Client, not {client!r}")
    return client.sync(_usage, client)


async def _usage(client: Client) -> Usage:
    await install_plugin(client)
    reply = await getattr(client.scheduler, USAGE)()
    usage = Usage(reply["stores"])
    usage.faults = sum({**reply["faults"], PROCESS: count()}.values())
    workers = reply["workers"]
    said = [opened.holdings(), reply["holdings"], *(w["holdings"] for w in workers)]
    for name, row in usage.items():
        row["kept"], row["kept_at_most"] = kept_in(client, name)
        results = [w["results"][name] for w in workers if name in w["results"]]
        row["results"] = sum(n for n, _ in results)
        row["result_bytes"] = sum(nbytes for _, nbytes in results)
        row.update(_on_hosts(Holdings(*one[name]) for one in said if name in one))
    return usage


def _on_hosts(said: Iterable[Holdings]) -> dict[str, Any]:
    """What hosts hold together, of which several processes may have said it."""
    hosts = list({one.place: one for one in said}.values())
    least = min(hosts, key=lambda one: one.room, default=None)
    return {
        "copies": sum(one.copies for one in hosts),
        "warm": sum(one.warm for one in hosts),
        "warm_at_most": sum(one.warm_at_most for one in hosts),
        "room": None if least is None else least.room,
        "limit": None if least is None else least.limit,
    }
