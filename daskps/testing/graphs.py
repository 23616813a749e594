"""Whether the large values of a program travel by reference."""

from __future__ import annotations

from typing import Any

from dask.utils import format_bytes
from distributed.protocol.serialize import serialize, to_serialize

from daskps.dask_private.graphs import expression_of
from daskps.explanation.explaining import explain
from daskps.graph import expressions
from daskps.graph.findings import Findings
from daskps.graph.search import Search
from daskps.objects.encoder import PACKED_NBYTES_AT_LEAST
from daskps.references.nodes import StoredValue
from daskps.settings import Settings


def assert_proxied(*collections: Any, threshold: Any = None) -> None:
    """Check that the large values of collections travel by reference.

    Nothing is computed, stored or sent.

    Parameters
    ----------
    *collections
        Dask collections.
    threshold
        As for :func:`daskps.proxy_graph`.

    Raises
    ------
    AssertionError
        If nothing in the collections would travel by reference; or if, after everything
        that daskps finds has left the graph, a buffer of at least the threshold is still
        in it.

    Examples
    --------
    >>> import numpy as np, dask.array as da, daskps.testing
    >>> daskps.testing.assert_proxied(da.from_array(np.zeros(10**6), chunks=250_000))
    """
    limit = Settings.resolve(threshold=threshold).threshold
    explanation = explain(*collections, threshold=limit)
    if not explanation.nbytes:
        raise AssertionError(
            f"No value of {format_bytes(limit)} or more is in these collections: nothing "
            "would travel by reference. Is the data loaded by tasks, or the threshold "
            "too high?"
        )
    packs = any(value.packed for value in explanation)
    at_least = min(limit, PACKED_NBYTES_AT_LEAST) if packs else limit
    search = Search(Findings(at_least))
    replacement = search.expression(expressions.prepared(expression_of(collections)))
    expr = replacement(lambda value: StoredValue(b"", [], []))
    _, frames = serialize(to_serialize(expr), on_error="raise")
    left = max(memoryview(frame).nbytes for frame in frames[1:]) if frames[1:] else 0
    if left >= limit:
        raise AssertionError(
            f"A buffer of {format_bytes(left)} is still in the graph: it would pass "
            "through the scheduler. daskps does not look where it is; "
            "daskps.explain(...) shows what it does find."
        )
