"""Programs at random give with daskps what they give without, in all that can be seen.

By default these are a few programs, and two hundred as a slow test. For more::

    export DASKPS_FUZZ_PROGRAMS=5000
    python -m pytest -s -m full tests/behaviour/test_random_programs.py

One alone, and one step of it, which a failure names::

    export DASKPS_FUZZ_SEED=17 DASKPS_FUZZ_STEP=2
    python -m pytest -m full tests/behaviour/test_random_programs.py
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import random_programs
from distributed import Client
from processes import ProcessCluster, released
from random_programs import STEPS, Run, outcome
from random_values import Draw

import daskps

pytestmark = pytest.mark.timeout(0)  # patience() uses the same alarm

PROGRAMS = int(os.environ.get("DASKPS_FUZZ_PROGRAMS", "200"))
SEED = os.environ.get("DASKPS_FUZZ_SEED")
STEP = os.environ.get("DASKPS_FUZZ_STEP")
THIS = "tests/behaviour/test_random_programs.py"
THRESHOLDS = [1, 64_000]
#: Nothing takes that long (seconds) unless it hangs.
PATIENCE = 100
ENOUGH_DIFFERENCES = 10


@pytest.fixture(scope="module")
def sides() -> Iterator[tuple[Client, Client]]:
    """A client without daskps and one that will use it, each with a cluster of its own."""
    with (
        ProcessCluster() as one,
        ProcessCluster() as other,
        one.client(set_as_default=False) as plain,
        other.client(set_as_default=False) as ours,
    ):
        yield plain, ours
        gc.collect()
        assert released(ours)


class HangError(Exception):
    """A step did not end."""


@contextlib.contextmanager
def patience() -> Iterator[None]:
    """Raise in the main thread if what is inside does not end."""

    def stop(*args: Any) -> None:
        raise HangError(f"nothing came for {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcomes(client: Client, seed: int, threshold: int | None) -> list[tuple[Any, str]]:
    """What comes out of the steps of a program; without daskps if there is no threshold."""
    steps = range(STEPS) if STEP is None else [int(STEP)]
    session = (
        contextlib.nullcontext()
        if threshold is None
        else daskps.proxy_graph(threshold=threshold, results=True, client=client)
    )
    with client.as_current(), warnings.catch_warnings(), session:
        warnings.simplefilter("ignore")  # Dask's own
        run = Run(client, seed)
        found = []
        for step in steps:
            with patience():
                found.append(outcome(run, step))
        return found


def differences(sides: tuple[Client, Client], seed: int) -> Iterator[str]:
    """What daskps changes in a program, in words."""
    plain, ours = sides
    expected = outcomes(plain, seed, None)
    STEPS_TAKEN[" ".join(what.split()[0] for _, what in expected)] += 1
    for threshold in THRESHOLDS:
        got = outcomes(ours, seed, threshold)
        if [out for out, _ in got] == [out for out, _ in expected]:
            continue
        # Is it always the same in plain Dask?
        again = [outcomes(plain, seed, None) for _ in range(3)]
        for i, (out, what) in enumerate(got):
            if out not in [expected[i][0], *(others[i][0] for others in again)]:
                step = i if STEP is None else STEP
                yield (
                    f"DASKPS_FUZZ_SEED={seed} DASKPS_FUZZ_STEP={step} python -m pytest "
                    f"-m full {THIS}\n  threshold {threshold}: {what}\n"
                    f"  {first_difference(out, expected[i][0])}"
                )


STEPS_TAKEN: Counter[str] = Counter()


def first_difference(ours: Any, plain: Any) -> str:
    """Where two descriptions differ first."""
    if isinstance(ours, tuple) and isinstance(plain, tuple):
        for a, b in zip(ours, plain, strict=False):
            if a != b:
                return first_difference(a, b)
        return f"{len(ours)} and {len(plain)} parts, of {ours[0]}"
    return f"with daskps: {str(ours)[:400]}\n  without:     {str(plain)[:400]}"


def check(sides: tuple[Client, Client], seeds: Any) -> None:
    found: list[str] = []
    for seed in seeds:
        found += differences(sides, seed)
        if len(found) >= ENOUGH_DIFFERENCES:
            break
    if found:
        pytest.fail("\n\n".join(found), pytrace=False)


def test_a_few_programs_are_what_they_are_without(sides):
    check(sides, range(5))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_more_programs_are_what_they_are_without(sides):
    check(sides, range(5, 200))


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_programs_are_what_they_are_without(sides):
    check(sides, range(PROGRAMS) if SEED is None else [int(SEED)])
    if PROGRAMS > 200:
        kinds: Counter[str] = Counter()
        for names, n in STEPS_TAKEN.items():
            for name in names.split():
                kinds[name] += n
        print(f"{PROGRAMS} programs; steps: {dict(kinds)}")


def test_programs_depend_on_their_seed_alone(sides):
    plain, _ = sides
    for seed in range(3):
        assert outcomes(plain, seed, None) == outcomes(plain, seed, None)


def test_all_kinds_of_steps_are_taken():
    draws = (Draw(seed, step) for seed in range(75) for step in range(STEPS))
    taken = {draw.one_of(random_programs.ALL) for draw in draws}
    assert taken == set(random_programs.ALL)
