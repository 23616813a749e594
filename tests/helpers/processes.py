"""Dask clusters whose scheduler and workers are processes of their own."""

from __future__ import annotations

import atexit
import contextlib
import gc
import glob
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

# Dask reads these when it is imported. Stores are kept in directories of this run and of
# the processes that it starts, since other programs on this host may use daskps, too.
VARIABLES = ["DASK_DASKPS__SHM__DIRECTORY", "DASK_TEMPORARY_DIRECTORY"]
# One of several processes that run tests; what each of them starts inherits this.
RUNNER = os.environ.get("PYTEST_XDIST_WORKER", "alone")
if os.environ.get("DASKPS_TESTS", "").partition(" ")[0] != RUNNER:
    os.environ["DASKPS_TESTS"] = f"{RUNNER} {os.getpid()}"
    os.environ[VARIABLES[0]] = tempfile.mkdtemp("-tests", dir="/dev/shm")
    os.environ[VARIABLES[1]] = tempfile.mkdtemp("-tests")

    @atexit.register
    def _remove_places() -> None:
        # Not in a forked process.
        if os.environ["DASKPS_TESTS"] == f"{RUNNER} {os.getpid()}":
            for place in PLACES:
                shutil.rmtree(place, ignore_errors=True)


PLACES = [os.environ[name] for name in VARIABLES]

import dask  # noqa: E402

dask.config.refresh()

import psutil  # noqa: E402
from dask.sizeof import sizeof  # noqa: E402
from distributed import Client, Future, Scheduler  # noqa: E402

import daskps  # noqa: E402
from benchmarks.cluster import PATIENCE, Cluster, objects_in  # noqa: E402

HERE = os.path.dirname(__file__)
TESTS = os.path.dirname(HERE)
ROOT = os.path.dirname(TESTS)

_FILES_OF_TESTS = glob.glob(os.path.join(TESTS, "**", "test_*.py"), recursive=True)

#: For ``PYTHONPATH``: helpers and functions of tests can be imported, and what is under
#: test is imported, not what is installed.
PATH = [HERE, *sorted({os.path.dirname(file) for file in _FILES_OF_TESTS}), ROOT]

#: Process ids of servers that are running, for more than one test perhaps.
servers: set[int] = set()

#: For a sitecustomize.py, as on another host: the process does not see a store's directory.
ELSEWHERE = """
    import os

    original = os.lstat

    def lstat(path, **options):
        if "daskps-" in str(path):
            raise FileNotFoundError(2, "No such file or directory", path)
        return original(path, **options)

    os.lstat = lstat
"""

#: Clusters that are running.
live: set[ProcessCluster] = set()


class ProcessCluster(Cluster):
    """A cluster whose workers can import functions of tests."""

    options = "--resources R=1"
    path = PATH
    #: Whether all tests use it that need nothing of their own.
    shared = False

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        live.add(self)

    def _start(
        self, command: str, environment: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        # Who is ended by the kernel says where, in its log.
        return super()._start(command, {"PYTHONFAULTHANDLER": "1", **environment})

    def close(self) -> None:
        super().close()
        live.discard(self)


def store_directories() -> set[str]:
    """Directories of stores that exist now."""
    return {d for p in PLACES for d in glob.glob(os.path.join(p, "daskps*"))}


def catch_storing(cluster: ProcessCluster, pid: int | None = None) -> bool:
    """Wait until an object is being written; False if that was too late.

    Stops the process that writes it, if that is given.
    """

    def storing() -> list[str]:
        return [path for path in objects_in(cluster) if path.endswith(".part")]

    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if storing():
            if pid is None:
                return True
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.05)
            return bool(storing())
        time.sleep(0.001)
    return False


def released(client: Client, seconds: float = PATIENCE) -> bool:
    """Whether the stores become empty."""

    def empty() -> bool:
        if daskps.usage(client).objects:
            gc.collect()
            return False
        return True

    return eventually(empty, seconds)


def who_needs_what(dask_scheduler: Scheduler) -> dict[str, tuple[list[str], list[str]]]:
    """By key of each object: the states of tasks that need it, and clients that hold it."""
    tasks, clients = dask_scheduler.tasks, dask_scheduler.clients
    return {
        str(id.key): (
            [str(tasks.get(key, key)) for key in entry.tasks],
            [name if name in clients else f"{name}, gone" for name in entry.clients],
        )
        for id, entry in dask_scheduler.plugins["daskps"]._objects.items()
    }


def children() -> set[psutil.Process]:
    """Processes that this one started, and those that they started."""
    return {
        process
        for process in psutil.Process().children(recursive=True)
        # Python keeps one for all of its life, once it used multiprocessing.
        if not _is_resource_tracker(process) and process.pid not in servers
    }


def _is_resource_tracker(process: psutil.Process) -> bool:
    try:
        command = " ".join(process.cmdline())
        return "resource_tracker" in command or process.status() == "zombie"
    except psutil.NoSuchProcess:
        return True


def eventually(condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Wait until a condition holds; its last value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return value


class Gate:
    """A task that ends when it is told to.

    Attributes
    ----------
    future
        What other tasks may depend on.
    """

    future: Future

    def __init__(self, client: Client):
        file, self._path = tempfile.mkstemp(prefix="gate-of-tests-")
        os.close(file)
        self.future = client.submit(until_gone, self._path, pure=False)

    def open(self) -> None:
        """Let it end."""
        os.unlink(self._path)


def until_gone(path: str) -> None:
    """Wait until a file is deleted."""
    eventually(lambda: not os.path.exists(path))


@contextlib.contextmanager
def messages_sent(client: Client) -> Iterator[list[dict[str, Any]]]:
    """What a client sends to its scheduler in a block, in order."""
    messages = []
    comm = client.scheduler_comm.comm  # where batches of messages go
    write = comm.write

    def tap(batch: list[dict[str, Any]], *args: Any, **kwargs: Any) -> Any:
        messages.extend(batch)
        return write(batch, *args, **kwargs)

    comm.write = tap
    try:
        yield messages
    finally:
        del comm.write


def graph_nbytes(messages: list[dict[str, Any]]) -> int:
    """Bytes of the graphs among messages."""
    return sum(
        sizeof(frame)
        for message in messages
        if message["op"] == "update-graph"
        for frame in [message["expr_ser"].header, *message["expr_ser"].frames]
    )
