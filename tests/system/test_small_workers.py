"""Programs on workers with little memory end as with plain Dask, or better."""

from __future__ import annotations

import pytest

from benchmarks.worker_memory import MIB, PROGRAMS, Outcome, run

# Python and Dask take a third of it.
MEMORY = 512 * MIB


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore:Sending large graph")
@pytest.mark.parametrize("name", PROGRAMS)
def test_no_worker_is_paused_or_killed_that_plain_dask_leaves_alone(name):
    ours = run(name, MEMORY, by_reference=True)
    # Not asked if nothing could be better.
    perfect = Outcome("finished", 0, 0, 0.0)
    if not ours.is_no_worse_than(perfect):
        assert ours.is_no_worse_than(run(name, MEMORY, by_reference=False)), ours


def test_outcomes_are_compared():
    perfect = Outcome("finished", 0, 0, 10.0)
    assert perfect.is_no_worse_than(Outcome("finished", 0, 0, 1.0))
    assert perfect.is_no_worse_than(Outcome("KilledWorker", 4, 1, 1.0))
    assert not Outcome("KilledWorker", 0, 0, 1.0).is_no_worse_than(perfect)
    assert not Outcome("finished", 1, 0, 1.0).is_no_worse_than(perfect)
    assert not Outcome("finished", 0, 1, 1.0).is_no_worse_than(perfect)
