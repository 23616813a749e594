"""What processes import: not what an array-only program has no use for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from processes import HERE, ProcessCluster
from proxystore.connectors.file import FileConnector
from proxystore.store import Store as ProxyStore

import daskps
from daskps.lazy import loaded

ARRAYS_ALONE = str(Path(HERE) / "without_optional")


def python(*args: str, **environment: str) -> str:
    """Run Python, without what ``dask.array`` imports if it is there."""
    path = os.pathsep.join([ARRAYS_ALONE, *sys.path])
    done = subprocess.run(
        [sys.executable, *args],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


SHOW = "import sys; print(*(m for m in {} if m in sys.modules))"
HEAVY = [
    *("pandas", "pydantic", "pyarrow", "polars", "dask.dataframe", "sqlite3"),
    *("proxystore.store", "proxystore.serialize", "redis", "proxystore_ex"),
    "bokeh",
]


@pytest.mark.core
def test_importing_daskps():
    code = "import distributed, dask.array, daskps, daskps.preload, daskps.testing; "
    assert python("-c", code + SHOW.format(HEAVY)).split() == []


@pytest.mark.core
@pytest.mark.parametrize("plugin", ["scheduler.lifetimes", "worker.plugin"])
def test_what_plugins_import(plugin):
    code = f"import daskps.{plugin}; "
    assert python("-c", code + SHOW.format([*HEAVY, "dask.array"])).split() == []


@pytest.mark.slow
@pytest.mark.core
@pytest.mark.parametrize("store", ["", "shm://", "peer://"])
def test_a_program_of_arrays_imports_no_dataframes(store):
    """Nor after a session in which large values went both ways."""
    hidden = {"PYTHONPATH": ARRAYS_ALONE}
    with ProcessCluster(scheduler=hidden, worker=hidden) as cluster:
        program = os.path.join(HERE, "light_program.py")
        output = python(program, cluster.address, store)
    found = json.loads(output.splitlines()[-1])
    assert len(found) == 4, "the client, the scheduler, and two workers"
    assert not any(found.values()), found


PROXYSTORES = """
import sys, daskps
assert "proxystore.store" not in sys.modules
with daskps.open_store("shm://") as ours:
    import proxystore.store
    assert isinstance(ours, proxystore.store.Store), type(ours)
    assert proxystore.store.get_store(ours.name) is ours
    config = ours.config().model_copy(update={"auto_register": False})
    again = proxystore.store.Store.from_config(config)
    assert type(again) is proxystore.store.Store, "elsewhere it needs no class of daskps"
    assert again.get(ours.put([1, 2])) == [1, 2]
    assert not {"redis", "proxystore_ex"} & sys.modules.keys()
    print("opened")
"""


def test_a_store_for_proxystore_is_proxystores():
    """To its functions, and in other processes; its classes are imported with the first."""
    assert python("-c", PROXYSTORES) == "opened\n"


def test_a_module_that_is_being_imported_is_not_loaded(monkeypatch):
    """Another thread imports it: its types are not there yet."""
    half = types.ModuleType("half")
    half.__spec__ = types.SimpleNamespace(_initializing=True)
    monkeypatch.setitem(sys.modules, "half", half)
    monkeypatch.setitem(sys.modules, "hidden", None)
    assert loaded("half") is loaded("hidden") is loaded("not_there_at_all") is None
    assert loaded("numpy") is np


def test_python_says_what_is_being_imported(tmp_path, monkeypatch):
    """By a private attribute."""
    (tmp_path / "imports_itself.py").write_text(
        "from daskps.lazy import loaded\nduring = loaded(__name__)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import imports_itself

    assert imports_itself.during is None
    assert loaded("imports_itself") is imports_itself


def test_a_frame_after_arrays(cluster, client):
    """What was not imported at first is known once it is."""
    import pandas as pd

    frame = pd.DataFrame({"x": np.arange(1 << 17)})
    with daskps.proxy_graph():
        assert client.submit(len, frame).result() == 1 << 17
        assert daskps.usage().objects


def test_stores_of_proxystore_are_taken(client, tmp_path):
    data = np.arange(1 << 17)
    with (
        ProxyStore("theirs", FileConnector(str(tmp_path)), register=False) as store,
        daskps.proxy_graph(store=store),
    ):
        assert client.submit(np.sum, data).result() == data.sum()
        assert os.listdir(tmp_path)
