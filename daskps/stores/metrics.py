"""What Prometheus is told of stores, beside what Dask tells it. Runs on schedulers, workers.

Dask's servers answer at ``/metrics`` with all that is registered in their process, if
``prometheus_client`` is installed; it is not imported here otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from daskps.lazy import loaded
from daskps.stores.traffic import Counts


class Row(NamedTuple):
    """What there is to tell of one store.

    Attributes
    ----------
    store, name
        For people, and as it is called in graphs.
    gauges
        By name and kind.
    counts
        What was done with it.
    """

    store: str
    name: str
    gauges: Mapping[tuple[str, str], float]
    counts: Counts


_GAUGES = {
    "objects": "Objects in a store",
    "bytes": "Bytes in a store",
    "room_bytes": "What may still be stored on the host that has least room",
    "hits": "How often the objects of a store were found stored already",
}
# In the order of Counts.
_COUNTERS = {
    "puts": "Objects that were stored",
    "put_bytes": "Bytes of objects that were stored",
    "put_seconds": "Time in which objects were stored",
    "found": "Values that were found stored already",
    "found_bytes": "Bytes of values that were found stored already",
    "reads": "Objects that were read or mapped",
    "read_bytes": "Bytes of objects that were read or mapped",
    "read_seconds": "Time in which objects were read or mapped",
    "wait_seconds": "Time in which readers waited for a store",
    "evictions": "Objects that were deleted",
    "off_scheduler_bytes": "Bytes that went by reference, not through the scheduler",
}
#: What gives the rows, by what the names begin with.
_rows: dict[str, Callable[[], Iterable[Row]]] = {}


def tell_prometheus(prefix: str, rows: Callable[[], Iterable[Row]]) -> None:
    """Have Prometheus told of stores, if it asks this process at all.

    Parameters
    ----------
    prefix
        What the names begin with.
    rows
        Gives what there is now, once for each name. The last one counts, as for Dask's own
        metrics of several servers in one process.
    """
    prometheus = loaded("prometheus_client")
    if prometheus is None:
        return
    if prefix not in _rows:
        prometheus.REGISTRY.register(_Collector(prefix))
    _rows[prefix] = rows


class _Collector:
    def __init__(self, prefix: str):
        self._prefix = prefix

    def collect(self) -> Iterable[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        gauges = {
            name: GaugeMetricFamily(
                f"{self._prefix}_{name}", text, labels=["store", "name", "kind"]
            )
            for name, text in _GAUGES.items()
        }
        counters = {
            name: CounterMetricFamily(
                f"{self._prefix}_{name}", text, labels=["store", "name"]
            )
            for name, text in _COUNTERS.items()
        }
        for row in _rows.get(self._prefix, list)():
            labels = [row.store, row.name]
            for (name, kind), level in row.gauges.items():
                gauges[name].add_metric([*labels, kind], level)
            for counter, count in zip(counters.values(), row.counts, strict=True):
                counter.add_metric(labels, count)
        families = [*gauges.values(), *counters.values()]
        return [family for family in families if family.samples]

    def describe(self) -> Iterable[Any]:
        """Nothing in advance: what there is to tell is known later."""
        return []
