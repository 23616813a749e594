"""A share of Dask's own tests, with every literal in a store (see ``dask_suites``)."""

from __future__ import annotations

import pytest

from dask_suites.running import compare
from dask_suites.suites import SUITES


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("suite", [s for s in SUITES if s.quick], ids=lambda s: s.name)
def test_nothing_fails_with_daskps_only(suite):
    comparison = compare(suite, quick=True, processes=2, checkout=None)
    assert not comparison.problems
    assert comparison.with_.count("passed")
    assert comparison.with_.counts["objects"]
