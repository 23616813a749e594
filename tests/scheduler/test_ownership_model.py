"""The ownership protocol against a simple model of it.

A real scheduler, with :class:`LifetimePlugin`, two workers that can be replaced and two
clients live in this process, on one event loop. Random steps submit graphs that share
values and use each other's results, compute collections, read large results by reference,
release futures, retry what failed, restart the cluster, and end workers, clients and
sessions. After every step no object that a task or a
handle needs is missing, and at the end none is left.

The model knows nothing of Dask. It follows what clients want and what must come out, and so
which tasks there must be.

By default this runs some steps, and some hundreds as a slow test. For 10,000 and more, with
their number by kind::

    export DASKPS_MODEL_STEPS=10000
    python -m pytest -s -m slow tests/scheduler/test_ownership_model.py
"""

from __future__ import annotations

import asyncio
import functools
import gc
import os
from collections import Counter

import dask
import dask.array as da
import distributed.core
import distributed.utils
import numpy as np
import pytest
from distributed import Client, Scheduler, Worker
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from daskps.client.link import ClusterLink
from daskps.client.session import Session, activated
from daskps.settings import Settings
from daskps.stores import opened

STEPS = int(os.environ.get("DASKPS_MODEL_STEPS", "500"))
LONG = "DASKPS_MODEL_STEPS" in os.environ
STEPS_IN_A_RUN = 30
#: Seconds: nothing takes that long unless it hangs, on a busy machine either.
PATIENCE = 120
#: The values that graphs share: 128 KiB each, above the threshold below.
VALUES = [np.full(1 << 14, i, "f8") for i in range(5)]
SETTINGS = {
    "daskps.threshold": "64 KiB",
    "daskps.cache-size": "300 KiB",  # two of the values
    "distributed.scheduler.allowed-failures": 1000,
    "distributed.worker.memory.target": False,
    "distributed.admin.system-monitor.interval": "10s",
}


def combine(value, *others):
    """What tasks compute: it shows which value was read."""
    return float(value[0]) + sum(float(np.ravel(other)[0]) for other in others)


def combine_to_array(value, *others):
    """The same, in each element of a result that is above the threshold."""
    return np.full(len(value), combine(value, *others))


#: How often each kind of step was taken.
TAKEN: Counter[str] = Counter()


def counted(step):
    """Count this step."""

    @functools.wraps(step)
    def take(self, *args, **kwargs):
        TAKEN[step.__name__] += 1
        self.last = step.__name__
        return step(self, *args, **kwargs)

    return take


#: Which tasks have failed once. In this process, as the workers are.
FAILED: set[str] = set()


def fails_first(value, name):
    if name not in FAILED:
        FAILED.add(name)
        raise ValueError(name)
    return float(value[0])


CLIENTS = st.integers(0, 1)
NUMBERS = st.integers(0, len(VALUES) - 1)


class Machine(RuleBasedStateMachine):
    """Steps, and what must hold after each."""

    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.count = 0
        #: The kind of the step before.
        self.last = ""
        #: The model. By future's name: its client's number, the future, whether its task
        #: needs a value itself, what it must give, and the names of what it depends on.
        self.futures: dict[str, tuple[int, object, bool, float, list[str]]] = {}

    def run(self, coroutine):
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, PATIENCE))

    @initialize()
    def start(self):
        self.config = dask.config.set(SETTINGS)
        self.config.__enter__()
        self.run(self._start())

    async def _start(self):
        FAILED.clear()
        self.scheduler = await Scheduler(
            port=0, dashboard_address=None, host="127.0.0.1"
        )
        self.workers = [await self._worker() for _ in range(2)]
        self.clients = [await self._client() for _ in range(2)]
        self.sessions = [None, None]
        for i in range(2):
            await self._enter(i)

    async def _worker(self):
        return await Worker(self.scheduler.address, nthreads=1, dashboard_address=None)

    async def _client(self):
        return await Client(
            self.scheduler.address, asynchronous=True, set_as_default=False
        )

    async def _enter(self, i):
        self.sessions[i] = Session(Settings.resolve(), self.clients[i])
        await self.sessions[i].open_async()

    # Steps

    @rule(i=CLIENTS, value=NUMBERS, large=st.booleans(), data=st.data())
    @counted
    def submit(self, i, value, large, data):
        """A task that needs a value, and results of the same client."""
        mine = [n for n, f in self.futures.items() if f[0] == i]
        needs = data.draw(
            st.lists(st.sampled_from(mine), max_size=2, unique=True)
            if mine
            else st.just([])
        )
        self.count += 1
        name = f"task-{self.count}"
        others = [self.futures[n] for n in needs]
        expected = value + sum(f[3] for f in others)
        function = combine_to_array if large else combine
        task = (function, value, *(f[1] for f in others))
        self._submit(i, task, name, (True, expected, needs))

    @rule(i=CLIENTS, values=st.lists(NUMBERS, min_size=1, max_size=3))
    @counted
    def compute_a_collection(self, i, values):
        """Blocks of an array: the scheduler fuses their tasks with others."""
        self.count += 1
        name = f"array-{self.count}"

        async def submit():
            with activated(self.sessions[i]):
                x = np.concatenate([VALUES[value] for value in values])
                y = da.from_array(x, chunks=len(VALUES[0]), name=name) + 1
                return self.clients[i].compute(y.max())

        self.futures[name] = (i, self.run(submit()), False, max(values) + 1, [])

    @rule(i=CLIENTS, value=NUMBERS)
    @counted
    def submit_what_fails_first(self, i, value):
        """A task that has to be retried."""
        self.count += 1
        name = f"fails-{self.count}"
        self._submit(i, (fails_first, value, name), name, (True, value, []))

    @rule(value=NUMBERS)
    @counted
    def submit_the_same_with_both(self, value):
        """Two clients want one task; either may go first."""
        self.count += 1
        name = f"shared-{self.count}"
        for i in range(2):
            self._submit(i, (combine, value), name, (True, value, []), f"{name}-{i}")

    def _submit(self, i, task, key, known, name=None):
        function, value, *others = task

        async def submit():
            with activated(self.sessions[i]):
                # A new array: it is known again by its content only.
                x = VALUES[value].copy()
                return self.clients[i].submit(function, x, *others, key=key)

        self.futures[name or key] = (i, self.run(submit()), *known)

    @precondition(lambda self: self.futures)
    @rule(data=st.data())
    @counted
    def release(self, data):
        name = data.draw(st.sampled_from(sorted(self.futures)))
        self._forget([name])

    @precondition(lambda self: self.futures)
    @rule(data=st.data())
    @counted
    def read(self, data):
        """The right answer, whatever has died."""
        name = data.draw(st.sampled_from(sorted(self.futures)))
        self.run(self._read(name))

    async def _read(self, name):
        i, future, _, expected, _ = self.futures[name]
        try:
            assert np.all(await future == expected)
        except ValueError as e:
            assert str(e).startswith("fails-")  # noqa: PT017 - it is one of two answers
            await self._retry(self.clients[i], future.key)
            assert np.all(await future == expected)

    async def _retry(self, client, key):
        # Client.retry raises KeyError if a dependency that failed too was released
        # (distributed 2026.8.0).
        for retried in await client.scheduler.retry(keys=[key], client=client.id):
            if retried in client.futures:
                client.futures[retried].retry()

    @rule(which=st.integers(0, 1))
    @counted
    def a_worker_is_lost(self, which):
        """At once, with what it runs and has; another one comes."""
        self.run(self._replace(which))

    async def _replace(self, which):
        worker = self.workers[which]
        await self.scheduler.remove_worker(
            worker.address, stimulus_id="test", close=False
        )
        await worker.close(executor_wait=False, nanny=False)
        # These keep every worker of this process that ever handled a message, with its
        # results (distributed 2026.8.0).
        distributed.core._expects_comm.cache_clear()
        distributed.utils.has_keyword.cache_clear()
        self.workers[which] = await self._worker()

    @rule(i=CLIENTS)
    @counted
    def a_client_is_lost(self, i):
        """Its connection ends, with all that it wanted."""
        self.run(self._lose(i))

    async def _lose(self, i):
        lost = self.clients[i]
        self._drop([n for n, f in self.futures.items() if f[0] == i])
        lost.scheduler_comm.abort()
        await lost.close(timeout=1)
        self.sessions[i].close()
        self.clients[i] = await self._client()
        await self._enter(i)

    @rule(i=CLIENTS)
    @counted
    def the_session_ends(self, i):
        """Its cache goes; another one begins."""

        async def change():
            self.sessions[i].close()
            await self._enter(i)

        self.run(change())

    # Twice in a row shows nothing that once does not, and takes longer than other steps.
    @precondition(lambda self: self.last != "restart")
    @rule()
    @counted
    def restart(self):
        """All tasks are forgotten."""

        async def restart():
            # As Scheduler.restart, without nannies.
            for cs in self.scheduler.clients.values():
                self.scheduler.client_releases_keys(
                    keys=[ts.key for ts in cs.wants_what],
                    client=cs.client_key,
                    stimulus_id="restart",
                )
            self.scheduler._clear_task_state()
            self.scheduler.report({"op": "restart"})
            for plugin in list(self.scheduler.plugins.values()):
                plugin.restart(self.scheduler)
            for which in range(2):
                await self._replace(which)

        self.run(restart())
        self._drop(list(self.futures))

    def _forget(self, names):
        for name in names:
            self.futures[name][1].release()
        self._drop(names)

    def _drop(self, names):
        for name in names:
            del self.futures[name]
        gc.collect(0)

    # What must hold

    @invariant()
    def nothing_that_is_needed_is_missing(self):
        if not hasattr(self, "clients"):
            return
        self.run(self._settle())
        plugin = self.scheduler.plugins["daskps"]
        # The real scheduler's tasks, and the handles of the real clients.
        for key, needed in plugin._by_task.items():
            assert key in self.scheduler.tasks, f"{key} was forgotten"
            for id in needed:
                assert self._there(id), f"{key} needs {id}"
        for i in range(2):
            link = ClusterLink.of(self.clients[i])
            for catalog in link._catalogs.values():
                for id in catalog.held():
                    assert self._there(id), f"client {i} holds {id}"
        # The model's: what is wanted, and all that it depends on.
        for name, (_, future, needs_value, _, _) in self.futures.items():
            assert future.key in self.scheduler.tasks, f"{name} is wanted"
            if needs_value:
                assert future.key in plugin._by_task, f"{name} needs an object"

    async def _settle(self):
        """Until messages have arrived and evictions are done."""
        for _ in range(100 * PATIENCE):
            # The scheduler unpacks graphs in a thread. A key may be there meanwhile because
            # another client wanted it, and be forgotten before this client's graph is.
            if all(self._is_wanted(i, f.key) for i, f, *_ in self.futures.values()):
                break
            await asyncio.sleep(0.01)
        for _ in range(3):
            for client in self.clients:
                await client.scheduler.identity()
            await asyncio.sleep(0.01)

    def _is_wanted(self, i, key):
        """Whether the scheduler knows that a client wants a task."""
        task = self.scheduler.tasks.get(key)
        client = self.clients[i].id
        return task is not None and client in {
            cs.client_key for cs in task.who_wants or ()
        }

    @staticmethod
    def _there(id):
        return opened.get(id.store).connector.exists(id.key)

    @invariant()
    def nothing_is_kept_for_nobody(self):
        if not hasattr(self, "clients"):
            return
        plugin = self.scheduler.plugins["daskps"]
        for id, entry in plugin._objects.items():
            assert entry.tasks or entry.clients, f"nobody needs {id}"
            assert entry.tasks <= set(self.scheduler.tasks)
            assert entry.clients <= {client.id for client in self.clients}

    def teardown(self):
        if not hasattr(self, "clients"):
            self.loop.close()
            return
        try:
            for name in sorted(self.futures):
                self.run(self._read(name))
            self._forget(list(self.futures))
            self.run(self._nothing_is_left())
        finally:
            self.run(self._close())
            self.loop.close()
            self.config.__exit__(None, None, None)

    async def _nothing_is_left(self):
        for session in self.sessions:
            session.close()
        plugin = self.scheduler.plugins["daskps"]
        for _ in range(10 * PATIENCE):
            left = [
                name
                for store in plugin._stores.values()
                for directory in store.connector.directories
                for name in os.listdir(directory)
                if not name.startswith(("owner.lock", "free."))
            ]
            if not plugin._objects and not self.scheduler.tasks and not left:
                return
            # Both workers are in this process, and store each other's results: what a
            # lost one had stays until that worker is collected.
            gc.collect()
            await asyncio.sleep(0.1)
        raise AssertionError(f"left: {plugin._objects}, {self.scheduler.tasks}, {left}")

    async def _close(self):
        for client in self.clients:
            await client.close(timeout=PATIENCE)
        for worker in self.workers:
            await worker.close(nanny=False)
        await self.scheduler.close()


@pytest.mark.timeout(max(600, 3 * STEPS))
@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(150, id="few"),
        pytest.param(STEPS, id="many", marks=pytest.mark.slow),
    ],
)
def test_the_scheduler_owns_objects_as_the_model_does(steps):
    TAKEN.clear()
    while TAKEN.total() < steps:
        left = steps - TAKEN.total()
        run_state_machine_as_test(
            Machine,
            settings=settings(
                # A long run looks for what is not known yet. The default suite has the
                # same steps each time.
                derandomize=not LONG,
                # Some runs end early.
                max_examples=max(1, left // STEPS_IN_A_RUN),
                stateful_step_count=STEPS_IN_A_RUN,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    print(f"\n{TAKEN.total()} steps: {dict(TAKEN.most_common())}")
