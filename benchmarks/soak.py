"""Use daskps for a long time while workers are killed: ``python -m benchmarks.soak --help``.

Arrays, frames and futures are computed in turn, with values and results by reference, and
compared with what NumPy and pandas say. Every ten seconds a worker is killed with SIGKILL;
its nanny starts another one. At the end there must be no wrong answer, no error, and nothing
left: no object in the store, and file descriptors and memory of the scheduler and of this
process as at the start, when Dask's own history was full, but for what Dask never forgets.
Exits with 1 otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import psutil
from distributed import Client

import daskps
from benchmarks.cluster import Cluster, objects_in

# Dask itself logs events, and keeps connections to workers open for a while.
MIB = 2**20
MAY_GROW_BYTES = 96 * MIB
# And the scheduler keeps the groups of all tasks as long as it lives (distributed.spans):
# some 20 kB for each computation here, with and without daskps.
DASK_KEEPS_BYTES = 24 << 10
MAY_GROW_DESCRIPTORS = 12
# Objects of dead workers are deleted after 5 s; freeing them takes a moment.
SETTLE_SECONDS = 15.0
ROUNDS_IN_A_SESSION = 25
# Before what is used at the start is measured: the scheduler keeps its last 100 computations
# (distributed.diagnostics.computations.max-history), and their tasks' names.
ROUNDS_BEFORE = 100


# What is computed: each says whether the answer was right.


def array(client: Client, rng: np.random.Generator) -> bool:
    """Blocks of an array, a reduction and a large result."""
    x = rng.integers(0, 1000, (1024, 1024))
    y = da.from_array(x, chunks=(256, 512))
    total, turned = client.gather(client.compute([y.sum(), y.T + 1]))
    return bool(total == x.sum() and np.array_equal(turned, x.T + 1))


def persisted(client: Client, rng: np.random.Generator) -> bool:
    """An array that stays on the workers, which may die meanwhile."""
    x = rng.random(1 << 20)
    y = (da.from_array(x, chunks=1 << 18) * 2).persist()
    right = bool(np.isclose(y.sum().compute(), 2 * x.sum()))
    return right and bool(np.array_equal(y.compute(), 2 * x))


def frame(client: Client, rng: np.random.Generator) -> bool:
    """A data frame, grouped."""
    n = 200_000
    f = pd.DataFrame({"key": rng.integers(0, 9, n), "value": rng.integers(0, 99, n)})
    got = dd.from_pandas(f, npartitions=4).groupby("key").value.sum().compute()
    return bool(got.sort_index().equals(f.groupby("key").value.sum()))


def futures(client: Client, rng: np.random.Generator) -> bool:
    """One model for many tasks, and their large results; one array changed in place."""
    model = rng.random(1 << 18)
    made = client.map(_scaled, range(8), model=model, pure=False)
    for i, result in enumerate(client.gather(made)):
        if not np.array_equal(result, model * i):
            return False
        result[:] = 0  # nobody else sees that
    model[0] += 1
    return bool(client.submit(np.sum, model, pure=False).result() == np.sum(model))


def _scaled(i: int, model: np.ndarray) -> np.ndarray:
    return model * i


KINDS: list[Callable[[Client, np.random.Generator], bool]]
KINDS = [array, persisted, frame, futures]


@dataclass
class Level:
    """What the scheduler and this process use."""

    memory: list[int]
    descriptors: list[int]

    @classmethod
    def of(cls, pids: list[int]) -> Level:
        """Measure these processes."""
        processes = [psutil.Process(pid) for pid in pids]
        # Without what is shared: segments that are kept warm are mapped, too.
        memory = [p.memory_info() for p in processes]
        return cls([m.rss - m.shared for m in memory], [p.num_fds() for p in processes])


@dataclass
class Soak:
    """A run, and what it has seen.

    What is used is measured after the C library has given back the memory that it keeps
    for later: how much that is depends on which thread freed what, and not on what is held.

    Attributes
    ----------
    rounds
        How often each kind was computed.
    wrong, errors
        Answers that were wrong; tracebacks.
    killed
        How many workers.
    """

    cluster: Cluster
    client: Client
    kill_every: float
    rounds: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    killed: int = 0

    def run(self, seconds: float, rng: np.random.Generator) -> Level:
        """Compute until the time is over; what was used at the start."""
        deadline = time.monotonic() + seconds
        with self._killing():
            self._session(rng, ROUNDS_BEFORE, deadline)
            start = self._level()
            while time.monotonic() < deadline and len(self.errors) < 10:
                self._session(rng, ROUNDS_IN_A_SESSION, deadline)
                self._show(deadline)
        return start

    def _session(
        self, rng: np.random.Generator, rounds: int, deadline: float = np.inf
    ) -> None:
        with daskps.proxy_graph(results=True):
            for i in range(rounds):
                if time.monotonic() < deadline:
                    self._round(KINDS[i % len(KINDS)], rng)

    def _round(
        self,
        kind: Callable[[Client, np.random.Generator], bool],
        rng: np.random.Generator,
    ) -> None:
        name = kind.__name__
        self.rounds[name] += 1
        try:
            if not kind(self.client, rng):
                self.wrong[name] += 1
        except Exception:
            self.errors.append(f"{name}: {traceback.format_exc()}")
            print(self.errors[-1], file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def _killing(self) -> Iterator[None]:
        stop = threading.Event()

        def kill() -> None:
            while not stop.wait(self.kill_every):
                workers = _workers(self.cluster)
                if workers:
                    os.kill(random.choice(workers), signal.SIGKILL)
                    self.killed += 1

        thread = threading.Thread(target=kill, name="killer")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _level(self) -> Level:
        _trim()
        self.client.run_on_scheduler(_trim)
        return Level.of([self.cluster.scheduler.pid, os.getpid()])

    def _show(self, deadline: float) -> None:
        left = max(0, deadline - time.monotonic())
        memory = psutil.Process(self.cluster.scheduler.pid).memory_info().rss
        line = (
            f"{sum(self.rounds.values())} computations, {self.killed} workers killed, "
            f"{sum(self.wrong.values())} wrong, {len(self.errors)} errors, "
            f"scheduler {memory / MIB:.0f} MiB, "
            f"{left / 60:.1f} minutes to go"
        )
        end = "\r" if sys.stderr.isatty() else "\n"
        print(line, end=end, file=sys.stderr, flush=True)

    def left(self, start: Level) -> list[str]:
        """What is not as it was; empty if all is."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while (left := self._left(start)) and time.monotonic() < deadline:
            time.sleep(0.5)
        return left

    def _left(self, start: Level) -> list[str]:
        end = self._level()
        left = []
        usage = daskps.usage(self.client)
        if usage.objects:
            left.append(f"in the store, says the scheduler: {usage}")
        if files := objects_in(self.cluster):
            left.append(f"in the store's directory: {files}")
        kept = DASK_KEEPS_BYTES * sum(self.rounds.values())
        for i, (who, dasks) in enumerate([("scheduler", kept), ("client", 0)]):
            grown = end.memory[i] - start.memory[i]
            if grown > MAY_GROW_BYTES + dasks:
                left.append(f"the {who}'s memory has grown by {grown / MIB:.0f} MiB")
            more = end.descriptors[i] - start.descriptors[i]
            if more > MAY_GROW_DESCRIPTORS:
                left.append(f"the {who} has {more} more file descriptors")
        return left


def _trim() -> None:
    """Give unused memory back to the kernel."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def _workers(cluster: Cluster) -> list[int]:
    """The processes that nannies have started."""
    found = []
    for nanny in cluster.workers:
        for child in psutil.Process(nanny.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if "spawn_main" in " ".join(child.cmdline()):
                    found.append(child.pid)
    return found


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description="Use daskps for a long time while workers are killed.",
    )
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="how long (default: 60)"
    )
    parser.add_argument("--workers", type=int, default=2, help="how many (default: 2)")
    parser.add_argument(
        "--kill-every", type=float, default=10.0, help="seconds (default: 10)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the data (default: 0)")
    args = parser.parse_args()
    # Dask blames a task whose workers died four times, which was us.
    os.environ["DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"] = "1000000"
    rng = np.random.default_rng(args.seed)
    with Cluster(args.workers, nanny=True) as c, Client(c.address) as client:
        soak = Soak(c, client, args.kill_every)
        start = soak.run(args.minutes * 60, rng)
        left = soak.left(start)
        end = soak._level()
    print(
        f"{args.minutes:g} minutes, {soak.killed} workers killed; computations: "
        + ", ".join(f"{n} {name}" for name, n in soak.rounds.items())
    )
    for who, *levels in zip(
        ["scheduler", "client"],
        start.memory,
        end.memory,
        start.descriptors,
        end.descriptors,
        strict=True,
    ):
        before, after, opened, open_now = levels
        print(
            f"{who}: {before / MIB:.0f} MiB at first, {after / MIB:.0f} MiB at the end; "
            f"{opened} file descriptors at first, {open_now} at the end"
        )
    problems = [
        *soak.errors,
        *(f"wrong: {n} {k}" for k, n in soak.wrong.items()),
        *left,
    ]
    print(*problems, sep="\n", end="\n" if problems else "")
    print(
        f"{sum(soak.wrong.values())} wrong answers, {len(soak.errors)} errors, "
        f"{len(left)} things left"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
