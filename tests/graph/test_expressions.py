"""Collections that are made of expressions which daskps does not know."""

from __future__ import annotations

import dask
import dask._expr
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask._expr import Expr
from dask._task_spec import Task
from dask.base import DaskMethodsMixin
from processes import graph_nbytes, messages_sent

import daskps
from daskps.client import submission

MIB = 1 << 20


def array(seed=0):
    return np.random.default_rng(seed).random(2 * MIB // 8)


class Options:
    """Hides what is in it from whoever looks at operands only by type."""

    def __init__(self, weights):
        self.weights = weights


def weighted_sum(options, i):
    assert type(options) is Options
    assert type(options.weights) is np.ndarray
    return float(options.weights.sum()) * i


class Weighted(Expr):
    """As many tasks as wanted, each with the same large operand."""

    _parameters = ["options", "n"]

    def _layer(self):
        return {
            key: Task(key, weighted_sum, self.operand("options"), i)
            for i, key in enumerate(self.__dask_keys__())
        }

    def __dask_keys__(self):
        return [(self._name, i) for i in range(self.operand("n"))]


class Sums(DaskMethodsMixin):
    """A collection of somebody else's."""

    __dask_scheduler__ = staticmethod(dask.threaded.get)
    __dask_optimize__ = None

    def __init__(self, expr):
        self.expr = expr

    def __dask_graph__(self):
        return self.expr.__dask_graph__()

    def __dask_keys__(self):
        return self.expr.__dask_keys__()

    def __dask_tokenize__(self):
        return self.expr

    def __dask_postcompute__(self):
        return list, ()

    def __dask_postpersist__(self):
        raise NotImplementedError


def test_an_unknown_expression_is_lowered_on_the_client(client):
    data = array()
    sums = Sums(Weighted(Options(data), 3))
    with daskps.proxy_graph(), messages_sent(client) as messages:
        results = client.get(sums.expr, sums.__dask_keys__())
        assert results == [data.sum() * i for i in range(3)]
        assert daskps.usage(client).objects == 1
    assert graph_nbytes(messages) < MIB
    (update,) = (m for m in messages if m["op"] == "update-graph")
    assert set(update["keys"]) == set(sums.__dask_keys__())


def test_an_unknown_expression_without_anything_large_is_left_alone(client):
    expr = Weighted(Options(np.ones(10)), 3)
    with daskps.proxy_graph():
        new = submission._before_submission(client, expr, []).expr
    assert new is expr


def both(results):
    return results


class Pair(DaskMethodsMixin):
    """Two collections as one, in the way of Dask 2026.7 and later (as xarray has it)."""

    __dask_scheduler__ = staticmethod(dask.threaded.get)
    __dask_optimize__ = None

    def __init__(self, *children):
        self.children = children

    def __dask_exprs__(self):
        return tuple(child.expr for child in self.children)

    def __dask_rebuild_from_exprs__(self, exprs):
        return Pair(*map(dd.dask_expr.new_collection, exprs))

    def __dask_graph__(self):
        graphs = [child.__dask_graph__() for child in self.children]
        return {key: task for graph in graphs for key, task in graph.items()}

    def __dask_keys__(self):
        return [child.__dask_keys__() for child in self.children]

    def __dask_tokenize__(self):
        return self.children

    def __dask_postcompute__(self):
        return both, ()

    def __dask_postpersist__(self):
        raise NotImplementedError


@pytest.mark.skipif(
    not hasattr(dask._expr, "CompositeExpr"), reason="not in this version of Dask"
)
def test_a_collection_of_several_expressions(client):
    first, second = (pd.DataFrame({"x": array(i), "y": 1.0}) for i in range(2))

    def pair():
        return Pair(
            dd.from_pandas(first, npartitions=2).x + 1,
            dd.from_pandas(second, npartitions=2),
        )

    with daskps.proxy_graph(), messages_sent(client) as messages:
        one, two = pair().compute()
        assert daskps.usage(client).objects
        (optimized,) = dask.optimize(pair())
        again, _ = optimized.compute()
    assert graph_nbytes(messages) < MIB
    pd.testing.assert_series_equal(pd.concat(one), first.x + 1)
    pd.testing.assert_frame_equal(pd.concat(two), second)
    pd.testing.assert_series_equal(pd.concat(again), first.x + 1)
