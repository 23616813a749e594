"""What the examples share: a cluster, programs in turns on it, and what its scheduler did.

Each program runs on Dask as it is, and within ``daskps.proxy_graph()``, in turns, on a
cluster of its own for each, whose scheduler and workers are processes on this machine. Of
the scheduler is reported:

bytes through the scheduler
    All that its process read from its connections and wrote to them. What comes in and
    goes out again is counted twice.
growth of the scheduler's peak
    How far its peak memory (VmHWM) rose above what it held before (VmRSS).

Times and bytes are medians over the repetitions, the growth is the largest.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dask.utils import format_bytes
from distributed import Client

import daskps

#: Names of the two ways to run a program, and what it runs in.
WAYS = {"Dask": contextlib.nullcontext, "Dask with daskps": daskps.proxy_graph}

#: Name, type, default and description of an option of the command line.
Option = tuple[str, Any, Any, str]


@contextlib.contextmanager
def cluster(n_workers: int) -> Iterator[Client]:
    """A scheduler and workers of one thread each, as processes of their own."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",  # one core for each worker, also in linear algebra
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "DASK_LOGGING__DISTRIBUTED": "error",
        # The scheduler runs functions of this file.
        "PYTHONPATH": os.pathsep.join(
            filter(
                None,
                [
                    os.path.dirname(os.path.abspath(__file__)),
                    os.environ.get("PYTHONPATH"),
                ],
            )
        ),
    }
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        address = os.path.join(directory, "scheduler.json")

        def start(role: str, *options: str) -> None:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", f"distributed.cli.dask_{role}"),
                    *("--scheduler-file", address, "--host", "127.0.0.1"),
                    *("--dashboard-address", "127.0.0.1:0", *options),
                ],
                cwd=directory,
                env=environment,
            )
            stack.callback(stop, process)

        start("scheduler", "--port", "0")
        for _ in range(n_workers):
            start(
                "worker",
                *("--nthreads", "1", "--no-nanny", "--memory-limit", "0"),
                *("--local-directory", directory),
            )
        with Client(scheduler_file=address, timeout=60) as client:
            client.wait_for_workers(n_workers, timeout=60)
            client.run_on_scheduler(count_bytes)
            yield client


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process in an orderly way, or else in any."""
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def count_bytes(dask_scheduler: Any = None) -> None:
    """Count what the scheduler's process reads and writes. Runs there."""
    from tornado.iostream import IOStream

    stream_class: Any = IOStream
    dask_scheduler.example_bytes = 0

    def counted(original: Any) -> Any:
        def method(stream: Any, data: Any) -> Any:
            nbytes = original(stream, data)
            dask_scheduler.example_bytes += nbytes or 0
            return nbytes

        return method

    stream_class.read_from_fd = counted(IOStream.read_from_fd)
    stream_class.write_to_fd = counted(IOStream.write_to_fd)


def status(dask_scheduler: Any = None) -> dict[str, int]:
    """What the scheduler's process holds, held at most, and has moved. Runs there."""
    with open("/proc/self/status") as f:
        lines = dict(line.split(":", 1) for line in f)
    sizes = {name: int(lines[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM")}
    return {**sizes, "bytes": dask_scheduler.example_bytes}


def reset_peak() -> None:
    """Let VmHWM begin again at what the scheduler holds now. Runs there."""
    with open("/proc/self/clear_refs", "w") as f:
        f.write("5")


@dataclass
class Step:
    """Seconds, bytes through the scheduler, and growth of its memory in bytes."""

    seconds: float = 0.0
    traffic: int = 0
    memory: int = 0


@contextlib.contextmanager
def measured(client: Client) -> Iterator[Step]:
    """Measure what happens in the block."""
    client.run_on_scheduler(reset_peak)
    before = client.run_on_scheduler(status)
    step = Step()
    start = time.perf_counter()
    yield step
    step.seconds = time.perf_counter() - start
    after = client.run_on_scheduler(status)
    step.traffic = after["bytes"] - before["bytes"]
    step.memory = max(0, after["VmHWM"] - before["VmRSS"])


# Programs in turns


@dataclass
class Run:
    """One run of a program: what the scheduler did, and what the program gave."""

    step: Step
    answer: Any
    warned: bool


def in_turns(
    program: Callable[[Client], Any],
    warm_up: Callable[[Client], Any],
    n_workers: int,
    repeat: int,
) -> dict[str, list[Run]]:
    """Run a program on plain Dask and with daskps.

    Parameters
    ----------
    program
        Given a client, gives its answer.
    warm_up
        Run once before, so that every process has imported what it needs.
    n_workers
        Of each cluster.
    repeat
        Runs of each kind.
    """
    runs: dict[str, list[Run]] = {name: [] for name in WAYS}
    with contextlib.ExitStack() as stack:
        clients = {name: stack.enter_context(cluster(n_workers)) for name in WAYS}
        for i in range(-1, repeat):
            for name, context in WAYS.items():
                with clients[name].as_current(), context():
                    run = one_run(clients[name], warm_up if i < 0 else program)
                if i >= 0:
                    runs[name].append(run)
                    progress(
                        f"{name}, run {i + 1} of {repeat}: {run.step.seconds:.1f} s"
                    )
    return runs


def one_run(client: Client, program: Callable[[Client], Any]) -> Run:
    """Run a program once."""
    with (
        warnings.catch_warnings(record=True) as caught,
        measured(client) as step,
    ):
        warnings.simplefilter("always")
        answer = program(client)
    return Run(step, answer, any("large graph" in str(w.message) for w in caught))


def progress(text: str) -> None:
    """Say how far the example is."""
    print(text, file=sys.stderr, flush=True)


def answers(runs: dict[str, list[Run]]) -> list[Any]:
    """What the program gave in each run."""
    return [run.answer for each in runs.values() for run in each]


def report(runs: dict[str, list[Run]]) -> None:
    """Print a table: medians of the times and of the bytes, the largest memory."""
    width = max(map(len, runs)) + 2
    rows: dict[str, Callable[[list[Run]], str]] = {
        "time": lambda each: f"{statistics.median(r.step.seconds for r in each):.2f} s",
        "bytes through the scheduler": lambda each: format_bytes(
            int(statistics.median(r.step.traffic for r in each))
        ),
        "growth of the scheduler's peak": lambda each: format_bytes(
            max(r.step.memory for r in each)
        ),
        '"Sending large graph" warning': lambda each: (
            "yes" if any(r.warned for r in each) else "no"
        ),
    }
    print(f"{'':32}" + "".join(f"{name:>{width}}" for name in runs))
    for title, cell in rows.items():
        print(
            f"{title:32}" + "".join(f"{cell(each):>{width}}" for each in runs.values())
        )


# The command line


def positive(text: str) -> int:
    """A number of things."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def parser(
    description: str | None, options: Sequence[Option]
) -> argparse.ArgumentParser:
    """A parser of some options, and of those that all examples have."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    common: list[Option] = [
        ("--workers", positive, 2, "worker processes"),
        ("--repeat", positive, 3, "runs of each kind"),
        ("--seed", int, 0, "of what is random"),
    ]
    for name, type_, default, text in [*options, *common]:
        made.add_argument(
            name, type=type_, default=default, help=f"{text} (default: {default})"
        )
    return made
