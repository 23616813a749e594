"""How a graph is treated, by what it weighs. Runs on the client.

Values from the threshold on are stored, each by itself. Smaller ones stay in the graph,
unless there are too many of them, for Dask or for the scheduler
(:mod:`daskps.client.literals`): then they are packed together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from daskps.client.session import Session
from daskps.dask_private.graphs import Expr
from daskps.graph import expressions
from daskps.graph.census import Weight, weigh
from daskps.graph.contents import contents
from daskps.graph.culling import needed_keys
from daskps.graph.findings import Findings
from daskps.graph.search import Search
from daskps.graph.tasks import Replacement
from daskps.objects.catalog import Catalog
from daskps.objects.encoder import PACKED_NBYTES_AT_LEAST, Encoder
from daskps.objects.sizes import nbytes_of
from daskps.progress import STORING, shown
from daskps.references.nodes import ProxyNode

# Smaller values (bytes) are stored one after the other.
WORTH_A_THREAD_NBYTES = 1 << 20


class Plan:
    """How a graph that holds something large is treated.

    Parameters
    ----------
    session, catalog
        Where to store.
    threshold
        Bytes from which on values are stored.
    weight
        What the graph holds.
    pack_from
        Bytes from which on smaller values are packed together; None: they are not, unless
        there are too many of them.
    """

    #: What is not stored (bytes), about.
    inline_nbytes: int

    def __init__(
        self,
        session: Session,
        catalog: Catalog,
        threshold: int,
        weight: Weight,
        pack_from: int | None = None,
    ):
        self._session = session
        self._catalog = catalog
        self._threshold = threshold
        self._weight = weight
        self._pack_from = pack_from
        self._exactly = False
        self.inline_nbytes = weight.nbytes

    def by_pickling(self) -> Plan:
        """The same, but each value is pickled to be weighed."""
        self._exactly = True
        return self

    def for_expression(
        self, expr: Expr, keys: Iterable[Any], in_process: bool = False
    ) -> tuple[Expr, Encoder]:
        """An expression with nodes for what is large, and what holds the objects."""
        prepared = expressions.prepared(expr)
        if prepared is not expr:
            # The partitions of a large frame may be small.
            self._weight = weigh(contents(prepared))
        return self.carry_out(
            lambda search: search.expression(prepared),
            in_process,
            needed_keys(prepared, keys),
        )

    def carry_out(
        self,
        find: Callable[[Search], Replacement],
        in_process: bool = False,
        needed: set[Any] | None = None,
    ) -> tuple[Any, Encoder]:
        """Find what is large, store it, and replace it."""

        # Those of the expression as it is now, for the encoder finds them again.
        pickles = self._weight.pickles
        exact, estimated = pickles.exact_nbytes, partial(nbytes_of, pickles=pickles)

        def search_from(at_least: int) -> tuple[Search, Replacement]:
            weigh = exact if self._exactly else estimated
            search = Search(Findings(at_least, weigh), in_process, needed, pickles)
            return search, find(search)

        pack_from = self._pack_from
        if pack_from is None:
            search, replacement = search_from(self._threshold)
            large = sum(found.nbytes for found in search.found)
            self.inline_nbytes = max(0, self._weight.nbytes - large)
            if self._weight.packs(large, self._threshold):
                pack_from = PACKED_NBYTES_AT_LEAST
        if pack_from is not None:
            pack_from = min(pack_from, self._threshold)
            search, replacement = search_from(pack_from)
            self.inline_nbytes = 0
        encoder = self._session.encoder(self._catalog, self._threshold, pack_from)
        encoder.pickles = pickles
        try:
            encoder.stored += owners_of(self._weight.proxies)
            return store_found(search, replacement, encoder), encoder
        except BaseException:
            encoder.abandon()
            raise


def plan_for(
    session: Session,
    catalog: Callable[[], Catalog | None],
    threshold: int,
    weight: Weight,
    pack_from: int | None = None,
) -> Plan | None:
    """How to treat a graph; None if nothing in it is to be stored."""
    at_least = threshold if pack_from is None else min(threshold, pack_from)
    if not weight.proxies and not weight.is_large(at_least):
        return None
    opened = catalog()
    if opened is None:
        return None
    return Plan(session, opened, threshold, weight, pack_from)


def store_found(search: Search, replacement: Replacement, encoder: Encoder) -> Any:
    """Store what a search has found; gives what takes the graph's place."""
    with shown(STORING, sum(found.nbytes for found in search.found)):
        large = search.to_store(max(encoder.threshold, WORTH_A_THREAD_NBYTES))
        encoder.encode_all(large)
        new = replacement(encoder.encode)
        encoder.finish()
    return new


def owners_of(proxies: Iterable[Any]) -> list[Any]:
    """The handles that graph nodes carry, of those that were made in this process."""
    nodes = (node for node in proxies if isinstance(node, ProxyNode))
    return [owner for node in nodes for owner in node.value.owners]
