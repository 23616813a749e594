"""Tables for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

_LEFT = "style='text-align:left'"


def table(
    caption: str, columns: Mapping[str, Mapping[str, str]], remarks: Iterable[str] = ()
) -> str:
    """A table as HTML, with a column for each store.

    Parameters
    ----------
    caption
        What it is about.
    columns
        Cells by heading of the row, by heading of the column.
    remarks
        What stands below.
    """
    headings = list(dict.fromkeys(name for cells in columns.values() for name in cells))
    head = _row("th", ["", *columns]) if len(columns) > 1 or any(columns) else ""
    rows = "".join(
        f"<tr><th {_LEFT}>{escape(name)}</th>"
        + "".join(_cell("td", cells.get(name, "")) for cells in columns.values())
        + "</tr>"
        for name in headings
    )
    below = "".join(f"<p>{escape(remark)}</p>" for remark in remarks)
    return f"<table><caption>{escape(caption)}</caption>{head}{rows}</table>{below}"


def _row(kind: str, cells: Iterable[str]) -> str:
    return "<tr>" + "".join(_cell(kind, cell) for cell in cells) + "</tr>"


def _cell(kind: str, text: str) -> str:
    return f"<{kind} {_LEFT}>{escape(text)}</{kind}>"
