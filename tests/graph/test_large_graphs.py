"""What leaves a graph, seen from outside: a factorisation, and a very large graph."""

from __future__ import annotations

import warnings

import dask.array as da
import numpy as np
from processes import graph_nbytes, messages_sent

import daskps


def take_literal(block, literal):
    return block


def test_cholesky_of_a_numpy_matrix(client):
    n = 4096
    rng = np.random.default_rng(0)
    matrix = np.diag(rng.random(n) + n)
    matrix += (noise := rng.random((n, n))) + noise.T
    x = da.from_array(matrix, chunks=(512, 512), name=False)
    with warnings.catch_warnings(), daskps.proxy_graph(), messages_sent(client) as sent:
        warnings.simplefilter("error")
        factor = da.linalg.cholesky(x, lower=True).compute()
    assert graph_nbytes(sent) < 1_000_000
    expected = np.linalg.cholesky(matrix)
    assert np.abs(factor - expected).max() <= 1e-10 * np.abs(expected).max()


def test_a_literal_of_ten_megabytes_in_a_million_tasks(client):
    """Neither graph is run: only the first task of it is asked for."""
    literal = np.random.default_rng(0).random(10_000_000 // 8)
    sent = {}
    for kind, value in (("without", None), ("with", literal)):
        x = da.ones(1_000_000, chunks=1, name=f"ones-{kind}")
        y = x.map_blocks(take_literal, value, dtype=float, name=f"taken-{kind}")
        with daskps.proxy_graph(), messages_sent(client) as messages:
            assert y.blocks[0].compute() == 1.0
        assert messages
        sent[kind] = graph_nbytes(messages)
    assert sent["with"] < sent["without"] + 1000
