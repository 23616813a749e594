"""The program on the client's host, for ``benchmarks.network``: prints a JSON line for each
scenario."""

from __future__ import annotations

import contextlib
import gc
import json
import statistics
import sys
import time
import warnings
from dataclasses import asdict, dataclass, field
from typing import Any

from distributed import Client

import daskps
from benchmarks import blocks, models, round_trips
from benchmarks.hosts import traffic
from benchmarks.scenario import MB, Scenario

SCENARIOS = [
    round_trips.into(100 * MB),
    round_trips.in_out(100 * MB),
    models.in_delayed(64 * MB, 32),
    models.in_submits(64 * MB, 32),
    models.on_each(64 * MB),
    blocks.array_sum(256 * MB),
]
# Seconds. What one run releases at its end does not disturb the next.
QUIET = 0.3
# Runs before those that count. The memory of a store gets warm little by little.
WARM_UP = {"dask": 1, "daskps": 4}


@dataclass
class Row:
    """What was measured of one scenario.

    Attributes
    ----------
    name
        Of the scenario.
    store
        Which one daskps used, and why.
    seconds
        Of each run, for plain Dask and for daskps.
    nbytes
        Over the scheduler's link, in all runs together.
    """

    name: str
    store: str = ""
    seconds: dict[str, list[float]] = field(default_factory=dict)
    nbytes: dict[str, int] = field(default_factory=dict)

    def median(self, who: str) -> float:
        """Seconds of a run."""
        return statistics.median(self.seconds[who])

    def ratios(self) -> tuple[float, float, float]:
        """How many times faster daskps is: quartiles of paired runs."""
        pairs = zip(self.seconds["dask"], self.seconds["daskps"], strict=True)
        ratios = [slow / fast for slow, fast in pairs]
        if len(ratios) == 1:
            return ratios[0], ratios[0], ratios[0]
        low, median, high = statistics.quantiles(ratios, n=4)
        return low, median, high


def measure(
    client: Client, scenario: Scenario, scheduler_host: int, options: dict[str, Any]
) -> Row:
    """Take turns, each run on data of its own."""
    row = Row(scenario.name)
    for i in range(-max(WARM_UP.values()), options["rounds"]):
        for who in ("dask", "daskps") if i % 2 else ("daskps", "dask"):
            if i < -WARM_UP[who]:
                continue
            block: Any = contextlib.nullcontext()
            if who == "daskps":
                block = daskps.proxy_graph(options["store"])
            with block as session:
                prepared = scenario.work.prepare(client)
                gc.collect()
                time.sleep(QUIET)
                before = sum(traffic(scheduler_host))
                start = time.perf_counter()
                result = scenario.work.do(client, prepared, lambda value: value)
                seconds = time.perf_counter() - start
                nbytes = sum(traffic(scheduler_host)) - before
                scenario.work.check(prepared, result)
                del prepared, result
            if i >= 0:
                row.seconds.setdefault(who, []).append(seconds)
                row.nbytes[who] = row.nbytes.get(who, 0) + nbytes
            if session is not None:
                row.store = str(session).partition(", threshold")[0]
    return row


def main() -> None:
    """Measure what is asked for, in JSON."""
    options = json.loads(sys.argv[1])
    warnings.filterwarnings("ignore", "Sending large graph")
    with Client(options["address"], timeout=60) as client:
        client.wait_for_workers(options["workers"], timeout=60)
        for scenario in SCENARIOS:
            if scenario.name in options["names"]:
                row = measure(client, scenario, options["scheduler_host"], options)
                print(json.dumps(asdict(row)), flush=True)


if __name__ == "__main__":
    main()
