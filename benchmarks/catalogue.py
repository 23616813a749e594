"""All scenarios, in the order of the tables."""

from __future__ import annotations

from benchmarks import blocks, many_tasks, models, paper, round_trips, shapes
from benchmarks.scenario import GB, KB, MB, Scenario


def catalogue(scale: float = 1.0) -> list[Scenario]:
    """Every scenario but those of :mod:`benchmarks.paper`.

    Parameters
    ----------
    scale
        Multiplies the sizes of data and the numbers of small tasks; with 0.01, say, all
        can be tried in a minute. Goals are for 1.
    """

    def of(n: float) -> int:
        return max(1, int(n * scale))

    sizes = [of(n) for n in (10 * KB, 100 * KB, MB, 10 * MB, 100 * MB, GB)]
    model, data, block = of(64 * MB), of(256 * MB), of(100 * MB)
    # The work of a factorisation is in proportion to the third power of a side.
    side = max(2, int(64 * scale**0.5)) * 8
    return [
        *(round_trips.into(n) for n in sizes),
        *(round_trips.out(n) for n in sizes),
        *(round_trips.in_out(n) for n in sizes),
        models.in_delayed(model, 32),
        models.in_map(model, 32),
        models.in_submits(model, 32),
        models.in_submits(model, 32, writable=False),
        blocks.array_sum(data),
        blocks.second_compute(data),
        blocks.frame_mean(data),
        blocks.bag_of_bytes(data),
        blocks.large_result(data),
        blocks.cholesky(side * 8, side),
        *blocks.in_one_piece(block),
        *(many_tasks.throughput(of(MB), 200, workers) for workers in (2, 4, 8)),
        many_tasks.small_computed(of(2000)),
        many_tasks.small_submitted(of(100_000)),
        many_tasks.small_instances(of(10_000)),
        *(
            round_trips.crossover(of(n * 10 * KB))
            for n in (1, 2, 5, 10, 20, 50, 100, 200, 500)
        ),
        *shapes.shapes(scale),
    ]


def chosen(names: list[str], scale: float = 1.0) -> list[Scenario]:
    """The scenarios whose name or group has one of these parts.

    If there are none, all but those of the paper, which have nine peers each.
    """
    if not names:
        return catalogue(scale)
    return [
        scenario
        for scenario in [*catalogue(scale), *paper.paper(scale)]
        if any(part in scenario.name or part in scenario.group for part in names)
    ]
