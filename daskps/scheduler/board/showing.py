"""Shows the stores of a cluster wherever its scheduler shows something.

What needs Bokeh is imported if Dask has imported that, and so has a dashboard. Runs on the
scheduler.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from daskps.dask_private.dashboard import add_to_task_pages, has_dashboard
from daskps.references.nodes import ObjectId
from daskps.safety_net import fell_back
from daskps.scheduler.board.history import History
from daskps.scheduler.board.largest import description
from daskps.scheduler.metrics import tell_of
from daskps.scheduler.overview import Overview

if TYPE_CHECKING:
    from distributed import Scheduler


def show(
    scheduler: Scheduler,
    overview: Overview,
    needs: Callable[[Any], Iterable[ObjectId]],
) -> History | None:
    """Have the dashboard, tasks' pages and Prometheus show what there is.

    Parameters
    ----------
    scheduler
        Whose dashboard.
    overview
        What there is.
    needs
        Gives the objects that a task needs.

    Returns
    -------
    History or None
        What notes what there was, to be closed with the cluster; None: there is no
        dashboard.
    """
    try:
        tell_of(overview)
        add_to_task_pages(scheduler, partial(_description, overview, needs))
        return _show_board(scheduler, overview) if has_dashboard(scheduler) else None
    except Exception as e:
        fell_back(e, "add to the dashboard")
        return None


def _show_board(scheduler: Scheduler, overview: Overview) -> History:
    from daskps.scheduler.board.pages import show as show_pages
    from daskps.scheduler.board.plots import Board

    history = History(overview)
    show_pages(scheduler, Board(overview, history))
    return history


def _description(
    overview: Overview, needs: Callable[[Any], Iterable[ObjectId]], key: Any
) -> str | None:
    return description(overview.ledger, overview.stores(), needs(key))
