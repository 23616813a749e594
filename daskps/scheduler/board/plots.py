"""The plots of the dashboard's page, each alone and all together.

Imports Bokeh, so it is imported where Dask has imported that. Runs on the scheduler.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import Any

from bokeh.models import (
    AdaptiveTicker,
    ColumnDataSource,
    DataTable,
    Div,
    HoverTool,
    HTMLTemplateFormatter,
    NumeralTickFormatter,
    TableColumn,
)
from bokeh.palettes import Colorblind
from bokeh.plotting import figure
from bokeh.transform import dodge
from dask.utils import format_bytes, format_time

from daskps.scheduler.board.history import KINDS, History, HostRate, Sample, sums
from daskps.scheduler.board.largest import largest
from daskps.scheduler.overview import Overview

COLORS = dict(zip(KINDS, Colorblind[len(KINDS)], strict=True))
# So much of the past is shown (milliseconds).
SHOWN_MILLISECONDS = 300_000


class Board:
    """What plots look at.

    Parameters
    ----------
    overview
        What there is now.
    history
        What there was.
    """

    def __init__(self, overview: Overview, history: History):
        self.overview = overview
        self.history = history


class Plot:
    """One plot.

    Attributes
    ----------
    root
        What is shown.
    """

    root: Any

    def update(self) -> None:
        """Show what there is now."""
        raise NotImplementedError


class OccupancyPlot(Plot):
    """What takes memory, by kind, in the last minutes.

    Parameters
    ----------
    board
        What is looked at.
    since
        From when on (``time.time``); None: the last minutes.
    **options
        As for ``bokeh.plotting.figure``.
    """

    def __init__(self, board: Board, since: float | None = None, **options: Any):
        self._board = board
        self._since = since
        self.source = ColumnDataSource({name: [] for name in ("time", *KINDS)})
        self.root = _figure("occupancy", x_axis_type="datetime", **options)
        self.root.varea_stack(
            list(KINDS),
            x="time",
            source=self.source,
            color=list(COLORS.values()),
            legend_label=list(KINDS.values()),
        )
        _bytes_on(self.root.yaxis)
        self.root.y_range.start = 0
        _legend_outside(self.root)
        if since is None:
            self.root.x_range.follow = "end"
            self.root.x_range.follow_interval = SHOWN_MILLISECONDS

    def update(self) -> None:
        now = sums(self._board.overview.pictures().values())
        since = self._since or time.time() - SHOWN_MILLISECONDS / 1000
        samples = [s for s in self._board.history.samples if s.time >= since]
        samples.append(Sample(time.time(), now))
        data = {kind: [s.nbytes[kind] for s in samples] for kind in KINDS}
        self.source.data = {"time": [s.time * 1000 for s in samples], **data}
        self.root.title.text = f"Bytes in stores: {format_bytes(sum(now.values()))}"


class BandwidthPlot(Plot):
    """What each host puts and reads now."""

    def __init__(self, board: Board, **options: Any):
        self._board = board
        self.source = ColumnDataSource(_bandwidths({}))
        self.root = _figure("bandwidth", y_range=["-"], **options)
        for name, offset, kind in (
            ("puts", 0.18, "needed"),
            ("reads", -0.18, "result_bytes"),
        ):
            self.root.hbar(
                y=dodge("host", offset, range=self.root.y_range),
                right=name,
                height=0.32,
                source=self.source,
                color=COLORS[kind],
                legend_label=name,
            )
        self.root.x_range.start = 0
        _bytes_on(self.root.xaxis)
        _legend_outside(self.root)
        _tell_when_hovered(
            self.root,
            **{
                "host": "@host",
                "puts now": "@put_rate",
                "reads now": "@read_rate",
                "puts in all": "@put_all",
                "reads in all": "@read_all",
            },
        )

    def update(self) -> None:
        rates = self._board.history.rates()
        self.source.data = _bandwidths(rates)
        if rates and list(rates) != self.root.y_range.factors:
            self.root.y_range.factors = list(rates)
        puts = sum(rate.puts for rate in rates.values())
        reads = sum(rate.reads for rate in rates.values())
        self.root.title.text = f"By host: puts {_rate(puts)}, reads {_rate(reads)}"


def _bandwidths(rates: Mapping[str, HostRate]) -> dict[str, list[Any]]:
    counts = [rate.counts for rate in rates.values()]
    return {
        "host": list(rates),
        "puts": [rate.puts for rate in rates.values()],
        "reads": [rate.reads for rate in rates.values()],
        "put_rate": [_rate(rate.puts) for rate in rates.values()],
        "read_rate": [_rate(rate.reads) for rate in rates.values()],
        "put_all": [_done(c.puts, c.put_bytes, c.put_seconds) for c in counts],
        "read_all": [_done(c.reads, c.read_bytes, c.read_seconds) for c in counts],
    }


class HitsPlot(Plot):
    """How much was stored, and how much was found stored already, by store."""

    def __init__(self, board: Board, **options: Any):
        self._board = board
        self.source = ColumnDataSource(_hits([]))
        self.root = _figure("hits", y_range=["-"], **options)
        self.root.hbar_stack(
            ["puts", "found"],
            y="store",
            height=0.6,
            source=self.source,
            color=[COLORS["needed"], COLORS["idle"]],
            legend_label=["stored", "hits"],
        )
        self.root.x_range.start = 0
        _legend_outside(self.root)
        _tell_when_hovered(
            self.root,
            **{
                "store": "@store",
                "stored": "@puts objects, @put_bytes",
                "found stored": "@found, @found_bytes",
            },
        )

    def update(self) -> None:
        data = _hits(self._board.overview.rows().values())
        self.source.data = data
        if data["store"] and data["store"] != self.root.y_range.factors:
            self.root.y_range.factors = data["store"]
        puts, found = sum(data["puts"]), sum(data["found"])
        self.root.title.text = f"Hits: {found} of {puts + found} values were there"


def _hits(rows: Iterable[dict[str, Any]]) -> dict[str, list[Any]]:
    """Puts and hits, of stores with one URL together."""
    found: dict[str, Counter[str]] = {}
    names = ("puts", "found", "put_bytes", "found_bytes")
    for row in rows:
        found.setdefault(row["store"], Counter()).update({n: row[n] for n in names})
    data: dict[str, list[Any]] = {n: [f[n] for f in found.values()] for n in names}
    data["store"] = list(found)
    for name in ("put_bytes", "found_bytes"):
        data[name] = list(map(format_bytes, data[name]))
    return data


def _figure(name: str, **options: Any) -> Any:
    return figure(
        title=name, name=f"daskps-{name}", tools="", toolbar_location=None, **options
    )


def _bytes_on(axis: Any) -> None:
    axis.formatter = NumeralTickFormatter(format="0.0 b")
    axis.ticker = AdaptiveTicker(base=1024, mantissas=[2**n for n in range(10)])


def _legend_outside(root: Any) -> None:
    """Beside the plot, where it hides nothing."""
    (legend,) = root.legend
    root.add_layout(legend, "right")
    legend.label_text_font_size = "9pt"
    legend.border_line_alpha = 0
    legend.background_fill_alpha = 0


def _tell_when_hovered(root: Any, **lines: str) -> None:
    root.add_tools(HoverTool(tooltips=list(lines.items())))


def _rate(nbytes: float) -> str:
    return f"{format_bytes(int(nbytes))}/s"


class ObjectsTable(Plot):
    """The largest objects, with the tasks and clients that need them."""

    def __init__(self, board: Board, **options: Any):
        self._board = board
        self.source = ColumnDataSource(largest(board.overview.ledger, {}))
        task = HTMLTemplateFormatter(
            template='<a href="info/task/<%= page %>.html"><%- value %></a>'
        )
        columns = [
            ("size", "Size", 90, None),
            ("age", "Age", 90, None),
            ("tasks", "Tasks", 60, None),
            ("names", "Needed by tasks", 320, task),
            ("clients", "Held by clients", 320, None),
            ("hits", "Hits", 50, None),
            ("store", "Store", 160, None),
            ("object", "Object", 220, None),
        ]
        self.root = DataTable(
            name="daskps-objects",
            source=self.source,
            columns=[
                TableColumn(
                    field=field,
                    title=title,
                    width=width,
                    **({} if formatter is None else {"formatter": formatter}),
                )
                for field, title, width, formatter in columns
            ],
            index_position=None,
            sortable=False,
            reorderable=False,
            # The page's bar is above all.
            stylesheets=[".bk-data-table { z-index: 0; }"],
            **options,
        )

    def update(self) -> None:
        overview = self._board.overview
        self.source.data = largest(overview.ledger, overview.stores())


class Summary(Plot):
    """Each store in one line."""

    def __init__(self, board: Board, **options: Any):
        self._board = board
        self.root = Div(name="daskps-summary", **options)

    def update(self) -> None:
        rows = self._board.overview.pictures().values()
        self.root.text = summary(list(rows))


def summary(rows: list[dict[str, Any]]) -> str:
    """Each store as a row of a table, as HTML."""
    if not rows:
        return "No store is open yet: begin a session (daskps.proxy_graph())."
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "Store": lambda row: row["store"],
        "Objects": lambda row: f"{row['objects']}, {format_bytes(row['bytes'])}",
        "Results": lambda row: f"{row['results']}, {format_bytes(row['result_bytes'])}",
        "Copies": lambda row: format_bytes(row["copies"]),
        "Warm": lambda row: format_bytes(row["warm"]),
        "Puts": lambda r: _done(r["puts"], r["put_bytes"], r["put_seconds"]),
        "Reads": lambda r: _done(r["reads"], r["read_bytes"], r["read_seconds"]),
        "Waiting": lambda row: format_time(row["wait_seconds"]),
        "Evictions": lambda row: str(row["evictions"]),
        "Kept off the scheduler": lambda row: format_bytes(row["off_scheduler"]),
        "Room": lambda row: "" if row["room"] is None else format_bytes(row["room"]),
    }
    style = "style='text-align:left; padding-right:1.5em'"
    head = "".join(f"<th {style}>{name}</th>" for name in columns)
    body = "".join(
        "<tr>"
        + "".join(f"<td {style}>{escape(cell(row))}</td>" for cell in columns.values())
        + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _done(number: int, nbytes: int, seconds: float) -> str:
    rate = f" at {_rate(nbytes / seconds)}" if seconds else ""
    return f"{number}, {format_bytes(nbytes)}{rate}"
