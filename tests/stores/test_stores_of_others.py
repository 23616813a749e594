"""A store that another package brings: its scheme, its connector, and the tests for it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
from processes import ProcessCluster, released

import daskps
from daskps.stores import schemes
from daskps.testing import StoreTests

# A package as it is when it is installed.
PACKAGE = str(Path(__file__).parents[1] / "helpers" / "stores_of_others")


@pytest.fixture(scope="module", autouse=True)
def installed():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PACKAGE)
        schemes._of_others.cache_clear()
        yield
    schemes._of_others.cache_clear()
    sys.modules.pop("folder_store", None)


@pytest.fixture(scope="module")
def cluster(installed):
    path = {"PYTHONPATH": os.pathsep.join([PACKAGE, *filter(None, sys.path)])}
    with ProcessCluster(scheduler=path, worker=path) as cluster:
        yield cluster


class TestConnector(StoreTests):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path):
        self.path = str(tmp_path / "objects")

    def make_connector(self):
        from folder_store import FolderConnector

        return FolderConnector(self.path, owner=True)


def test_a_program_uses_it_by_its_scheme(cluster, tmp_path):
    x = np.arange(1 << 18, dtype="f8")
    with cluster.client() as client:
        with daskps.proxy_graph(f"folder://{tmp_path}"):
            total = da.from_array(x, chunks=1 << 17, name=False).sum()
            assert total.compute() == x.sum()
            np.testing.assert_array_equal(client.submit(np.add, x, 1).result(), x + 1)
            assert daskps.usage(client).objects
            assert len(os.listdir(tmp_path)) == 1
        assert released(client)


def test_its_own_check_is_asked():
    with pytest.raises(daskps.ConfigError, match="folder:// needs a path"):
        daskps.proxy_graph("folder://")


def test_the_error_for_an_unknown_scheme_lists_it():
    with pytest.raises(daskps.ConfigError, match=r"shm://.*folder://"):
        daskps.proxy_graph("unheard-of://x")


def test_none_takes_the_place_of_one_of_daskps(monkeypatch):
    monkeypatch.setattr(
        schemes, "_of_others", lambda: {"shm": schemes.Scheme("folder_store")}
    )
    assert schemes.schemes()["shm"] == schemes.SCHEMES["shm"]
    assert "file_scheme" not in schemes.scheme_module("store", "shm").__name__


def test_without_saying_how_to_make_a_connector():
    with pytest.raises(NotImplementedError, match="make_connector"):
        StoreTests().make_connector()
