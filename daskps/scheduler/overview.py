"""What the stores of a cluster hold and what was done with them, for people who ask.

:meth:`Overview.rows` says what is known without asking anybody, as often as a page or
Prometheus wants it. Only hosts know what they hold besides objects: :meth:`Overview.usage`
asks all workers, :meth:`Overview.look` one on each host, and some of many. Runs on the
scheduler.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from distributed.utils import offload

from daskps import messages
from daskps.scheduler.ledger import Ledger
from daskps.scheduler.traffic import ClusterTraffic
from daskps.stores import opened
from daskps.stores.holdings import Holdings, add_holdings
from daskps.stores.reports import reports

if TYPE_CHECKING:
    from distributed import Scheduler

logger = logging.getLogger(__name__)

# For how long (seconds) to wait for a worker that is asked what it holds.
HOLDINGS_SECONDS = 2.0
# How often (seconds) hosts are asked while somebody looks at a page, and how many at once.
LOOK_SECONDS = 2.0
# The same while nobody does, so that plots have a past.
UNSEEN_LOOK_SECONDS = 10.0
HOSTS_AT_ONCE = 50


class Overview:
    """Says what is in the stores of one cluster.

    Not thread-safe: everything runs on the scheduler's event loop.

    Parameters
    ----------
    scheduler
        Whose workers to ask.
    stores
        Gives the stores, by name: what they are for people.
    ledger
        The objects.

    Attributes
    ----------
    stores, ledger
        The same.
    traffic
        What was done with the stores.
    """

    stores: Callable[[], Mapping[str, str]]
    ledger: Ledger
    traffic: ClusterTraffic
    #: What hosts said last, by place and store.
    _said: dict[str, dict[str, Holdings]]

    def __init__(
        self,
        scheduler: Scheduler,
        stores: Callable[[], Mapping[str, str]],
        ledger: Ledger,
    ):
        self.ledger = ledger
        self.traffic = ClusterTraffic()
        self._scheduler = scheduler
        self.stores = stores
        self._said = {}
        self._looked = 0.0
        self._looking: asyncio.Task[None] | None = None
        self._turn = 0

    def rows(self) -> dict[str, dict[str, Any]]:
        """What is known of each store, by name, as :class:`daskps.client.usage.Usage`."""
        stores = self.stores()
        self._add(reports(stores))  # what this process has deleted
        rows = {}
        for name, shown in stores.items():
            totals = self.ledger.totals(name)
            results, result_bytes = self.traffic.results(name)
            rows[name] = {
                "store": shown,
                "objects": totals.objects,
                "bytes": totals.nbytes,
                "idle": totals.kept,
                "hits": totals.hits,
                "results": results,
                "result_bytes": result_bytes,
                **self.traffic.of(name)._asdict(),
            }
        return rows

    def pictures(self) -> dict[str, dict[str, Any]]:
        """The same, with what hosts have said when they were asked last."""
        rows = self.rows()
        for name, row in rows.items():
            said = [
                by_store[name] for by_store in self._said.values() if name in by_store
            ]
            add_holdings(row, said)
        return rows

    # Asking

    async def usage(self, said: Iterable[dict[str, Any]]) -> dict[str, Any]:
        """What each store holds now.

        Parameters
        ----------
        said
            Reports of the client that asks.

        Returns
        -------
        dict
            ``"stores"``: :meth:`rows`; ``"workers"``: what each worker says that answers
            at once, and ``"holdings"`` what this process does
            (:mod:`daskps.worker.holdings`).
        """
        self._add(said)
        asked = self._scheduler.workers if self.stores() else ()
        answers = await asyncio.gather(*map(self._ask, asked))
        workers = [answer for answer in answers if answer is not None]
        return {
            "stores": self.rows(),
            "workers": workers,
            "holdings": await offload(opened.holdings),
        }

    def look(self, seconds: float = LOOK_SECONDS) -> None:
        """Have hosts asked what they hold, if that was not done in so many seconds."""
        now = time.monotonic()
        is_done = self._looking is None or self._looking.done()
        if is_done and self.stores() and now > self._looked + seconds:
            self._looked = now
            self._looking = asyncio.ensure_future(self._look())

    def close(self) -> None:
        """Ask nobody any more."""
        if self._looking is not None:
            self._looking.cancel()

    async def _look(self) -> None:
        hosts = {ws.host: address for address, ws in self._scheduler.workers.items()}
        some = sorted(hosts.values())
        self._turn = (self._turn + HOSTS_AT_ONCE) % max(len(some), 1)
        turn = itertools.islice(itertools.cycle(some), self._turn, None)
        asked = list(itertools.islice(turn, min(HOSTS_AT_ONCE, len(some))))
        answers = await asyncio.gather(*map(self._ask, asked))
        self._hear(await offload(opened.holdings))
        for answer in answers:
            self._hear({} if answer is None else answer["holdings"])

    def _hear(self, said: Mapping[str, Iterable[Any]]) -> None:
        for store, values in said.items():
            holdings = Holdings(*values)
            if store in self.stores():
                self._said.setdefault(holdings.place, {})[store] = holdings

    async def _ask(self, worker: str) -> dict[str, Any] | None:
        """What a worker says that it holds; None if it does not answer at once."""
        try:
            ask = getattr(self._scheduler.rpc(worker), messages.HOLDINGS)
            answer: dict[str, Any] | None = await asyncio.wait_for(
                ask(), HOLDINGS_SECONDS
            )
        except Exception as e:  # it is busy, or gone
            logger.debug("Worker %s does not say what it holds: %r", worker, e)
            return None
        if answer is None:
            return None  # it has no store, and does not know the question
        self._add(answer.pop("reports"))
        for store, results in answer["results"].items():
            self.traffic.has_results(store, worker, results)
        return answer

    def _add(self, said: Iterable[dict[str, Any]]) -> None:
        for report in said:
            self.traffic.add(report["store"], report["host"], report["counts"])
