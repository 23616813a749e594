"""Where tasks run whose worker cannot read from a store. Runs on the scheduler.

A worker says when it cannot open a store, for now or for good, and when it can again; and it
gives back tasks that need what it cannot read (:mod:`daskps.references.giving_back`). Such a
task

- goes to a worker that is not known to be unable, and to which it has not been yet; or, if
  there is none,
- is kept until a worker says that it can, or a while has passed, if one may be able by then;
  or, if all are unable for good or have been so for the store's read timeout,
- fails, with the error of the worker that gave it back.

Only workers count that the task's annotations allow. Tasks that were never given back are
placed by Dask alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from daskps.dask_private.scheduling import (
    Placement,
    fail,
    fill_slots,
    leave_worker,
    place_again,
)
from daskps.messages import ACCESS, RETURNED

if TYPE_CHECKING:
    from distributed import Scheduler

# Pauses (seconds) after which a task that nobody could run is tried again.
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 5.0
# The address of no worker.
NOWHERE = "daskps-waits"


@dataclass
class _Task:
    """A task that was given back.

    Attributes
    ----------
    placement
        Where it may run.
    store
        What its last worker could not read from.
    deadline
        Until when (``time.monotonic``) workers are tried that could not read.
    tried
        Addresses of workers that gave it back, since the last pause.
    pause
        How long (seconds) the next pause is.
    pausing
        Whether there is a pause now.
    """

    placement: Placement
    store: str
    deadline: float
    tried: set[str] = field(default_factory=set)
    pause: float = FIRST_PAUSE_SECONDS
    pausing: bool = False


class Returns:
    """Finds workers for tasks that were given back.

    Not thread-safe: everything runs on the scheduler's event loop.

    Parameters
    ----------
    scheduler
        The scheduler.
    has_store
        Whether the cluster has a store of this name.
    """

    #: Tasks that were given back and have not come to an end yet, by key.
    _tasks: dict[Any, _Task]
    #: For each store, the workers that cannot open it, and until when (``time.monotonic``)
    #: that may change.
    _unable: dict[str, dict[str, float]]

    def __init__(self, scheduler: Scheduler, has_store: Callable[[str], bool]):
        self._scheduler = scheduler
        self._has_store = has_store
        self._tasks = {}
        self._unable = {}

    def handlers(self) -> dict[str, Callable[..., None]]:
        """What to call with messages of workers."""
        return {ACCESS: self.access, RETURNED: self.returned}

    # What workers say

    def access(self, worker: str, store: str, access: str, patience: float) -> None:
        """A worker cannot open a store, now ("later") or for good ("never"), or it can."""
        unable = self._unable.setdefault(store, {})
        if access == "open":
            unable.pop(worker, None)
            self._place_all()
        elif worker in self._scheduler.workers:
            unable[worker] = 0.0 if access == "never" else time.monotonic() + patience

    def returned(
        self,
        worker: str,
        key: Any,
        store: str,
        patience: float,
        failure: dict[str, Any],
    ) -> None:
        """A worker gives back a task; it forgets it as soon as this has been handled."""
        ts = self._scheduler.tasks.get(key)
        if ts is None or ts.processing_on is None or ts.run_id != failure["run_id"]:
            return  # it is not this worker's any more
        task = self._tasks.get(key)
        if task is None:
            deadline = time.monotonic() + patience
            task = self._tasks[key] = _Task(Placement(ts), store, deadline)
        task.store = store
        task.tried.add(worker)
        if self._has_store(store) and self._place(key, task):
            leave_worker(ts)
            return
        self._end(key)
        fail(self._scheduler, key, worker, failure)

    # What happens on the scheduler

    def transition(self, key: Any, finish: str) -> None:
        """A task has changed its state."""
        if key not in self._tasks:
            return
        if finish in ("memory", "erred", "forgotten"):
            self._end(key)
        elif finish == "released":
            self._scheduler.loop.add_callback(fill_slots, self._scheduler)

    def restart(self) -> None:
        """All tasks are gone."""
        for key in list(self._tasks):
            self._end(key)

    def add_worker(self) -> None:
        """A worker has joined."""
        self._place_all()

    def remove_worker(self, worker: str) -> None:
        """A worker is gone."""
        for unable in self._unable.values():
            unable.pop(worker, None)
        for task in self._tasks.values():
            task.tried.discard(worker)
        self._place_all()

    # Placement

    def _place_all(self) -> None:
        for key, task in list(self._tasks.items()):
            # Placing one task may end others.
            if self._tasks.get(key) is task and not self._place(key, task):
                # It fails where it runs next, unless that worker has recovered.
                self._let_go(task)

    def _place(self, key: Any, task: _Task) -> bool:
        """Say where a task is to run; whether it may run somewhere, sooner or later."""
        unable = self._unable.get(task.store, {})
        allowed = self._allowed(task)
        avoided = {*unable, *task.tried}
        choices = ([a for a in some if a not in avoided] for some in allowed)
        able = next(filter(None, choices), None)
        if able is not None:
            task.placement.restrict(able)
            place_again(self._scheduler, task.placement.task)
            return True
        now = time.monotonic()
        if any(now < unable.get(address, task.deadline) for address in allowed[-1]):
            self._keep(key, task)
            return True
        return False

    def _allowed(self, task: _Task) -> list[list[str]]:
        """The workers on which a task may run, and those that are second choice."""
        workers = self._scheduler.workers
        named = [
            address
            for address, ws in workers.items()
            if task.placement.allows(self._scheduler, ws)
        ]
        return [named, list(workers)] if task.placement.loose else [named]

    def _keep(self, key: Any, task: _Task) -> None:
        """Keep a task until a worker can run it, or for a while."""
        task.placement.restrict([NOWHERE])
        if not task.pausing:
            task.pausing = True
            loop = self._scheduler.loop
            loop.call_later(task.pause, self._pause_has_passed, key, task)
            task.pause = min(2 * task.pause, LONGEST_PAUSE_SECONDS)

    def _pause_has_passed(self, key: Any, task: _Task) -> None:
        if self._tasks.get(key) is not task:
            return
        task.pausing = False
        task.tried.clear()
        if not self._place(key, task):
            self._let_go(task)

    def _let_go(self, task: _Task) -> None:
        task.placement.restore()
        place_again(self._scheduler, task.placement.task)

    def _end(self, key: Any) -> None:
        self._tasks.pop(key).placement.restore()
