"""Fixtures: a cluster for all tests, and the check that no test leaves anything."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator

# Before Dask reads it, also in child processes: with less data, tests are faster.
os.environ["DASK_DASKPS__THRESHOLD"] = "256 KiB"
# Faults are to fail tests, rather than cost speed.
os.environ["DASK_DASKPS__SAFETY_NET"] = "False"

import pytest
from distributed import Client
from hypothesis import settings
from processes import (
    PLACES,
    ProcessCluster,
    children,
    eventually,
    live,
    objects_in,
    released,
    servers,
    store_directories,
    who_needs_what,
)

# A machine that is busy with something else is no failure.
settings.register_profile("daskps", settings(), deadline=None)
settings.load_profile("daskps")


@pytest.fixture(scope="session")
def cluster() -> Iterator[ProcessCluster]:
    """A scheduler and two workers of one thread each, for all tests that only use it."""
    with ProcessCluster() as cluster:
        cluster.shared = True
        yield cluster


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[ProcessCluster]:
    """One like that for a module whose tests look at all that is in its store."""
    with ProcessCluster() as cluster:
        yield cluster


@pytest.fixture
def client(cluster: ProcessCluster) -> Iterator[Client]:
    """A plain client of the shared cluster, which must not leave an object behind."""
    with cluster.client() as client:
        yield client
        assert released(client), client.run_on_scheduler(who_needs_what)
    # Tests that follow count on it.
    ended = {w.pid: w.returncode for w in cluster.workers if w.poll() is not None}
    assert not ended, f"{ended}\n{cluster.log('worker')[-20_000:]}"
    assert eventually(lambda: not objects_in(cluster)), objects_in(cluster)
    if cluster.shared:
        # Its scheduler would keep one, and a server, for all tests that look for theirs.
        assert not any("daskps-peer" in directory for directory in cluster.owned)


@pytest.fixture
def other_client(cluster: ProcessCluster, client: Client) -> Iterator[Client]:
    """Another client of the same cluster, not the default one."""
    with cluster.client(set_as_default=False) as other:
        yield other


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """No test leaves a directory of a store or a process."""
    directories, processes = store_directories(), children()

    def left() -> set[str]:
        new = store_directories() - directories
        if new:
            gc.collect()
            new -= {d for cluster in live for d in cluster.owned}
        return new

    yield
    eventually(lambda: not left())
    assert not left()
    eventually(lambda: children() <= processes)
    assert children() <= processes


@pytest.fixture(scope="session", autouse=True)
def no_leaks_at_the_end() -> Iterator[None]:
    """Nor does the shared cluster."""
    yield
    assert not live
    assert not servers
    for place in PLACES:
        left = [name for name in os.listdir(place) if name.startswith("daskps")]
        shutil.rmtree(place)
        assert not left
