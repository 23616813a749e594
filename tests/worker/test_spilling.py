"""What is mapped is kept where Dask would spill it."""

from __future__ import annotations

import os

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from distributed import wait
from distributed.spill import SpillBuffer

import daskps
from daskps.dask_private.memory import keep_instead_of_spilling
from daskps.stores.files.mapping import map_private
from daskps.worker.spilling import keep

MIB = 1 << 20
N = 1 << 19


class WorkerWithData:
    """The part of a worker that spills."""

    def __init__(self, directory, target=10 * MIB):
        self.data = SpillBuffer(str(directory), target=target)


@pytest.fixture
def worker(tmp_path):
    worker = WorkerWithData(tmp_path / "spilled")
    keep_instead_of_spilling(worker, keep)
    keep_instead_of_spilling(worker, keep)  # of another store
    return worker


@pytest.fixture
def mapped(tmp_path):
    """Makes an array that is mapped, N numbers."""

    def make(array=None):
        array = np.arange(N, dtype="f8") if array is None else array
        path = tmp_path / "object"
        array.tofile(path)
        fd = os.open(path, os.O_RDONLY)
        view = map_private(fd, array.nbytes)
        os.close(fd)
        os.unlink(path)
        return np.frombuffer(view, array.dtype).reshape(array.shape)

    return make


def files(tmp_path):
    return [p for p in (tmp_path / "spilled").rglob("*") if p.is_file()]


def test_a_mapped_value_is_kept(worker, mapped, tmp_path):
    value = mapped()
    worker.data["x"] = value
    worker.data["view"] = value[10:]
    assert worker.data.evict() == value.nbytes
    assert worker.data.evict() == value.nbytes - 80
    assert set(worker.data.disk) == {"x", "view"}
    assert not files(tmp_path)
    spilled = worker.data.spilled_total
    assert spilled.memory == 2 * value.nbytes - 80
    assert spilled.disk < 1000
    del value
    back = worker.data["x"]
    assert "x" in worker.data.fast
    assert back.flags.writeable
    assert np.array_equal(back, np.arange(N))
    assert np.array_equal(worker.data["view"], np.arange(10, N))
    assert tuple(worker.data.spilled_total) == (0, 0)
    del worker.data["x"], worker.data["view"]
    assert not worker.data


def test_what_was_written_is_spilled(worker, mapped, tmp_path):
    value = mapped()
    value[1000] = -1
    worker.data["x"] = value
    worker.data.evict()
    assert len(files(tmp_path)) == 1
    del value
    back = worker.data["x"]
    assert back[1000] == -1
    assert back[1001] == 1001
    assert not files(tmp_path)


def test_other_values_are_spilled_and_deleted(worker, mapped, tmp_path):
    other = mapped()  # something is mapped
    worker.data["a"] = np.ones(N)
    worker.data["b"] = "text" * 1000
    worker.data["c"] = [np.ones(N), other]
    while worker.data.fast:
        assert worker.data.evict() > 0
    assert len(files(tmp_path)) == 3
    assert np.array_equal(worker.data["a"], np.ones(N))
    assert np.array_equal(worker.data["c"][1], other)
    for key in "abc":
        del worker.data[key]
    assert not files(tmp_path)


def test_what_cannot_be_serialised_fails_as_in_plain_dask(worker, mapped):
    other = mapped()

    class Stubborn:
        def __reduce__(self):
            raise TypeError("no")

    worker.data["x"] = Stubborn()
    assert worker.data.evict() == -1
    assert "x" in worker.data.fast
    assert other[1] == 1


def test_containers_and_frames(worker, mapped, tmp_path):
    array = mapped()
    frame = pd.DataFrame({"a": mapped(), "b": mapped(np.arange(N))})
    read_only = mapped()
    read_only.flags.writeable = False
    worker.data["list"] = [array, array[:10], "text"]
    worker.data["dict"] = {"a": {"b": read_only}}
    worker.data["frame"] = frame.copy(deep=False)
    while worker.data.fast:
        assert worker.data.evict() > 0
    assert sorted(worker.data.disk) == ["dict", "frame", "list"]
    first, second, text = worker.data["list"]
    assert np.array_equal(first, array)
    assert np.array_equal(second, array[:10])
    assert text == "text"
    back = worker.data["dict"]["a"]["b"]
    assert np.array_equal(back, read_only)
    assert not back.flags.writeable
    pd.testing.assert_frame_equal(worker.data["frame"], frame)


def test_larger_than_the_target(mapped, tmp_path):
    worker = WorkerWithData(tmp_path / "spilled", target=MIB)
    keep_instead_of_spilling(worker, keep)
    worker.data["x"] = mapped()
    assert "x" in worker.data.disk
    assert not files(tmp_path)
    for _ in range(2):
        assert np.array_equal(worker.data["x"], np.arange(N))


def test_a_worker_that_spills_in_its_own_way():
    class Plain:
        data: dict = {}

    keep_instead_of_spilling(Plain, keep)
    assert Plain.data == {}


def test_persisted_blocks_of_a_store(client):
    x = np.arange(N, dtype="f8")

    def spill(dask_worker):
        data = dask_worker.data
        while data.fast:
            data.evict()
        return len(data.disk), data.spilled_total.disk

    with daskps.proxy_graph():
        y = da.from_array(x, chunks=N // 4).persist()
        wait(y)
        spilled = client.run(spill).values()
        assert sum(blocks for blocks, _ in spilled) == 4
        assert sum(nbytes for _, nbytes in spilled) < 4000
        assert np.array_equal(y.compute(), x)
