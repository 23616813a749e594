"""Clusters whose scheduler and workers are processes of their own, also for the tests."""

from __future__ import annotations

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
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, ClassVar, Self

from distributed import Client

#: For how long (seconds) a start or an end may take: a machine may be ten times slower, or
#: busy. Whatever waits so long goes on as soon as it is there.
PATIENCE = 100


class Cluster:
    """A scheduler and workers, started as users start them.

    Parameters
    ----------
    workers
        How many.
    nanny
        Whether each is under a nanny, which starts it again when it dies; the processes
        are then those of the nannies.
    scheduler, worker
        More environment variables for either. What they name in ``PYTHONPATH`` comes
        before :attr:`path`.
    dashboard
        Whether they serve pages.

    Attributes
    ----------
    directory
        Where all of them run, and write their logs to.
    scheduler, workers
        The processes.
    """

    #: Of each worker.
    threads: ClassVar[int] = 1
    #: More options of each worker.
    options: str = "--memory-limit 0"

    directory: str
    scheduler: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]]

    def __init__(
        self,
        workers: int = 2,
        *,
        nanny: bool = False,
        scheduler: dict[str, str] | None = None,
        worker: dict[str, str] | None = None,
        dashboard: bool = False,
    ):
        self.directory = tempfile.mkdtemp(prefix="cluster-")
        self.file = os.path.join(self.directory, "scheduler.json")
        self._dashboard = "--dashboard" if dashboard else "--no-dashboard"
        self.scheduler = self._start("scheduler --port 0 --no-show", scheduler or {})
        self._worker = nanny, worker or {}
        self.workers = []
        self._services: dict[str, str] = {}
        self._ending = contextlib.ExitStack()
        for _ in range(workers):
            self.add_worker()

    @property
    def path(self) -> list[str]:
        """Where processes find the functions of tasks, and what these import."""
        return sys.path

    def add_worker(
        self, environment: dict[str, str] | None = None, options: str = ""
    ) -> None:
        """Start one more, with some more environment variables and options."""
        nanny, common = self._worker
        command = (
            f"worker --name w{len(self.workers)} --nthreads {self.threads} "
            f"{'--nanny' if nanny else '--no-nanny'} --death-timeout {PATIENCE} "
            f"--local-directory {self.directory} {self.options} {options}"
        )
        self.workers.append(self._start(command, {**common, **(environment or {})}))

    def _start(
        self, command: str, environment: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        name = command.split(maxsplit=1)[0]
        path = [*filter(None, [environment.get("PYTHONPATH")]), *self.path]
        with open(os.path.join(self.directory, f"{name}.log"), "ab") as log:
            return subprocess.Popen(
                [
                    *(sys.executable, "-m", "dask", *command.split(), self._dashboard),
                    *("--dashboard-address", "127.0.0.1:0", "--host", "127.0.0.1"),
                    *("--scheduler-file", self.file),
                ],
                cwd=self.directory,
                env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(path)},
                stdout=log,
                stderr=log,
            )

    def service(
        self, name: str, start: Callable[[], AbstractContextManager[str]]
    ) -> str:
        """Where something is that is there until the cluster has ended.

        A scheduler keeps stores open for all of its life, whatever they need.

        Parameters
        ----------
        name
            At the second call for it, nothing is started.
        start
            Makes the context in which it is there, and which gives the address.
        """
        if name not in self._services:
            self._services[name] = self._ending.enter_context(start())
        return self._services[name]

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
            address: str = json.load(f)["address"]
            return address

    @property
    def owned(self) -> set[str]:
        """The directories of stores, caches and records of these processes."""
        owned = set()
        for process in [self.scheduler, *self.workers]:
            for link in glob.glob(f"/proc/{process.pid}/fd/*"):
                with contextlib.suppress(OSError):
                    directory, name = os.path.split(os.readlink(link))
                    if name == "owner.lock":
                        owned.add(directory)
        return owned

    @property
    def directories(self) -> set[str]:
        """The directories of stores that the scheduler owns, and that workers share."""
        others = ("daskps.record-", "daskps-cache-")
        return {d for d in self.owned if not os.path.basename(d).startswith(others)}

    def log(self, name: str = "scheduler") -> str:
        """What the scheduler (or the workers) wrote."""
        with open(os.path.join(self.directory, f"{name}.log")) as f:
            return f.read()

    def cpu(self) -> float:
        """Seconds of processor time that the scheduler has used."""
        return _cpu(self.scheduler.pid)

    def cpu_of_all(self) -> float:
        """The same of the scheduler, the workers and this process together."""
        processes = [self.scheduler, *self.workers]
        return sum(map(_cpu, (os.getpid(), *(process.pid for process in processes))))

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
        self._ending.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.client(set_as_default=False).close()  # it is there
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def objects_in(cluster: Cluster) -> list[str]:
    """Files of objects in the cluster's stores; not the evicted ones that are kept."""
    beside = ("owner.", "users.", "server.")
    return [
        path
        for directory in cluster.directories
        for path in glob.glob(os.path.join(directory, "*"))
        if not os.path.basename(path).startswith(("free.", *beside))
    ]


def _cpu(pid: int) -> float:
    # The clock of another process, as clock_getcpuclockid(3) makes it: /proc counts in
    # steps of 10 ms only.
    return time.clock_gettime((~pid << 3) | 2)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port
