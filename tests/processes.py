"""Dask clusters whose scheduler and workers are processes of their own."""

from __future__ import annotations

import atexit
import contextlib
import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

# Dask reads these when it is imported. Stores are kept in directories of this run and of
# the processes that it starts, since other programs on this host may use daskps, too.
VARIABLES = ["DASK_DASKPS__SHM__DIRECTORY", "DASK_TEMPORARY_DIRECTORY"]
if "DASKPS_TESTS" not in os.environ:
    os.environ["DASKPS_TESTS"] = str(os.getpid())
    os.environ[VARIABLES[0]] = tempfile.mkdtemp("-tests", dir="/dev/shm")
    os.environ[VARIABLES[1]] = tempfile.mkdtemp("-tests")

    @atexit.register
    def _remove_places() -> None:
        if os.environ["DASKPS_TESTS"] == str(os.getpid()):  # not in a forked process
            for place in PLACES:
                shutil.rmtree(place, ignore_errors=True)


PLACES = [os.environ[name] for name in VARIABLES]

import dask  # noqa: E402
import psutil  # noqa: E402
from dask.sizeof import sizeof  # noqa: E402
from distributed import Client, Future  # noqa: E402

dask.config.refresh()

HERE = os.path.dirname(__file__)

#: For how long (seconds) a test waits for what has to come: a machine may be ten times
#: slower, or busy. Whatever waits so long goes on as soon as it is there.
PATIENCE = 100

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


class ProcessCluster:
    """A scheduler and workers, started as users start them.

    `scheduler` and `worker` are environment variables for either, `dashboard` whether they
    serve pages. Of `PYTHONPATH`, the
    directory of the tests is the last entry, so that functions of tests can be imported.
    """

    threads = 1  # of each worker

    def __init__(
        self,
        workers: int = 2,
        *,
        nanny: bool = False,
        scheduler: dict[str, str] | None = None,
        worker: dict[str, str] | None = None,
        dashboard: bool = False,
    ):
        self.directory = tempfile.mkdtemp(prefix="cluster-of-tests-")
        self.file = os.path.join(self.directory, "scheduler.json")
        self._dashboard = (
            "--dashboard-address 127.0.0.1:0" if dashboard else "--no-dashboard"
        )
        self.scheduler = self._start(
            f"scheduler --port 0 {self._dashboard} --no-show", scheduler or {}
        )
        self._worker = nanny, worker or {}
        self.workers: list[subprocess.Popen] = []
        for _ in range(workers):
            self.add_worker()
        live.add(self)

    def add_worker(
        self, environment: dict[str, str] | None = None, options: str = ""
    ) -> None:
        """Start one more, with some more environment variables and options."""
        nanny, common = self._worker
        environment = {**common, **(environment or {})}
        command = (
            f"worker --name w{len(self.workers)} --nthreads {self.threads} "
            f"{self._dashboard} "
            f"--resources R=1 --death-timeout {PATIENCE} --local-directory {self.directory} "
            f"{'--nanny' if nanny else '--no-nanny'} {options}"
        )
        self.workers.append(self._start(command, environment))

    def _start(self, command: str, environment: dict[str, str]) -> subprocess.Popen:
        name = command.split(maxsplit=1)[0]
        path = os.pathsep.join(filter(None, [environment.get("PYTHONPATH"), HERE]))
        with open(os.path.join(self.directory, f"{name}.log"), "ab") as log:
            return subprocess.Popen(
                [
                    *(sys.executable, "-m", "dask", *command.split()),
                    *("--scheduler-file", self.file, "--host", "127.0.0.1"),
                ],
                env={**os.environ, **environment, "PYTHONPATH": path},
                stdout=log,
                stderr=log,
            )

    def client(self, **kwargs: Any) -> Client:
        """A new client, once all workers are there."""
        client = Client(scheduler_file=self.file, timeout=PATIENCE, **kwargs)
        alive = sum(worker.poll() is None for worker in self.workers)
        if alive and not client.asynchronous:
            client.wait_for_workers(alive, timeout=PATIENCE)
        return client

    @property
    def address(self) -> str:
        """Where the scheduler is."""
        with open(self.file) as f:
            return json.load(f)["address"]

    @property
    def directories(self) -> set[str]:
        """The directories of stores that the scheduler owns, and that workers share."""
        others = ("daskps.record-", "daskps-cache-")
        return {d for d in self.owned if not os.path.basename(d).startswith(others)}

    @property
    def owned(self) -> set[str]:
        """These, and those of caches and of records of other stores."""
        owned = set()
        for process in [self.scheduler, *self.workers]:
            for link in glob.glob(f"/proc/{process.pid}/fd/*"):
                with contextlib.suppress(OSError):
                    directory, name = os.path.split(os.readlink(link))
                    if name == "owner.lock":
                        owned.add(directory)
        return owned

    def log(self, name: str = "scheduler") -> str:
        """What the scheduler (or the workers) wrote."""
        with open(os.path.join(self.directory, f"{name}.log")) as f:
            return f.read()

    def close(self) -> None:
        """Stop everything in an orderly way."""
        # One after the other: a worker that closes while its scheduler does may hang.
        for processes in (self.workers, [self.scheduler]):
            for process in processes:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
            for process in processes:
                try:
                    process.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)
        live.discard(self)

    def __enter__(self) -> ProcessCluster:
        self.client(set_as_default=False).close()  # it is there
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def store_directories() -> set[str]:
    """Directories of stores that exist now."""
    return {d for p in PLACES for d in glob.glob(os.path.join(p, "daskps*"))}


def objects_in(cluster: ProcessCluster) -> list[str]:
    """Files of objects in the cluster's stores; not the evicted ones that are kept."""
    return [
        path
        for directory in cluster.directories
        for path in glob.glob(os.path.join(directory, "*"))
        if not os.path.basename(path).startswith(("free.", "owner.lock"))
    ]


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


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


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
