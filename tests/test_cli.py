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
