"""A graph of many layers is gone through a few times, not once for each of them."""

from __future__ import annotations

import dask
import numpy as np
import pytest
from dask.highlevelgraph import HighLevelGraph

import daskps

LAYERS = 50


@pytest.fixture
def gone_through(monkeypatch):
    """How often Dask has found the users of all layers."""
    find = HighLevelGraph.dependents.fget
    times = []

    def dependents(graph):
        times.append(len(graph.layers))
        return find(graph)

    monkeypatch.setattr(HighLevelGraph, "dependents", property(dependents))
    return times


def delayed():
    arrays = (np.arange(i, i + 2000) for i in range(LAYERS))
    return [dask.delayed(len)(dask.delayed(array)) for array in arrays]


def test_by_a_submission(client, gone_through):
    with daskps.proxy_graph(threshold="8 kB"):
        assert dask.compute(*delayed()) == (2000,) * LAYERS
        assert daskps.usage(client).objects == LAYERS
    assert 0 < len(gone_through) < LAYERS / 5


def test_by_explain(gone_through):
    table = daskps.explain(delayed(), threshold="8 kB")
    assert len(table.to_pandas()) == LAYERS
    assert 0 < len(gone_through) < LAYERS / 5
