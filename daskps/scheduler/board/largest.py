"""The largest objects, and who needs them, for the table of the page and the tasks' pages.

Runs on the scheduler, when somebody looks.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from html import escape
from itertools import islice
from typing import Any

from dask.utils import format_bytes, format_time, key_split
from distributed.utils import url_escape

from daskps.references.nodes import ObjectId
from daskps.scheduler.ledger import Entry, Ledger

OBJECTS_AT_MOST = 50
# So many tasks and clients are named; of others, how many there are.
NAMED_AT_MOST = 3


def largest(ledger: Ledger, stores: Mapping[str, str]) -> dict[str, list[Any]]:
    """The largest objects, as columns.

    Parameters
    ----------
    ledger
        The objects.
    stores
        The stores for people, by name.
    """
    now = time.time()
    found = [
        {
            "object": object_name(id),
            "store": stores.get(id.store, id.store),
            "nbytes": entry.nbytes,
            "size": format_bytes(entry.nbytes),
            "tasks": len(entry.tasks),
            "names": names(map(_task_name, entry.tasks), len(entry.tasks)),
            "page": next((url_escape(str(key)) for key in entry.tasks), ""),
            "clients": names(entry.clients, len(entry.clients)),
            "hits": entry.hits,
            "age": format_time(now - entry.since),
        }
        for id, entry in ledger.largest(OBJECTS_AT_MOST)
    ]
    columns = (
        *("object", "store", "nbytes", "size", "tasks", "names", "page", "clients"),
        *("hits", "age"),
    )
    return {column: [row[column] for row in found] for column in columns}


def object_name(id: ObjectId) -> str:
    """An object for people: as its file is called, if it is one."""
    return str(getattr(id.key, "name", id.key))


def _task_name(key: Any) -> str:
    """What Dask calls tasks of this kind, and which it is."""
    where = f" {key[1:]}" if isinstance(key, tuple) else ""
    return f"{key_split(key)}{where}"


def names(some: Iterable[Any], number: int) -> str:
    """A few of many."""
    named = ", ".join(str(one) for one in islice(some, NAMED_AT_MOST))
    more = number - NAMED_AT_MOST
    return f"{named} and {more} more" if more > 0 else named


def description(
    ledger: Ledger, stores: Mapping[str, str], ids: Iterable[ObjectId]
) -> str | None:
    """What a task reads from stores, as HTML; None: nothing."""
    rows = []
    for id in ids:
        entry = ledger.get(id)
        if entry is not None:
            rows.append(
                "".join(
                    f"<td>{escape(cell)}</td>" for cell in _cells(id, entry, stores)
                )
            )
    if not rows:
        return None
    head = "".join(
        f"<th>{name}</th>"
        for name in ("Object", "Store", "Size", "Tasks", "Clients", "Age")
    )
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        '<div id="daskps-objects" class="box">'
        '<h3 class="title is-5"> Objects that it reads from stores </h3>'
        f'<table class="table is-striped"><tr>{head}</tr>{body}</table></div>'
    )


def _cells(id: ObjectId, entry: Entry, stores: Mapping[str, str]) -> list[str]:
    return [
        object_name(id),
        stores.get(id.store, id.store),
        format_bytes(entry.nbytes),
        str(len(entry.tasks)),
        names(entry.clients, len(entry.clients)),
        format_time(time.time() - entry.since),
    ]
