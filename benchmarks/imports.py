"""What daskps adds to each process: ``python -m benchmarks.imports --help``.

Time and memory of `import daskps` beyond `distributed` and `dask.array`; and processor time
and memory of a client, its scheduler and a worker that have computed with arrays in a
session, beyond those of plain Dask. Memory is what only this process has (USS).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import daskps
from benchmarks.cluster import free_port

# dask.array imports these where they are installed, and they what daskps is not to import.
HIDDEN = "import sys; sys.modules.update(xarray=None, sparse=None)\n"
HEAVY = ("pandas", "pydantic", "pyarrow", "polars")

MEASURE = f"""
import json, sys, time, psutil
def now():
    process = psutil.Process()
    times = process.cpu_times()
    loaded = [name for name in {HEAVY!r} if name in sys.modules]
    return times.user + times.system, process.memory_full_info().uss, loaded
"""

IMPORT = (
    MEASURE
    + """
import distributed, dask.array
_, before, _ = now()
cpu, start = time.process_time(), time.perf_counter()
import daskps
wall, cpu = time.perf_counter() - start, time.process_time() - cpu
_, after, loaded = now()
print(json.dumps({"import": [wall, cpu, after - before, loaded]}))
"""
)

SESSION = (
    MEASURE
    + """
import contextlib, numpy as np, dask.array as da
from distributed import Client
address, ours = sys.argv[1:]
session = contextlib.nullcontext()
start = time.perf_counter()
with Client(address) as client:
    client.wait_for_workers(1)
    if ours:
        import daskps
        session = daskps.proxy_graph()
    with session:
        opened = time.perf_counter() - start
        for _ in range(3):
            x = da.from_array(np.random.random(1 << 18), chunks=1 << 17)
            (x + 1).sum().compute()
            client.submit(np.negative, np.ones(1 << 18)).result()
        found = {
            "client": now(),
            "scheduler": client.run_on_scheduler(now),
            "worker": next(iter(client.run(now).values())),
        }
print(json.dumps({name: [opened, *of] for name, of in found.items()}))
"""
)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.imports",
        description="What daskps adds to each process, in time and memory.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--rounds", type=int, default=11, help="how often, in turns")
    add("--other", type=Path, help="a checkout of another daskps to compare with")
    args = parser.parse_args()
    places = {"daskps": Path(daskps.__file__).parents[1]}
    if args.other:
        places[str(args.other)] = args.other
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        Path(directory, "sitecustomize.py").write_text(HIDDEN)
        measured = _measure(places, Path(directory), args.rounds)
    for name in places:
        print(table(name, measured[name], measured["plain"]))
    return 0


def _measure(
    places: dict[str, Path], directory: Path, rounds: int
) -> dict[str, list[dict[str, Any]]]:
    """For each daskps, and for plain Dask, what each round has measured."""
    found: dict[str, list[dict[str, Any]]] = {"plain": [], **{n: [] for n in places}}
    anywhere = next(iter(places.values()))
    # The first round writes the byte code of all that is imported.
    for i in range(rounds + 1):
        one = {"plain": _session(anywhere, directory, "")}
        for name, place in places.items():
            imported = _python(place, directory, "-c", IMPORT)
            one[name] = {**imported, **_session(place, directory, "ours")}
        if i:
            for name, rounds_of_it in found.items():
                rounds_of_it.append(one[name])
    return found


def _session(place: Path, directory: Path, ours: str) -> dict[str, Any]:
    """Measure a client, a scheduler and a worker of their own."""
    address = f"tcp://127.0.0.1:{free_port()}"
    options = ["--host", "127.0.0.1", "--no-dashboard"]
    # Not `dask scheduler`, which imports daskps where it is installed.
    cli = "distributed.cli.dask_"
    port = address.rpartition(":")[2]
    commands = [
        ["-m", f"{cli}scheduler", *options, "--port", port],
        [
            *("-m", f"{cli}worker", address, *options, "--no-nanny", "--nthreads", "1"),
            *("--local-directory", str(directory)),
        ],
    ]
    processes = []
    try:
        for command in commands:
            processes.append(_start(place, directory, *command))
        return _python(place, directory, "-c", SESSION, address, ours)
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(30)


def _environment(place: Path, directory: Path) -> dict[str, str]:
    # As users have it: with byte code.
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    path = os.pathsep.join([str(directory), str(place)])
    prefix = str(directory / "byte-code")
    return {**kept, "PYTHONPATH": path, "PYTHONPYCACHEPREFIX": prefix}


def _start(place: Path, directory: Path, *args: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *args],
        cwd=directory,
        env=_environment(place, directory),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _python(place: Path, directory: Path, *args: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, *args],
        cwd=directory,
        env=_environment(place, directory),
        stdout=subprocess.PIPE,
        check=True,
        timeout=120,
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def table(name: str, ours: list[dict[str, Any]], plain: list[dict[str, Any]]) -> str:
    """Medians of what one daskps adds."""
    line = "{:34}{:>9}{:>11}   {}"
    lines = [
        f"{name}, over plain Dask (medians of {len(ours)})",
        line.format("", "CPU", "memory", "imported besides"),
    ]
    for process in "import", "client", "scheduler", "worker":
        cpu, nbytes = (
            _median(ours, process, i) - _median(plain, process, i) for i in (1, 2)
        )
        there = plain[0].get(process, [0, 0, 0, []])[3]
        besides = [m for m in ours[0][process][3] if m not in there]
        what = "import daskps" if process == "import" else f"{process}, after a session"
        lines.append(
            line.format(
                f"  {what}",
                f"{cpu * 1e3:.0f} ms",
                f"{nbytes / 1e6:.1f} MB",
                ", ".join(besides) or "-",
            )
        )
    lines.append(
        f"  import daskps takes {_median(ours, 'import', 0) * 1e3:.0f} ms; a client is "
        f"connected, and its session open, in {_median(ours, 'client', 0) * 1e3:.0f} ms "
        f"({_median(plain, 'client', 0) * 1e3:.0f} ms in plain Dask, without a session)"
    )
    return "\n".join(lines)


def _median(measured: list[dict[str, Any]], process: str, i: int) -> float:
    return statistics.median(one.get(process, [0, 0, 0])[i] for one in measured)


if __name__ == "__main__":
    sys.exit(main())
