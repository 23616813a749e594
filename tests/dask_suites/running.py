"""Run a suite without and with daskps, and compare."""

from __future__ import annotations

import collections
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from typing import Any, NamedTuple

import dask

from .distributed_tests import prepare
from .expected import EXPECTED
from .suites import Suite

HERE = os.path.dirname(os.path.abspath(__file__))
DASK = os.path.dirname(os.path.dirname(os.path.abspath(dask.__file__)))
# How often a test that differs is repeated.
REPEAT = 3


class Outcomes(NamedTuple):
    """One run.

    Attributes
    ----------
    tests
        For each test: passed, failed, skipped, xskipped (failed, as its author expects)
        or xpassed.
    why
        Tracebacks of those that failed.
    counts
        Values stored, objects, reads.
    left
        What the run left in stores.
    """

    tests: dict[str, str]
    why: dict[str, str]
    counts: dict[str, int]
    left: list[str]

    def count(self, *outcomes: str) -> int:
        return sum(outcome in outcomes for outcome in self.tests.values())


COLUMNS = (
    *("run", "passed without", "passed with", "failed without", "failed with"),
    *("only with", "values", "objects", "reads"),
)


class Comparison(NamedTuple):
    """What two runs of a suite give.

    Attributes
    ----------
    suite
        Its name.
    without, with_
        The runs.
    problems
        What differs and should not.
    expected
        What differs, and why it may.
    unsteady
        What differed once, and then not.
    """

    suite: str
    without: Outcomes
    with_: Outcomes
    problems: list[str]
    expected: dict[str, str]
    unsteady: list[str]

    def counts(self) -> list[int]:
        """In the order of COLUMNS."""
        kinds = ("passed", "failed")
        return [
            self.with_.count("passed", "failed", "xskipped", "xpassed"),
            *(run.count(kind) for kind in kinds for run in (self.without, self.with_)),
            len(self.problems),
            *(self.with_.counts.get(n, 0) for n in ("values", "objects", "reads")),
        ]


def compare(
    suite: Suite, quick: bool, processes: int, checkout: str | None
) -> Comparison:
    """Run a suite twice, and what differs again.

    Parameters
    ----------
    suite
        The suite.
    quick
        Only a share of it.
    processes
        How many at once.
    checkout
        Where distributed's tests are.
    """
    with tempfile.TemporaryDirectory(prefix="dask-suites-") as directory:
        root = DASK
        if suite.client:
            root = os.path.join(directory, "tests")
            os.mkdir(root)
            prepare(root, checkout)
        runner = _Runner(suite, root, directory, processes)
        share = suite.quick if quick and suite.quick else suite.paths
        # Not every version of Dask has every file.
        share = tuple(p for p in share if os.path.exists(os.path.join(root, p)))
        slow = "" if not quick else " and not slow"
        options = ["-m", f"not gpu and not network{slow}"]
        without = runner.run(share, options, daskps=False)
        with_ = runner.run(share, options, daskps=True)
        differ = _differences(without, with_)
        expected = {test: reason for test in differ if (reason := _expected(test))}
        differ -= expected.keys()
        still = runner.differ_still(differ)
    problems = [_problem(test, with_) for test in sorted(still)]
    if not with_.counts.get("objects"):
        problems.append("nothing was stored: daskps was not switched on")
    problems += [f"left in a store: {path}" for path in with_.left]
    unsteady = sorted(differ - still)
    return Comparison(suite.name, without, with_, problems, expected, unsteady)


def _differences(without: Outcomes, with_: Outcomes) -> set[str]:
    """Tests that fail, are skipped or are missing with daskps only."""
    good = ("passed", "xskipped", "skipped")
    return {
        test
        for test, outcome in without.tests.items()
        if outcome in good and with_.tests.get(test) != outcome
    } | {
        test
        for test, outcome in with_.tests.items()
        if outcome == "failed" and test not in without.tests
    }


def _expected(test: str) -> str | None:
    return EXPECTED.get(test) or EXPECTED.get(test.partition("[")[0])


def _problem(test: str, with_: Outcomes) -> str:
    why = with_.why.get(test, "").strip().splitlines()
    outcome = with_.tests.get(test, "missing")
    return f"{test}: {outcome} with daskps only. {why[-1] if why else ''}"


class _Runner:
    """Runs pytest on one suite."""

    def __init__(self, suite: Suite, root: str, directory: str, processes: int):
        self._suite = suite
        self._root = root
        self._directory = directory
        self._processes = processes

    def differ_still(self, tests: Iterable[str]) -> set[str]:
        """Those of the tests that differ when they are repeated."""
        still: set[str] = set()
        # A test whose name does not reach the command line whole counts as it is.
        again = [test for test in tests if "::" in test]
        for _ in range(REPEAT if again else 0):
            without = self.run(again, ["-p", "no:xdist"], daskps=False)
            with_ = self.run(again, ["-p", "no:xdist"], daskps=True)
            still |= _differences(without, with_) | (set(again) - with_.tests.keys())
        return still | (set(tests) - set(again))

    def run(self, what: Iterable[str], options: list[str], *, daskps: bool) -> Outcomes:
        """Run tests, given by path or id."""
        with (
            tempfile.TemporaryDirectory(dir="/dev/shm", prefix="dask-suites-") as shm,
            tempfile.TemporaryDirectory(dir=self._directory) as spill,
        ):
            report = os.path.join(spill, "report.json")
            command = [
                # Python 3.11 fails to parse the source of a very long traceback, which
                # pytest's own styles, and Hypothesis's plugin, do.
                *(sys.executable, "-m", "pytest", "-q", "--tb=native"),
                *("-p", "no:hypothesispytest"),
                *("-c", os.path.join(HERE, "dask.ini"), "--rootdir", self._root),
                *("-p", "dask_suites.plugin", "-p", "no:cacheprovider"),
                *("-p", "no:asyncio", "--daskps-report", report),
                *(() if "no:xdist" in options else ("-n", str(self._processes))),
                *options,
                *self._suite.options,
                *(self._switch() if daskps else ()),
                *(os.path.join(self._root, path) for path in what),
            ]
            log = subprocess.run(
                command,
                cwd=spill,
                env=self._environment(shm, spill),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            if not os.path.exists(report):
                raise RuntimeError(f"pytest ended early:\n{log.stdout[-10_000:]}")
            with open(report) as f:
                found: dict[str, Any] = json.load(f)
            left = [name for name in os.listdir(shm) if name.startswith("daskps")]
        tests = collections.OrderedDict(sorted(found["outcomes"].items()))
        return Outcomes(tests, found["why"], found["counts"], left)

    def _switch(self) -> list[str]:
        return ["--daskps-client"] if self._suite.client else ["--daskps"]

    def _environment(self, shm: str, spill: str) -> dict[str, str]:
        path = [os.path.dirname(HERE), *([self._root] if self._suite.client else [])]
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path),
            # Ids of tests that are made from sets are the same in all processes.
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            "DASK_DASKPS__THRESHOLD": "1",
            "DASK_DASKPS__SHM__DIRECTORY": shm,
            "DASK_TEMPORARY_DIRECTORY": spill,
            **self._suite.environment,
        }
