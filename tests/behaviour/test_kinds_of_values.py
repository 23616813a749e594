"""Large values of every kind go by reference, and are what they are in plain Dask.

By default half of the kinds come to a task, each on one of the ways, in turn; all kinds are
tried among the slow tests, and all ways by::

    python -m pytest -m "full or not full" tests/behaviour/test_kinds_of_values.py
"""

from __future__ import annotations

import pytest
from processes import ProcessCluster, released, who_needs_what
from same import assert_same, describe, digest

import daskps
from benchmarks import counters
from benchmarks.kinds import ways
from benchmarks.kinds.catalogue import all_kinds, kinds
from daskps.serialize.values import serialize

# Dask's own serialisation of matrices warns.
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")

NBYTES = 2_000_000
#: Of what is compared, which takes time.
SMALL_NBYTES = 100_000
#: How much of a value may go over the scheduler.
SHARE = 0.05
# Run always. Dask puts the keys of a dictionary into the header of what it sends.
HARD = {("dict whose keys are large", "result")}


def cases(every):
    """Each kind with each way: some by default, one way for each is slow, all are full."""
    to_tasks = [w for w in ways.WAYS if w not in (ways.result, ways.called)]
    for i, kind in enumerate(all_kinds().values()):
        for way in ways.WAYS:
            if way is ways.called and kind.call is None:
                continue
            n, place = divmod(i, len(to_tasks))
            usual = way is to_tasks[place] or (way not in to_tasks and i % 4 == 0)
            if (kind.name, way.__name__) in HARD:
                marks = []
            elif not usual:
                marks = [pytest.mark.full]
            else:
                marks = [] if n % every == 0 else [pytest.mark.slow]
            name = f"{way.__name__}: {kind.name}"
            yield pytest.param(kind, way, id=name, marks=marks)


@pytest.fixture(scope="module")
def client():
    with ProcessCluster() as cluster, cluster.client() as client:
        counters.install(client)
        yield client
        assert released(client), client.run_on_scheduler(who_needs_what)


@pytest.mark.parametrize(("kind", "way"), list(cases(every=2)))
def test_large_values_go_by_reference(client, kind, way):
    # The threshold that users have: that of the tests is lower.
    with daskps.proxy_graph(threshold="1 MB", results=True):
        before = counters.traffic(client)
        way(client, kind, NBYTES, ways.type_name)
        nbytes = counters.traffic(client) - before
    share = nbytes / serialize(kind.make(NBYTES)).nbytes
    assert share < SHARE


@pytest.mark.parametrize(("kind", "way"), list(cases(every=4)))
def test_values_are_what_they_are_in_plain_dask(client, kind, way):
    def looked(look):
        plain = way(client, kind, SMALL_NBYTES, look)
        with daskps.proxy_graph(threshold="16 kB", results=True):
            return way(client, kind, SMALL_NBYTES, look), plain

    ours, plain = looked(digest)
    if ours != plain:
        ours, plain = looked(describe)  # the same again, to say what differs
    assert ours == plain


def test_there_are_values_of_many_kinds():
    assert len(all_kinds()) >= 100


@pytest.mark.parametrize("name", list(all_kinds()))
def test_values_have_about_the_size_that_was_asked_for(name):
    nbytes = 300_000
    make = kinds(nbytes)[name]
    assert 0.5 < serialize(make()).nbytes / nbytes < 2
    assert_same(make(), make())
