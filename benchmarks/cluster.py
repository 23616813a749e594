"""A cluster of real processes on this machine, the scheduler in its own."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from distributed import Client

MIB = 2**20


@dataclass
class Cluster:
    """A running cluster.

    Attributes
    ----------
    address
        Of the scheduler.
    scheduler, workers
        Process ids.
    """

    address: str
    scheduler: int
    workers: list[int] = field(default_factory=list)

    def cpu(self) -> float:
        """Seconds of processor time that the scheduler has used."""
        return _cpu(self.scheduler)

    def cpu_of_all(self) -> float:
        """The same of the scheduler, the workers and this process together."""
        return sum(map(_cpu, (self.scheduler, *self.workers, os.getpid())))


@contextlib.contextmanager
def cluster(n_workers: int = 2, *, nanny: bool = False) -> Iterator[Cluster]:
    """Start a scheduler and single-threaded workers; stop them afterwards.

    Parameters
    ----------
    n_workers
        How many.
    nanny
        Whether each is under a nanny, which starts it again when it dies; the process ids
        are then those of the nannies.
    """
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
        address = f"tcp://127.0.0.1:{free_port()}"
        scheduler = stack.enter_context(
            _process(directory, "scheduler", "--host", address, "--no-dashboard")
        )
        options = [
            "--nthreads",
            "1",
            "--nanny" if nanny else "--no-nanny",
            "--no-dashboard",
            "--memory-limit",
            "0",
        ]
        workers = [
            stack.enter_context(
                _process(directory, "worker", address, "--host", "127.0.0.1", *options)
            )
            for _ in range(n_workers)
        ]
        with Client(address, timeout=60) as client:
            client.wait_for_workers(n_workers, timeout=60)
        yield Cluster(address, scheduler.pid, [w.pid for w in workers])


@contextlib.contextmanager
def _process(directory: str, *args: str) -> Iterator[subprocess.Popen[bytes]]:
    with open(os.path.join(directory, "log"), "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *args, "--dashboard-address", ":0"],
            cwd=directory,
            # Workers import the scenarios' functions from where the benchmarks are.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _cpu(pid: int) -> float:
    # The clock of another process, as clock_getcpuclockid(3) makes it: /proc counts in
    # steps of 10 ms only.
    return time.clock_gettime((~pid << 3) | 2)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port
