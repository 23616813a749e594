"""What the stores of a cluster hold, and what was done with them, as the cluster says it.

Runs on the client.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from dask.utils import format_bytes, format_time
from distributed import Client

from daskps.client.link import ClusterLink
from daskps.client.opening import install_plugin
from daskps.client.shown import table
from daskps.messages import USAGE
from daskps.safety_net import PROCESS, count
from daskps.stores import opened
from daskps.stores.holdings import Holdings, add_holdings, together
from daskps.stores.reports import reports
from daskps.stores.traffic import Counts


class Usage(dict[str, dict[str, Any]]):
    """For each store of a cluster, by name, what it holds, and what was done with it.

    Each value is a dictionary. All sizes are bytes, of all hosts together if that is not
    said otherwise. What there is now:

    - ``store``: URL.
    - ``objects``, ``bytes``: what tasks and sessions need; ``idle``: bytes of those that no
      task needs at the moment; ``hits``: how often one of these objects was found stored
      already.
    - ``kept``: what sessions of this process keep for graphs that could follow, which is
      part of ``bytes``, or soon deleted; ``kept_at_most``.
    - ``results``, ``result_bytes``: objects that are results of workers which answered, and
      what they take besides. One that is another object all over, since a task has passed
      on what it was given, takes nothing; ``linked`` is the sum of these.
    - ``copies``: what hosts keep of what is stored elsewhere.
    - ``warm``: evicted objects whose memory is kept to be written anew; ``warm_at_most``.
    - ``room``: what may still be stored on the host that has least room; ``limit``: which
      limit makes that. None if nobody knows.

    What was done since the store was opened. Processes say so once a second; this one, and
    workers that answer, at once:

    - ``puts``, ``put_bytes``, ``put_seconds``: objects that were stored.
    - ``found``, ``found_bytes``: values that were not, since they were there.
    - ``reads``, ``read_bytes``, ``read_seconds``: objects that were read or mapped;
      ``wait_seconds``: what readers waited for a store that did not answer.
    - ``evictions``: objects that were deleted.
    - ``off_scheduler``: bytes of graphs, results and messages that went by reference, and
      would have gone through the scheduler.

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
    def off_scheduler(self) -> int:
        """Bytes that went by reference instead of through the scheduler."""
        return self._sum("off_scheduler")

    @property
    def total(self) -> int:
        """Bytes of all that is there: objects, results, copies, and what is kept warm."""
        return sum(map(self._sum, ("bytes", "result_bytes", "copies", "warm")))

    def _sum(self, what: str) -> int:
        return sum(row[what] for row in self.values())

    def __repr__(self) -> str:
        lines = ["; ".join(in_words(row)) for row in self.values()]
        return "\n".join([*lines, *self._remarks()]) or "no store is open"

    def _repr_html_(self) -> str:
        urls = Counter(row["store"] for row in self.values())
        columns = {}
        for name, row in self.items():
            url = row["store"]
            columns[url if urls[url] == 1 else f"{url} ({name})"] = in_rows(row)
        remarks = self._remarks() or ([] if columns else ["no store is open"])
        return table("daskps", columns, remarks)

    def _remarks(self) -> list[str]:
        if not self.faults:
            return []
        return [f"{self.faults} times as in plain Dask: see the log"]


def in_words(row: dict[str, Any]) -> list[str]:
    """What a store holds, and what was done with it, for people."""
    parts = [
        f"{row['store']}: {row['objects']} objects, {format_bytes(row['bytes'])}, "
        f"{row['hits']} hits"
    ]
    if row["results"]:
        parts.append(f"{row['results']} results, {format_bytes(row['result_bytes'])}")
    parts += _held_in_words(row)
    if row["room"] is not None:
        parts.append(f"room for {format_bytes(row['room'])} ({row['limit']})")
    return [*parts, *done_in_words(Counts.of_row(row))]


def _held_in_words(row: dict[str, Any]) -> list[str]:
    names = {"copies": "copies of other hosts", "warm": "kept warm"}
    return [f"{format_bytes(row[what])} {names[what]}" for what in names if row[what]]


def held_here_in_words(stores: set[str]) -> list[str]:
    """What this host holds of stores besides objects, for people."""
    here = [Holdings(*held) for held in opened.holdings(stores).values()]
    return _held_in_words(together(here))


def done_in_words(done: Counts) -> list[str]:
    """What was done with a store, for people."""
    parts = []
    if done.puts:
        took = f"{format_bytes(done.put_bytes)} in {format_time(done.put_seconds)}"
        parts.append(f"{done.puts} puts, {took}")
    if done.found:
        parts.append(f"{done.found} found again, {format_bytes(done.found_bytes)}")
    if done.reads:
        took = f"{format_bytes(done.read_bytes)} in {format_time(done.read_seconds)}"
        parts.append(f"{done.reads} reads, {took}")
    if done.wait_seconds:
        parts.append(f"{format_time(done.wait_seconds)} waiting")
    if done.evictions:
        parts.append(f"{done.evictions} evictions")
    if done.off_scheduler:
        parts.append(f"{format_bytes(done.off_scheduler)} kept off the scheduler")
    return parts


def in_rows(row: dict[str, Any]) -> dict[str, str]:
    """The same by heading, for tables."""
    rows = {
        "Objects": f"{row['objects']}, {format_bytes(row['bytes'])}",
        "Hits of these": str(row["hits"]),
        "Results": f"{row['results']}, {format_bytes(row['result_bytes'])}",
        "Copies of other hosts": format_bytes(row["copies"]),
        "Kept warm": format_bytes(row["warm"]),
    }
    if row["room"] is not None:
        rows["Room"] = f"{format_bytes(row['room'])} ({row['limit']})"
    return {**rows, **done_in_rows(Counts.of_row(row))}


def done_in_rows(done: Counts) -> dict[str, str]:
    """What was done with a store by heading, for tables."""

    def took(number: int, nbytes: int, seconds: float) -> str:
        return f"{number}, {format_bytes(nbytes)} in {format_time(seconds)}"

    return {
        "Puts": took(done.puts, done.put_bytes, done.put_seconds),
        "Found again": f"{done.found}, {format_bytes(done.found_bytes)}",
        "Reads": took(done.reads, done.read_bytes, done.read_seconds),
        "Waiting": format_time(done.wait_seconds),
        "Evictions": str(done.evictions),
        "Kept off the scheduler": format_bytes(done.off_scheduler),
    }


async def ask(client: Client) -> Usage:
    """Ask the cluster of a client, all but what sessions keep.

    Workers are asked what they hold; one that does not answer for two seconds is left out.
    """
    await install_plugin(client)
    mine = reports(ClusterLink.of(client).store_names())
    reply = await getattr(client.scheduler, USAGE)(reports=mine)
    usage = Usage(reply["stores"])
    usage.faults = sum({**reply["faults"], PROCESS: count()}.values())
    workers = reply["workers"]
    said = [opened.holdings(), reply["holdings"], *(w["holdings"] for w in workers)]
    for name, row in usage.items():
        results = [w["results"][name] for w in workers if name in w["results"]]
        row["results"] = sum(n for n, _ in results)
        row["result_bytes"] = sum(nbytes for _, nbytes in results)
        add_holdings(row, [Holdings(*one[name]) for one in said if name in one])
    return usage
