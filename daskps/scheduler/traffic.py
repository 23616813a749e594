"""What all processes of a cluster have put into its stores and read, by store and host.

Processes say what was added since they last did (:mod:`daskps.stores.reports`). Runs on the
scheduler.
"""

from __future__ import annotations

from collections.abc import Sequence

from daskps.stores.traffic import NOTHING, Counts, total


class ClusterTraffic:
    """Adds up reports. Not thread-safe."""

    #: By store and host.
    _counts: dict[str, dict[str, Counts]]
    #: How many objects are of results, and their bytes, by store and worker.
    _results: dict[str, dict[str, tuple[int, int]]]

    def __init__(self) -> None:
        self._counts = {}
        self._results = {}

    def add(self, store: str, host: str, counts: Sequence[float]) -> None:
        """A process on a host has done more with a store."""
        hosts = self._counts.setdefault(store, {})
        hosts[host] = hosts.get(host, NOTHING).plus(Counts._make(counts))

    def has_results(self, store: str, worker: str, results: Sequence[int]) -> None:
        """A worker has so many objects of results (their number, and their bytes)."""
        number, nbytes = results
        if number:
            self._results.setdefault(store, {})[worker] = number, nbytes
        else:
            self._results.get(store, {}).pop(worker, None)

    def worker_gone(self, worker: str) -> None:
        """Its results are deleted."""
        for workers in self._results.values():
            workers.pop(worker, None)

    def of(self, store: str) -> Counts:
        """What was done with a store on all hosts."""
        return total(self._counts.get(store, {}).values())

    def by_host(self) -> dict[str, Counts]:
        """What was done on each host with all stores."""
        hosts: dict[str, list[Counts]] = {}
        for found in self._counts.values():
            for host, counts in found.items():
                hosts.setdefault(host, []).append(counts)
        return {host: total(counts) for host, counts in hosts.items()}

    def results(self, store: str) -> tuple[int, int]:
        """How many objects of a store are of results, and their bytes."""
        workers = self._results.get(store, {}).values()
        return sum(n for n, _ in workers), sum(nbytes for _, nbytes in workers)
