"""Workers with little memory: ``python -m benchmarks.worker_memory --help``.

Each program runs on a new cluster of two workers of four threads under nannies, with plain
Dask and with daskps. Shown is whether it ended, how often a worker was paused, and how often
a nanny started one anew because of its memory.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import dask
import dask.array as da
import numpy as np
from distributed import Client, wait

import daskps
from benchmarks.cluster import Cluster

MIB = 1 << 20
#: For how long (seconds) a program may take, unless it is said.
PATIENCE = 600.0
ROW = "{:14} {:7} {:38}{:>9}{:>8}{:>8}"


class SmallCluster(Cluster):
    """Two workers with four threads and so many bytes each, under nannies."""

    threads = 4

    def __init__(self, limit: int):
        self.options = f"--memory-limit {limit}"
        super().__init__(2, nanny=True)


@dataclass(frozen=True)
class Outcome:
    """What became of one program.

    Attributes
    ----------
    end
        ``"finished"``, or what was wrong.
    restarts, pauses
        How often.
    seconds
        How long it took.
    """

    end: str
    restarts: int
    pauses: int
    seconds: float

    def is_no_worse_than(self, other: Outcome) -> bool:
        """Whether it is as good as another one, but for the time."""
        return (
            (self.end == "finished" or other.end != "finished")
            and self.restarts <= other.restarts
            and self.pauses <= other.pauses
        )


# The programs. Each is given the memory of a worker (bytes), and says whether its answer
# was right.


def chunked_sum(client: Client, memory: int) -> bool:
    """Three times a worker's memory goes in, in chunks, and comes out as a sum."""
    x = np.ones((48, memory // 128))
    return bool(da.from_array(x, chunks=(1, -1)).sum().compute() == x.size)


def persisted(client: Client, memory: int) -> bool:
    """Three quarters of the memory of each worker are kept, and used thrice."""
    x = np.ones((48, memory // 256))
    kept = da.from_array(x, chunks=(1, -1)).persist()
    wait(kept)
    sums = [float((kept + i).sum().compute()) for i in range(3)]
    return sums == [x.size * (i + 1.0) for i in range(3)]


def model(client: Client, memory: int) -> bool:
    """A model of three tenths of a worker's memory is an argument of 100 tasks."""
    weights = np.ones(memory * 3 // 80)
    tasks = [dask.delayed(_apply)(weights, i) for i in range(100)]
    return bool(sum(dask.compute(*tasks)) == weights.size * sum(range(100)))


def dependency(client: Client, memory: int) -> bool:
    """The same model is a task, on which the 100 others depend."""
    weights = np.ones(memory * 3 // 80)
    shared = client.scatter(weights)
    futures = client.map(_apply, [shared] * 100, range(100))
    return bool(sum(client.gather(futures)) == weights.size * sum(range(100)))


def views(client: Client, memory: int) -> bool:
    """Twelve results are views of one array of a fifth of a worker's memory."""
    x = np.arange(memory // 40, dtype="f8")
    kept = dask.persist(*(dask.delayed(_view)(x, i) for i in range(12)))
    wait(kept)
    return sum(dask.compute(*map(dask.delayed(_first), kept))) == sum(range(12))


def results(client: Client, memory: int) -> bool:
    """Forty results of a twentieth of a worker's memory are fetched one by one."""
    made = client.map(_make, range(40), n=memory // 160)
    return all(future.result()[-1] == i for i, future in enumerate(made))


def rechunk(client: Client, memory: int) -> bool:
    """An array of three fifths of a worker's memory is cut the other way."""
    n = int((memory * 0.6 / 8) ** 0.5) // 16 * 16
    x = np.ones((n, n))
    turned = da.from_array(x, chunks=(n // 16, n)).rechunk((n, n // 16))
    return bool((turned + 1).sum().compute() == 2 * x.size)


def _apply(weights: np.ndarray, i: int) -> float:
    return float(weights.sum()) * i


def _view(x: np.ndarray, i: int) -> np.ndarray:
    return x[i:] if x.sum() else x


def _first(x: np.ndarray) -> int:
    return int(x[0]) if x.sum() else -1


def _make(i: int, n: int) -> np.ndarray:
    return np.full(n, i, "f8")


PROGRAMS: dict[str, Callable[[Client, int], bool]]
PROGRAMS = {
    f.__name__: f
    for f in (chunked_sum, persisted, model, dependency, views, results, rechunk)
}


def run(
    name: str, memory: int, by_reference: bool, patience: float = PATIENCE
) -> Outcome:
    """Run one program on a cluster of its own.

    Parameters
    ----------
    name
        Of the program.
    memory
        Bytes of each worker.
    by_reference
        Whether with daskps, results included.
    patience
        Seconds that it may take.
    """
    with SmallCluster(memory) as cluster, cluster.client() as client:
        begin = time.monotonic()
        end = _end(client, name, memory, by_reference, patience)
        seconds = time.monotonic() - begin
        log = cluster.log("worker")
    restarts, pauses = log.count("% memory budget"), log.count("Pausing worker")
    return Outcome(end, restarts, pauses, seconds)


def _end(
    client: Client, name: str, memory: int, by_reference: bool, patience: float
) -> str:
    session = daskps.proxy_graph(results=True) if by_reference else None
    try:
        # Workers that are all paused wait for ever.
        with _at_most(patience), session or contextlib.nullcontext():
            right = PROGRAMS[name](client, memory)
    except Exception as e:
        return type(e).__name__
    return "finished" if right else "a wrong answer"


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in a block that takes longer. For the main thread."""

    def end(*args: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def main() -> int:
    """The command: 1 if daskps is worse than plain Dask in any row."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.worker_memory",
        description="Programs on two workers of four threads with little memory.",
    )
    parser.add_argument(
        "--mib", type=int, default=1024, help="memory of each worker (default: 1024)"
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=PATIENCE,
        help="seconds that a program may take (default: 600)",
    )
    parser.add_argument("--only", choices=["dask", "daskps"], help="default: both")
    parser.add_argument("programs", nargs="*", default=list(PROGRAMS))
    args = parser.parse_args()
    print(ROW.format("", "", "", "restarts", "pauses", "seconds"))
    worse = 0
    for name in args.programs:
        outcomes = {}
        for who in [args.only] if args.only else ["dask", "daskps"]:
            outcome = outcomes[who] = run(
                name, args.mib * MIB, who == "daskps", args.patience
            )
            cells = outcome.restarts, outcome.pauses, f"{outcome.seconds:.0f}"
            print(ROW.format(name, who, outcome.end, *cells), flush=True)
        if len(outcomes) == 2:
            worse += not outcomes["daskps"].is_no_worse_than(outcomes["dask"])
    return int(worse > 0)


if __name__ == "__main__":
    sys.exit(main())
