"""A scheduler is killed that has objects in a store of the user's own."""

from __future__ import annotations

import glob
import os
import pickle
import stat
import subprocess
import sys

import numpy as np
import pytest
from flaky_store import FlakyConnector, FlakyKey
from processes import PATH, PLACES, ProcessCluster, eventually

import daskps
from daskps.stores.connectors.config import ConnectorConfig
from daskps.stores.connectors.sealed import SealedKey
from daskps.stores.files.directories import sweep
from daskps.stores.records import ENTRIES, OBJECTS, Record, _read, sweep_records
from daskps.stores.store import StoreConfig

X = np.arange(1 << 18, dtype="f8")  # 2 MiB


OTHERS: set[str] = set()


@pytest.fixture(autouse=True)
def records_of_others():
    """Those of the cluster that all tests share."""
    OTHERS.clear()
    OTHERS.update(records())
    yield
    for place in PLACES:  # copies on the host, of workers that were killed
        sweep(place)


def records():
    """The records that there are now, but those that were there before the test."""
    found = set(glob.glob(os.path.join(PLACES[0], "daskps.record-*")))
    return found - OTHERS


def left(directory):
    return glob.glob(os.path.join(directory, "object-*"))


@pytest.fixture
def config(tmp_path):
    kind = f"{FlakyConnector.__module__}.{FlakyConnector.__qualname__}"
    connector = ConnectorConfig(kind=kind, options={"directory": str(tmp_path)})
    return StoreConfig(name="store", connector=connector)


def kill_a_scheduler(connector):
    """That of a cluster with an argument and a result in a store."""
    with (
        ProcessCluster(workers=1) as cluster,
        cluster.client() as client,
        daskps.proxy_graph(connector),
    ):
        future = client.submit(np.add, X, 1)
        np.testing.assert_array_equal(future.result(), X + 1)
        # What the scheduler has not heard of yet, nobody can write down.
        (record,) = records()
        assert eventually(lambda: len(_read(os.path.join(record, OBJECTS))) == 2)
        # The worker too: it would delete its results.
        for process in (*cluster.workers, cluster.scheduler):
            process.kill()
        for process in (*cluster.workers, cluster.scheduler):
            process.wait()
        del future


def test_the_next_cluster_evicts_what_a_killed_scheduler_left(tmp_path):
    connector = FlakyConnector(str(tmp_path))
    kill_a_scheduler(connector)
    assert left(tmp_path)
    assert len(records()) == 1
    with (
        ProcessCluster(workers=1) as cluster,
        cluster.client() as client,
        daskps.proxy_graph(connector),
    ):
        assert client.submit(np.sum, X).result() == X.sum()
        assert eventually(lambda: len(records()) == 1), "the new one's own"
        assert len(left(tmp_path)) == 1
    assert not left(tmp_path)
    assert not records()


def test_sweeping_by_hand_evicts_what_a_killed_scheduler_left(tmp_path):
    kill_a_scheduler(FlakyConnector(str(tmp_path)))
    objects = left(tmp_path)
    assert objects
    (record,) = records()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(PATH)}
    for options, there in [(["--dry-run"], objects), ([], [])]:
        command = [sys.executable, "-m", "dask", "daskps", "sweep", *options]
        output = subprocess.run(
            command, check=True, capture_output=True, text=True, env=environment
        ).stdout
        assert record in output.splitlines()
        assert left(tmp_path) == there
    assert not records()


def test_a_store_that_cannot_be_reached_is_tried_again(tmp_path, caplog):
    kill_a_scheduler(FlakyConnector(str(tmp_path)))
    objects = left(tmp_path)
    with open(tmp_path / "faults", "w") as f:
        f.write('{"evict": "raise"}')
    assert sweep_records() == []
    assert "no route to the store" in caplog.text
    os.unlink(tmp_path / "faults")
    assert left(tmp_path) == objects
    assert len(sweep_records()) == 1
    assert not left(tmp_path)
    assert not records()


def test_the_record_of_a_live_process_is_not_touched(tmp_path, config):
    record = Record(config)
    record.add(SealedKey(FlakyConnector(str(tmp_path)).put(b"1"), 1, b""))
    assert sweep_records() == []
    assert len(left(tmp_path)) == len(records()) == 1
    (key,) = record._keys
    record.remove(key)
    record.close()
    assert not records()


def test_a_record_is_private_and_cut_short_it_can_be_read(config):
    record = Record(config)
    path = record._directory.path
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
    for name in os.listdir(path):
        assert stat.S_IMODE(os.stat(os.path.join(path, name)).st_mode) == 0o600
    keys = [FlakyKey(str(i)) for i in range(3)]
    for key in keys:
        record.add(key)
        record.add(key)
    record.remove(keys[0])
    objects = os.path.join(path, "objects")
    assert _read(objects) == set(keys[1:])
    last = len(pickle.dumps((False, keys[0])))
    for nbytes in range(1, last + 1):
        os.truncate(objects, os.path.getsize(objects) - 1)
        assert _read(objects) == set(keys), nbytes
    for key in keys:
        record.remove(key)
    record.close()


def test_without_room_there_is_no_record(config, caplog):
    """That is no reason for the scheduler to lose its client."""
    record = Record(config)
    record.add(FlakyKey("1"))
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, record._file)
    os.close(full)
    record.add(FlakyKey("2"))
    assert "cannot be written down" in caplog.text
    assert "No space left" in caplog.text
    assert not records()
    record.add(FlakyKey("3"))
    record.remove(FlakyKey("1"))
    record.close()


def test_without_a_place_there_is_no_record(config, caplog, monkeypatch):
    monkeypatch.setattr("daskps.stores.records.place", lambda: "/proc")
    record = Record(config)
    record.add(FlakyKey("1"))
    record.close()
    assert "cannot be written down" in caplog.text


def test_a_record_does_not_grow_for_ever(config):
    record = Record(config)
    path = os.path.join(record._directory.path, "objects")
    kept = FlakyKey("kept")
    record.add(kept)
    for i in range(3 * ENTRIES):
        record.add(FlakyKey(str(i)))
        record.remove(FlakyKey(str(i)))
    assert os.path.getsize(path) < 2 * ENTRIES * len(pickle.dumps((True, kept)))
    assert _read(path) == {kept}
    record.remove(kept)
    record.close()
