"""daskps on Dask's dashboard: a page, plots for JupyterLab, a tab of performance reports.

Imports Bokeh, so it is imported where Dask has imported that. Runs on the scheduler.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from bokeh.layouts import column, row
from bokeh.models import TabPanel

from daskps.dask_private.dashboard import WHOLE_PAGE, add_pages, add_to_reports
from daskps.scheduler.board.plots import (
    BandwidthPlot,
    Board,
    HitsPlot,
    ObjectsTable,
    OccupancyPlot,
    Plot,
    Summary,
)

if TYPE_CHECKING:
    from distributed import Scheduler

PAGE = "/daskps"
# How often an open page looks.
UPDATE_MILLISECONDS = 500

#: Plots that are pages of their own, by path: their name in the dashboard's bar.
PLOTS: dict[str, tuple[str, Callable[..., Plot]]] = {
    "/individual-daskps-occupancy": ("Daskps Occupancy", OccupancyPlot),
    "/individual-daskps-objects": ("Daskps Objects", ObjectsTable),
    "/individual-daskps-bandwidth": ("Daskps Bandwidth", BandwidthPlot),
    "/individual-daskps-hits": ("Daskps Hits", HitsPlot),
}


def show(scheduler: Scheduler, board: Board) -> None:
    """Add the pages to a scheduler's dashboard, and the tab to its reports."""
    pages = {path: partial(_alone, plot, board) for path, (_, plot) in PLOTS.items()}
    names = {path: name for path, (name, _) in PLOTS.items()}
    add_pages(scheduler, {PAGE: partial(_page, board), **pages}, names)
    add_to_reports(scheduler, partial(_tabs, board))


def _alone(plot: Callable[..., Plot], board: Board, doc: Any) -> None:
    shown = plot(board, sizing_mode="stretch_both")
    doc.title = f"daskps: {shown.root.name}"
    _keep_updated(doc, board, [shown])
    doc.add_root(shown.root)


def _page(board: Board, doc: Any) -> None:
    plots, root = _whole(board)
    doc.title = "Dask: daskps"
    _keep_updated(doc, board, plots)
    doc.add_root(root)


def _whole(board: Board, since: float | None = None) -> tuple[list[Plot], Any]:
    """All plots, and how they are arranged."""
    summary = Summary(board, sizing_mode="stretch_width")
    occupancy = OccupancyPlot(
        board, since, sizing_mode="stretch_width", height=260, min_width=300
    )
    bandwidth = BandwidthPlot(board, sizing_mode="stretch_width", height=180)
    hits = HitsPlot(board, sizing_mode="stretch_width", height=180)
    objects = ObjectsTable(board, sizing_mode="stretch_width", height=300)
    root = column(
        summary.root,
        occupancy.root,
        row(bandwidth.root, hits.root, sizing_mode="stretch_width"),
        objects.root,
        sizing_mode="stretch_width",
        name=WHOLE_PAGE,
    )
    return [summary, occupancy, bandwidth, hits, objects], root


def _keep_updated(doc: Any, board: Board, plots: Sequence[Plot]) -> None:
    for plot in plots:
        plot.update()
    # The document keeps its callbacks, and is kept by whatever looks at it: so it keeps the
    # plots, and not the other way round.
    doc.daskps_plots = plots
    weak = [weakref.ref(plot) for plot in plots]

    def update() -> None:
        board.overview.look()
        for one in weak:
            plot = one()
            if plot is not None:
                plot.update()

    doc.add_periodic_callback(update, UPDATE_MILLISECONDS)


def _tabs(board: Board, since: float) -> list[TabPanel]:
    plots, root = _whole(board, since)
    for plot in plots:
        plot.update()
    return [TabPanel(child=root, title="daskps")]
