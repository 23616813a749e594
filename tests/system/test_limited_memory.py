"""Whole programs where memory is limited: daskps runs wherever Dask does."""

from __future__ import annotations

import pytest

from benchmarks.memory.groups import NoGroupsError
from benchmarks.memory.limited import run, run_mixed
from benchmarks.memory.programs import MAY_GROW_NBYTES, PROGRAMS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

LIMIT = 800 << 20
MIXED_SECONDS = 60.0


@pytest.mark.parametrize("name", PROGRAMS)
def test_daskps_finishes_where_dask_does(name):
    """Client, scheduler and worker together in one control group of 800 MiB."""
    try:
        ours = run(name, "daskps", LIMIT)
        if ours.finished:
            return
        plain = run(name, "dask", LIMIT)
    except NoGroupsError as e:
        pytest.skip(str(e))
    assert not plain.finished, ours


def test_memory_comes_back_after_mixed_work():
    """The client's within 50 MB, and the store's directory is empty."""
    found = run_mixed(MIXED_SECONDS)
    assert sum(found["turns"].values()) > 0
    assert found["grown"] < MAY_GROW_NBYTES, found
    assert found["held"] == 0, found
    assert found["left"] == [], found
