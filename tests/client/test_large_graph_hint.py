"""Dask's warning of a large graph names ``daskps.explain``, where no session is on."""

from __future__ import annotations

import warnings

import dask
import distributed
import numpy as np
import pytest

import daskps

VALUE = np.random.default_rng(0).random(1 << 17)  # 1 MiB


@pytest.fixture
def low_limit():
    key = "distributed.admin.large-graph-warning-threshold"
    with dask.config.set({key: "200 kiB"}):
        yield


def test_the_warning_has_one_more_line(client, low_limit):
    with pytest.warns(UserWarning, match="Sending large graph") as caught:
        client.submit(np.sum, VALUE, pure=False).result()
    (warning,) = caught
    assert "daskps.explain(...)" in str(warning.message).splitlines()[-1]
    assert warning.filename == distributed.client.__file__, "as without daskps"


def test_not_within_a_session(client, low_limit):
    small = [
        VALUE[: 1 << 13] + i for i in range(8)
    ]  # 64 KiB each: they stay in the graph
    with (
        daskps.proxy_graph(threshold="2 MiB"),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        client.submit(len, small, pure=False).result()
    assert not any("daskps.explain" in str(warning.message) for warning in caught)


def test_other_warnings_of_the_module_are_as_they_were(client):
    with pytest.warns(UserWarning, match="^something else$") as caught:
        distributed.client.warnings.warn("something else")
    assert caught[0].filename == __file__
