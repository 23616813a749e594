"""How tasks are placed, given back and failed.

Checked with dask and distributed 2025.4.0 and 2026.8.0. What is used:

``distributed.scheduler.TaskState._queueable``
    Whether a task without dependencies waits on the scheduler until a thread is free.
``distributed.scheduler.TaskState.worker_restrictions``, ``host_restrictions``,
``distributed.Scheduler.transitions(...)`` to ``processing``
    Has a task in the state ``no-worker`` looked at again.
``distributed.Scheduler.stimulus_queue_slots_maybe_opened(...)``
    Gives queued tasks to workers that have a free thread; Dask does not do so when a worker
    gives back a task.
``distributed.scheduler.WorkerState.actors``
    The actors that a worker has or is about to make.
``distributed.Scheduler.handle_task_erred(...)``
    A worker says that a task has failed; with what ``distributed.core.error_message`` gives.
``distributed.Worker.state.tasks``, ``TaskState.run_id``, ``batched_send(message)``
    Which run of a task this is, and the stream on which its outcome goes.
``distributed.Worker.state.stimulus_log``
    What a worker was told; the last of it is what it does now. Empty where a setting of
    Dask has it keep no such log.
``distributed.Worker.active_keys``, names of its ``asyncio`` tasks
    Which task runs on the event loop, if that is a coroutine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import distributed
import distributed.core
from distributed.worker_state_machine import RemoveReplicasEvent

from daskps.dask_private.connections import send_from_worker


def do_not_queue(task: Any) -> None:
    """Have the scheduler give a task to a worker at once, even if all are busy.

    Parameters
    ----------
    task
        A ``distributed.scheduler.TaskState``.
    """
    task._queueable = False


def current_task(worker: distributed.Worker) -> Any:
    """The key of the task that runs here, coroutines included; None if there is none."""
    try:
        return worker.get_current_task()
    except (AttributeError, KeyError, ValueError):
        pass  # on the event loop, or not in a task
    try:
        running = asyncio.current_task()
    except RuntimeError:
        return None
    name = "" if running is None else running.get_name()
    keys = (key for key in list(worker.active_keys) if name == f"execute({key!r})")
    return next(keys, None)


def drops_replicas(worker: distributed.Worker) -> bool:
    """Whether what a worker drops now is on other workers, too, and wanted by somebody.

    For a plugin's ``transition``.
    """
    log = worker.state.stimulus_log
    return bool(log) and isinstance(log[-1], RemoveReplicasEvent)


def tell_before_outcome(
    worker: distributed.Worker, key: Any, error: Exception, message: dict[str, Any]
) -> bool:
    """Send a message to the scheduler that arrives before the outcome of a task.

    To be called while `error` is handled.

    Parameters
    ----------
    worker
        Where the task runs.
    key
        The task, which runs in this thread.
    error
        What the scheduler needs to have the task fail with it (:func:`fail`).
    message
        What else is to be said.

    Returns
    -------
    bool
        Whether it was sent: the worker has not dropped the task.
    """
    ts = worker.state.tasks.get(key)
    if ts is None:
        return False
    failure = distributed.core.error_message(error)
    failure["run_id"] = ts.run_id
    del failure["status"]
    message = {**message, "key": key, "failure": failure}
    send_from_worker(worker, message)
    return True


def fail(
    scheduler: distributed.Scheduler,
    key: Any,
    worker: str,
    failure: dict[str, Any],
) -> None:
    """Have a task fail as if its worker had said so, retries included."""
    scheduler.handle_task_erred(
        key=key,
        worker=worker,
        stimulus_id=f"daskps-failed-{time.time()}",
        **failure,
    )


class Placement:
    """Which workers may run a task.

    Parameters
    ----------
    task
        A ``distributed.scheduler.TaskState``. As it is now, so it is again after
        :meth:`restore`.

    Attributes
    ----------
    loose
        Whether the user wrote that others may run it, too, if those are not there.
    """

    def __init__(self, task: Any):
        self.task = task
        self._workers = task.worker_restrictions
        self._hosts = task.host_restrictions
        self.loose: bool = task.loose_restrictions

    def allows(self, scheduler: distributed.Scheduler, worker: Any) -> bool:
        """Whether what the user wrote allows a ``distributed.scheduler.WorkerState``."""
        wanted = (self.task.resource_restrictions or {}).items()
        if any(worker.resources.get(name, 0) < amount for name, amount in wanted):
            return False
        hosts = {scheduler.coerce_hostname(host) for host in self._hosts or ()}
        named = bool(self._workers or hosts)
        return (
            not named or worker.address in (self._workers or ()) or worker.host in hosts
        )

    def restrict(self, addresses: Iterable[str]) -> None:
        """Allow these workers alone."""
        self.task.worker_restrictions = set(addresses)
        self.task.host_restrictions = None
        self.task.loose_restrictions = False

    def restore(self) -> None:
        """Allow what the user wrote."""
        self.task.worker_restrictions = self._workers
        self.task.host_restrictions = self._hosts
        self.task.loose_restrictions = self.loose


def leave_worker(task: Any) -> None:
    """Count a task, which is about to run elsewhere, as no actor of its worker."""
    if task.actor:
        task.processing_on.actors.discard(task)


def place_again(scheduler: distributed.Scheduler, task: Any) -> None:
    """Look for a worker again for a task that had none."""
    if task.state == "no-worker":
        scheduler.transitions(
            {task.key: "processing"}, stimulus_id=f"daskps-placed-{time.time()}"
        )


def fill_slots(scheduler: distributed.Scheduler) -> None:
    """Give queued tasks to workers that have a free thread."""
    scheduler.stimulus_queue_slots_maybe_opened(
        stimulus_id=f"daskps-returned-{time.time()}"
    )
