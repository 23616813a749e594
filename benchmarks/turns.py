"""Peers take turns at one scenario, on clusters that are alike."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from benchmarks import counters
from benchmarks.cluster import Cluster
from benchmarks.peers import LIMIT, OURS, PEERS, RAY, Peer
from benchmarks.results import Comparison, Measured, Run
from benchmarks.scenario import Scenario


class Clusters(NamedTuple):
    """Two clusters that are alike.

    Once daskps was used on a cluster, its workers pass results to each other through the
    store, whoever submits the tasks. So daskps has a cluster of its own.
    """

    plain: Cluster
    ours: Cluster

    def of(self, peer: str) -> Cluster:
        """Where a peer works."""
        return self.ours if peer in OURS else self.plain


class Participant(Protocol):
    """Who can do a scenario."""

    def run(self, scenario: Scenario) -> Run:
        """Do it once, on fresh data."""


@dataclass(frozen=True)
class Rounds:
    """How often peers take their turns.

    Attributes
    ----------
    least, most
        How many rounds.
    seconds
        When to stop between the two. After four times that, three rounds are enough.
    warm_up
        Rounds before that, which do not count.
    """

    least: int = 5
    most: int = 51
    seconds: float = 8.0
    warm_up: int = 4

    def brief(self) -> Rounds:
        """Fewer of them, in a quarter of the time."""
        return replace(
            self,
            least=min(self.least, 3),
            seconds=self.seconds / 4,
            warm_up=min(self.warm_up, 1),
        )

    def over(self, done: int, since: float) -> bool:
        """Whether enough rounds are done that began at this time (``monotonic``)."""
        passed = time.monotonic() - since
        if done >= self.least:
            return done >= self.most or passed > self.seconds
        return done >= 3 and passed > 4 * self.seconds


@dataclass(frozen=True)
class _Limit:
    """Plain Dask does the same work with no data shipped."""

    peer: Peer

    def run(self, scenario: Scenario) -> Run:
        assert scenario.limit is not None
        return self.peer.do(scenario.limit)


def compare(
    clusters: Clusters,
    scenario: Scenario,
    rounds: Rounds,
    ray: Participant | None = None,
    progress: Callable[[str], None] = lambda peer: None,
) -> Comparison:
    """Measure all peers in turn, each run on data of its own.

    The order of the peers is turned round after each round.

    Parameters
    ----------
    clusters
        Where.
    scenario
        What.
    rounds
        How often.
    ray
        Does what Ray can do; None: without.
    progress
        Called before each run, with the peer's name.
    """
    names = [name for name in scenario.peers if name in PEERS]
    rounds = rounds.brief() if scenario.brief else rounds
    with contextlib.ExitStack() as stack:
        peers = {
            name: stack.enter_context(PEERS[name](clusters.of(name))) for name in names
        }
        for peer in peers.values():
            counters.install(peer.client)
        turns: dict[str, Participant] = dict(peers)
        if ray is not None and RAY in scenario.peers:
            turns[RAY] = ray
        if scenario.limit is not None:
            turns[LIMIT] = _Limit(peers["dask"])
        measured = {name: Measured() for name in turns}
        # What is there by now need not be looked at before each run.
        gc.collect()
        gc.freeze()
        start = time.monotonic()
        done = -rounds.warm_up
        while not rounds.over(done, start):
            if done == 0:
                start = time.monotonic()
            order = list(turns) if done % 2 == 0 else list(reversed(turns))
            for name in order:
                progress(name)
                run = turns[name].run(scenario)
                if done >= 0:
                    measured[name].runs.append(run)
            done += 1
    return Comparison(
        scenario.name,
        scenario.group,
        scenario.at,
        scenario.tasks,
        measured,
        scenario.panel,
    )


def with_copies(comparison: Comparison, scenario: Scenario) -> Comparison:
    """Count copies as well, on a cluster of its own, which has a single worker.

    Counting slows everything down, so these runs are not timed.
    """
    counted = dict(comparison.peers)
    with Cluster(1) as c:
        for name in comparison.peers:
            if name in PEERS:
                with PEERS[name](c) as peer:
                    counters.install(peer.client)
                    peer.run(scenario)  # to warm up
                    copies = peer.copies(scenario)
                counted[name] = replace(counted[name], copies=copies)
    return replace(comparison, peers=counted)
