"""What the stores of a cluster held, second by second, for plots.

Runs on a scheduler that shows the dashboard, and costs it what one look at sums costs.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any, NamedTuple

from tornado.ioloop import PeriodicCallback

from daskps.scheduler.overview import UNSEEN_LOOK_SECONDS, Overview
from daskps.stores.traffic import Counts

SAMPLE_MILLISECONDS = 1000
# Half an hour.
SAMPLES_AT_MOST = 1800
# Rates are those of so many seconds.
RATE_SECONDS = 5.0

#: What takes memory, in the order in which plots stack it. By name: heading, and what it is
#: in :meth:`daskps.scheduler.overview.Overview.pictures`.
KINDS = {
    "needed": "needed by tasks",
    "idle": "kept for later graphs",
    "result_bytes": "results",
    "copies": "copies of other hosts",
    "warm": "kept warm",
}


class Sample(NamedTuple):
    """What all stores held together.

    Attributes
    ----------
    time
        When (``time.time``).
    nbytes
        By kind.
    """

    time: float
    nbytes: dict[str, int]


class HostRate(NamedTuple):
    """What one host has done.

    Attributes
    ----------
    puts, reads
        Bytes a second, lately.
    counts
        Since the stores were opened.
    """

    puts: float
    reads: float
    counts: Counts


class History:
    """Notes what there is once a second, from when the cluster has a store.

    Not thread-safe: runs on the scheduler's event loop.

    Parameters
    ----------
    overview
        What is looked at.
    """

    samples: deque[Sample]
    _by_host: deque[tuple[float, dict[str, Counts]]]

    def __init__(self, overview: Overview):
        self._overview = overview
        self.samples = deque(maxlen=SAMPLES_AT_MOST)
        self._by_host = deque()
        self._periodic = PeriodicCallback(self.note, SAMPLE_MILLISECONDS)
        self._periodic.start()

    def close(self) -> None:
        """Note nothing any more."""
        self._periodic.stop()

    def note(self) -> None:
        """Note what there is now."""
        now = time.time()
        rows = self._overview.pictures().values()
        if not rows:
            return
        self._overview.look(UNSEEN_LOOK_SECONDS)
        self.samples.append(Sample(now, sums(rows)))
        self._by_host.append((now, self._overview.traffic.by_host()))
        while now - self._by_host[0][0] > RATE_SECONDS and len(self._by_host) > 2:
            self._by_host.popleft()

    def rates(self) -> dict[str, HostRate]:
        """What each host has done lately, by name."""
        if not self._by_host:
            return {}
        (began, before), (ended, after) = self._by_host[0], self._by_host[-1]
        seconds = max(ended - began, SAMPLE_MILLISECONDS / 1000)
        rates = {}
        for host, counts in after.items():
            new = counts.minus(before.get(host, Counts()))
            rates[host] = HostRate(
                new.put_bytes / seconds, new.read_bytes / seconds, counts
            )
        return rates


def sums(rows: Any) -> dict[str, int]:
    """Bytes by kind, of all stores together."""
    found = dict.fromkeys(KINDS, 0)
    for row in rows:
        found["needed"] += row["bytes"] - row["idle"]
        for kind in KINDS:
            if kind != "needed":
                found[kind] += row[kind]
    return found
