"""What a worker tells Prometheus of the stores that it has open."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING

from daskps.stores import opened
from daskps.stores.metrics import Row, tell_prometheus
from daskps.worker.results import stored_results

if TYPE_CHECKING:
    from distributed import Worker

_PREFIX = "daskps_worker"


#: The stores that workers of this process have opened, for people, by name.
_stores: dict[str, str] = {}


def tell_of(worker: Worker, store_name: str, shown: str) -> None:
    """Tell Prometheus of a store of a worker, for as long as both are there.

    Parameters
    ----------
    worker
        Who has opened it.
    store_name
        The store.
    shown
        The same for people.
    """
    _stores[store_name] = shown
    weak = weakref.ref(worker)

    def rows() -> Iterable[Row]:
        alive = weak()
        return [] if alive is None else _rows(alive)

    tell_prometheus(_PREFIX, rows)


def _rows(worker: Worker) -> Iterable[Row]:
    for name, (number, nbytes) in stored_results(worker).items():
        store = opened.get(name)
        if store is not None:
            gauges = {("objects", "results"): number, ("bytes", "results"): nbytes}
            shown = _stores.get(name, name)
            yield Row(shown, name, gauges, store.traffic.counts)
