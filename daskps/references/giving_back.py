"""Tasks that a worker gives back, since it cannot read what they need. Runs on workers.

A worker may be unable to read from a store, for now or for good, while others can. A task
that failed there at once would free the worker for the next one, until it had spoilt all. So
such a task is given back: the scheduler is told why, and decides whether it runs elsewhere,
is kept for a while, or fails (:mod:`daskps.scheduler.returns`).
"""

from __future__ import annotations

from distributed import Reschedule, get_worker

from daskps.dask_private.scheduling import current_task, tell_before_outcome
from daskps.exceptions import ObjectMissingError
from daskps.messages import RETURNED
from daskps.stores import opened


def give_back(error: ObjectMissingError) -> None:
    """Have the task that runs here run elsewhere, if others perhaps can read what it needs.

    To be called while `error` is handled. Returns if they cannot, or if no worker's task
    runs here.

    Raises
    ------
    distributed.Reschedule
        To be passed on to the worker, which then forgets the task.
    """
    if error.unreadable is None:
        return
    try:
        worker = get_worker()
    except ValueError:
        return
    message = {
        "op": RETURNED,
        "store": error.unreadable,
        "patience": opened.patience(error.unreadable),
    }
    key = current_task(worker)
    if key is not None and tell_before_outcome(worker, key, error, message):
        raise Reschedule(str(error)) from None
