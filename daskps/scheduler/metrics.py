"""What the scheduler tells Prometheus of its stores."""

from __future__ import annotations

import weakref
from collections.abc import Iterable

from daskps.scheduler.overview import Overview
from daskps.stores.metrics import Row, tell_prometheus
from daskps.stores.traffic import Counts

_PREFIX = "daskps_scheduler"
# What a store holds, by kind.
_KINDS = {
    "bytes": "objects",
    "result_bytes": "results",
    "copies": "copies",
    "warm": "warm",
}


def tell_of(overview: Overview) -> None:
    """Tell Prometheus of the stores of a cluster, for as long as it is there."""
    weak = weakref.ref(overview)

    def rows() -> Iterable[Row]:
        alive = weak()
        return [] if alive is None else _rows(alive)

    tell_prometheus(_PREFIX, rows)


def _rows(overview: Overview) -> Iterable[Row]:
    overview.look()  # what hosts say is there when Prometheus asks again
    for name, row in overview.pictures().items():
        gauges = {("bytes", kind): row[what] for what, kind in _KINDS.items()}
        gauges["objects", "objects"] = row["objects"]
        gauges["objects", "results"] = row["results"]
        gauges["hits", "objects"] = row["hits"]
        if row["room"] is not None:
            gauges["room_bytes", "least"] = row["room"]
        yield Row(row["store"], name, gauges, Counts.of_row(row))
