"""What nobody thought of does not reach the scheduler, and nothing is pickled twice."""

from __future__ import annotations

import dask
import numpy as np
import pytest
from processes import graph_nbytes, messages_sent

import daskps
from daskps import safety_net
from daskps.client import submission
from daskps.objects import sizes
from daskps.objects.pickles import Pickles

pytestmark = pytest.mark.core

MIB = 1 << 20


class Opaque:
    """Has a way of its own to be pickled."""

    pickled = 0

    def __init__(self, data):
        self.data = data

    def __dask_tokenize__(self):
        return id(self)  # Dask 2025.4.0 would pickle it to name the task

    def __reduce__(self):
        Opaque.pickled += 1
        return Opaque, (self.data,)

    def total(self, more=0):
        return self.data.sum() + more


class Once(Opaque):
    """Can be pickled once only, such as what hands over something that it owns."""

    def __reduce__(self):
        if not hasattr(self, "data"):
            raise TypeError("it was handed over")
        data = self.data
        del self.data
        return Opaque, (data,)


def data(seed=0, nbytes=2 * MIB):
    return np.random.default_rng(seed).random(nbytes // 8)


def total(value, *more):
    return value.data.sum()


@pytest.fixture
def weighs_nothing(monkeypatch):
    """The census has never heard of this type."""
    known = sizes._contents

    def contents(type_):
        return (lambda values: []) if issubclass(type_, Opaque) else known(type_)

    monkeypatch.setattr(sizes, "_contents", contents)


WAYS = {
    "argument": lambda c, v: c.submit(total, v, pure=False).result(),
    "keyword": lambda c, v: c.submit(total, value=v, pure=False).result(),
    "in a list": lambda c, v: c.submit(
        lambda values: total(values[0]), [v], pure=False
    ).result(),
    "method": lambda c, v: c.submit(v.total, pure=False).result(),
    "map": lambda c, v: c.gather(c.map(total, [v, v], pure=False))[1],
    "delayed": lambda c, v: dask.delayed(total, pure=False)(v).compute(),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_weighs_nothing_is_found_all_the_same(client, weighs_nothing, way):
    x = data()
    with daskps.proxy_graph(), messages_sent(client) as messages:
        assert WAYS[way](client, Opaque(x)) == pytest.approx(x.sum())
    assert 0 < graph_nbytes(messages) < x.nbytes // 20


def test_dask_does_not_warn_of_what_is_not_sent(client, weighs_nothing, recwarn):
    x = data(nbytes=20 * MIB)
    with daskps.proxy_graph():
        assert client.submit(total, Opaque(x), pure=False).result() == pytest.approx(
            x.sum()
        )
    assert not [w for w in recwarn if "large graph" in str(w.message)]


def test_a_graph_that_cannot_be_made_smaller_is_sent_as_it_is(client, monkeypatch):
    monkeypatch.setattr(Pickles, "exact_nbytes", lambda self, value: 0)
    monkeypatch.setattr(sizes, "_contents", lambda type_: lambda values: [])
    x = data()
    with daskps.proxy_graph(), messages_sent(client) as messages:
        assert client.submit(total, Opaque(x), pure=False).result() == pytest.approx(
            x.sum()
        )
    assert graph_nbytes(messages) > x.nbytes


def test_what_is_to_be_submitted_instead_may_fail(client, weighs_nothing, monkeypatch):
    def fails(*args, **options):
        raise RuntimeError("on purpose")

    monkeypatch.setattr(submission.Plan, "by_pickling", fails)
    # Faults of this process are counted for all clients: not for those of other tests.
    monkeypatch.setattr(safety_net, "_count", safety_net.count())
    x = data()
    net = dask.config.set({safety_net.SETTING: True})
    with net, daskps.proxy_graph(), messages_sent(client) as messages:
        future = client.submit(total, Opaque(x), pure=False)
        assert future.result() == pytest.approx(x.sum())
    assert graph_nbytes(messages) > x.nbytes


@pytest.mark.parametrize("way", ["argument", "keyword", "method", "map", "delayed"])
def test_an_object_is_pickled_once(client, way):
    value = Opaque(data(1))
    with daskps.proxy_graph():
        Opaque.pickled = 0
        assert WAYS[way](client, value) == pytest.approx(value.data.sum())
    assert Opaque.pickled == 1


def test_an_object_that_can_be_pickled_only_once(client):
    x = data(2)
    with daskps.proxy_graph():
        assert client.submit(total, Once(x), pure=False).result() == pytest.approx(
            x.sum()
        )
