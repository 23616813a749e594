"""What a worker, and its host, hold of stores. Runs on workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distributed.utils import offload

from daskps.stores import opened
from daskps.stores.reports import reports
from daskps.worker.results import stored_results

if TYPE_CHECKING:
    from distributed import Worker


async def holdings(worker: Worker) -> dict[str, Any]:
    """What is open here, for the scheduler.

    Returns
    -------
    dict
        ``"holdings"``: by store, what :func:`daskps.stores.opened.holdings` gives;
        ``"results"``: by store, how many objects are of results of this worker, and their
        bytes; ``"reports"``: :func:`daskps.stores.reports.reports`.
    """
    # In a thread: directories are read.
    holdings = await offload(opened.holdings)
    results = stored_results(worker)
    return {"holdings": holdings, "results": results, "reports": reports(results)}
