"""The command for the shell: ``dask daskps``."""

from __future__ import annotations

import os
import subprocess
import sys

import dask
import pytest
from click.testing import CliRunner
from processes import PATIENCE

from daskps import cli
from daskps.cli import sweep_command

HOLD = """
import sys
from daskps.stores.files.directories import OwnedDirectory
directory = OwnedDirectory(sys.argv[1])
print(directory.path, flush=True)
input()
"""


class Owner:
    """A process that has a directory below another one, until it is killed."""

    def __init__(self, parent):
        self._process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(parent)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.path = self._process.stdout.readline().rstrip("\n")

    def kill(self):
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def owner(tmp_path):
    owner = Owner(tmp_path)
    yield owner
    owner.kill()


def sweep(*arguments):
    return CliRunner().invoke(sweep_command, list(map(str, arguments)))


def dask_daskps(*arguments, **environment):
    """The output of the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "dask", "daskps", *map(str, arguments)],
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    ).stdout


def test_dasks_command_has_ours():
    assert "sweep" in dask_daskps("--help")
    assert "--dry-run" in dask_daskps("sweep", "--help")


def test_sweep_deletes_what_a_dead_process_left(tmp_path, owner):
    owner.kill()
    assert dask_daskps("sweep", "--dry-run", tmp_path) == f"{owner.path}\n1 found\n"
    assert os.path.isdir(owner.path)
    assert dask_daskps("sweep", tmp_path) == f"{owner.path}\n1 deleted\n"
    assert not os.path.exists(owner.path)
    assert dask_daskps("sweep", tmp_path) == "0 deleted\n"


def test_sweep_leaves_what_a_living_process_has(tmp_path, owner):
    assert sweep(tmp_path).output == "0 deleted\n"
    assert os.path.isdir(owner.path)


def test_sweep_looks_into_shared_memory_and_the_temporary_directory(tmp_path):
    places = {}
    for name in ("shm", "tmp"):
        (tmp_path / name).mkdir()
        places[name] = owner = Owner(tmp_path / name)
        owner.kill()
    environment = {
        "DASK_DASKPS__SHM__DIRECTORY": str(tmp_path / "shm"),
        "DASK_TEMPORARY_DIRECTORY": str(tmp_path / "tmp"),
    }
    swept = dask_daskps("sweep", **environment).splitlines()
    assert {owner.path for owner in places.values()} == set(swept[:-1])
    assert swept[-1] == "2 deleted"
    assert not any(os.path.exists(owner.path) for owner in places.values())


def test_sweep_takes_several_places(tmp_path):
    owners = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        owners.append(Owner(tmp_path / name))
        owners[-1].kill()
    done = sweep(tmp_path / "a", (tmp_path / "b").as_uri())
    assert done.output.splitlines() == [*(owner.path for owner in owners), "2 deleted"]


def test_sweeping_by_its_url_looks_where_the_hosts_of_peer_keep_objects(tmp_path):
    with dask.config.set(
        {"daskps.shm.directory": str(tmp_path), "temporary-directory": str(tmp_path)}
    ):
        assert sweep("peer://").output == "0 deleted\n"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("nowhere", "'nowhere' is neither a directory nor a URL"),
        ("s4://bucket", "s4"),
        ("redis://", "redis"),
    ],
)
def test_a_place_that_cannot_be_swept_is_an_error_in_one_line(place, said):
    done = sweep(place)
    assert done.exit_code
    assert isinstance(done.exception, SystemExit), "no traceback"
    assert "Error" in done.output
    assert said in done.output


@pytest.mark.parametrize("system", ["Windows", "Darwin"])
def test_on_another_system_there_is_nothing_to_sweep(monkeypatch, system):
    monkeypatch.setattr(cli, "is_linux", lambda: False)
    monkeypatch.setattr(cli, "system", lambda: system)
    done = sweep()
    assert done.exit_code
    assert f"Error: daskps keeps nothing on {system}" in done.output


SCRIPT = """
import sys
import dask
import numpy as np

def score(i, model):
    return i + len(model["emb"])

if __name__ == "__main__":
    print("arguments", sys.argv[1:])
    dask.config.set(scheduler="sync")
    print("small", dask.delayed(score)(1, {"emb": [1]}).compute())
    model = {"emb": np.random.default_rng(0).random(1 << 21)}
    scores = [dask.delayed(score)(i, model) for i in range(3)]
    print("large", sum(dask.compute(*scores)))
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "scores.py"
    path.write_text(SCRIPT)
    return path


def explain(*args):
    """Run the command in a process of its own, as its user does."""
    return subprocess.run(
        [sys.executable, "-m", "dask", "daskps", "explain", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    ).stdout


def test_a_script_runs_and_its_large_graphs_are_explained(script):
    output = explain(script, "--level", 3)
    assert "arguments ['--level', '3']" in output
    assert "small 2" in output
    assert f"large {3 + 3 * (1 << 21)}" in output
    assert output.count("submitted at") == 1
    assert "Graph 2, submitted at scores.py:15" in output
    assert "in score, argument model (" in output
    assert "scores.py:6)" in output
    assert "model['emb']" in output
    assert "2 graphs submitted, 1 explained" in output


def test_every_graph_is_explained_if_asked(script):
    output = explain("--all", script)
    assert output.count("submitted at") == 2
    assert "2 graphs submitted, 2 explained" in output


def test_a_script_stops_before_its_large_graph_is_sent(script):
    output = explain("--no-run", script)
    assert "small 2" in output
    assert "in score, argument model (" in output
    assert "Stopped before this graph was sent." in output
    assert "\nlarge" not in output


def test_collections_that_a_script_only_makes_are_explained_if_it_is_not_to_run(script):
    script.write_text(SCRIPT.partition('    print("large"')[0] + "    sys.exit()\n")
    assert "0 explained" in explain(script), "it submits nothing large"
    script.write_text(SCRIPT.partition('    print("large"')[0] + "    same = scores\n")
    output = explain("--no-run", script)
    assert output.count("which was not submitted") == 1
    assert "The graph of scores, which was not submitted" in output
    assert "in score, argument model (" in output
    assert "1 graph submitted, 1 explained" in output


def test_graphs_of_a_client_are_explained(tmp_path, cluster):
    path = tmp_path / "clients.py"
    path.write_text(f"""
import numpy as np
from distributed import Client

table = np.random.default_rng(0).random(1 << 21)
with Client({cluster.address!r}) as client:
    print("sum", client.submit(lambda i: i + len(table), 1).result())
""")
    output = explain(path)
    assert f"sum {1 + (1 << 21)}" in output
    assert "table (global)" in output
    assert "submitted at clients.py:7" in output
