"""/dev/shm as it is found: of 64 MB, read-only, or missing. Each in a namespace."""

from __future__ import annotations

import in_namespace
import pytest

MIB = 1 << 20

pytestmark = pytest.mark.slow
NAMED_OR_NOT = pytest.mark.parametrize(
    "store", [(), pytest.param(("shm://",), marks=pytest.mark.full)]
)


def run(mounts, tmp_path, *arguments):
    return in_namespace.run("memory_program", mounts, str(tmp_path), *arguments)


def warned(seen):
    return [text for level, text in seen["log"] if level == "WARNING"]


def check_all_but_where(seen):
    assert seen["same"]
    assert seen["graph"] < MIB, "values travelled inside the graph"
    assert seen["emptied"]
    assert seen["left"] == {"memory": 0, "temporary": 0}


@NAMED_OR_NOT
def test_docker_gives_64_mb(tmp_path, store):
    seen = run(in_namespace.SMALL, tmp_path, "compute", *store)
    check_all_but_where(seen)
    # The reserve is an eighth. Who begins to write an object of 10 MiB looks at what is
    # left, and two may begin at the same time.
    assert 40 * MIB < seen["objects"]["memory"] < 64 * MIB
    assert sum(seen["objects"].values()) >= 120 * MIB
    remark = (
        "/dev/shm holds 64.00 MiB at most, and large values that do not fit are files "
        f"in {tmp_path}/temporary"
    )
    assert "shm://" in seen["session"]
    assert remark in seen["session"]
    assert sum(remark in text for _, text in seen["log"]) == 1
    assert not warned(seen)


def test_nothing_is_left_of_killed_processes_in_either_place(tmp_path):
    seen = run(in_namespace.SMALL, tmp_path, "killed")
    assert min(seen["before"].values()) > 20 * MIB
    assert seen["swept"] == 2
    assert seen["after"] == {"memory": 0, "temporary": 0}


@NAMED_OR_NOT
@pytest.mark.parametrize("mounts", ["READ_ONLY", "MISSING"])
def test_none(tmp_path, mounts, store):
    seen = run(getattr(in_namespace, mounts), tmp_path, "compute", *store)
    check_all_but_where(seen)
    assert seen["objects"]["temporary"] > 110 * MIB
    remark = (
        "/dev/shm cannot be written to, so large values are files in "
        f"{tmp_path}/temporary"
    )
    assert "shm://" in seen["session"]
    assert remark in seen["session"]
    assert warned(seen) == [f"{remark}."]


def test_none_but_the_temporary_directory_is_in_memory(tmp_path):
    mounts = f"{in_namespace.READ_ONLY} && {in_namespace.TEMPORARY_IN_MEMORY}"
    seen = run(mounts, tmp_path, "compute")
    check_all_but_where(seen)
    [warning] = warned(seen)
    assert "temporary, which is in memory as well (a tmpfs)" in warning
    assert warning.rstrip(".") in seen["session"]
