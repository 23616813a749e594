"""A pytest plugin that switches daskps on for tests which know nothing of it.

Loaded with ``-p dask_suites.plugin``. Also writes what became of each test, and how much
was stored meanwhile, to a file.
"""

from __future__ import annotations

import collections
import json
from collections.abc import Iterator
from typing import Any

import dask
import pytest

import daskps
from daskps.objects.catalog import Catalog
from daskps.objects.encoder import Encoder
from daskps.references.nodes import StoredValue

# How many values took the place of a literal, how many objects were stored, and how often
# a task read a value, in the processes that ran tests.
_counts: collections.Counter[str] = collections.Counter()
_outcomes: dict[str, list[str]] = {}
_why: dict[str, str] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("daskps")
    group.addoption("--daskps-report", help="File to write outcomes to.")
    group.addoption("--daskps", action="store_true", help="Switch daskps on.")
    group.addoption(
        "--daskps-client",
        action="store_true",
        help="Switch daskps on with daskps.Client in the place of distributed.Client.",
    )
    group.addoption(
        "--daskps-processes",
        action="store_true",
        help="Run in child processes what tests ask the synchronous scheduler for.",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--daskps") or config.getoption("--daskps-client"):
        _count(Catalog, "put", "objects")
        _count(Encoder, "encode", "values")
        _count(StoredValue, "resolve", "reads")
    if config.getoption("--daskps-client"):
        # This keeps a copy of Dask's configuration, to which it returns after each test:
        # daskps's defaults have to be in it.
        import distributed.utils_test

        # gen_cluster takes it from the package when a test is decorated.
        distributed.Client = daskps.Client
        distributed.utils_test.Client = daskps.Client
    if config.getoption("--daskps-processes"):
        schedulers = dask.base.named_schedulers
        schedulers["sync"] = schedulers["synchronous"] = schedulers["processes"]


def _count(owner: type, name: str, what: str) -> None:
    original = getattr(owner, name)

    def counted(self: Any, *args: Any) -> Any:
        result = original(self, *args)
        _counts[what] += result is not None
        return result

    setattr(owner, name, counted)


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    if config.getoption("--daskps-client"):
        for module in {item.module for item in items if hasattr(item, "module")}:
            module.Client = daskps.Client


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    if not item.config.getoption("--daskps"):
        return (yield)
    # A store that is given switches daskps on for Dask's local schedulers, too.
    with daskps.proxy_graph(store="shm://", threshold=1):
        return (yield)


# Outcomes. With pytest-xdist, reports arrive in the controlling process, and the counts of
# each worker process when it is done.


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    expected = getattr(report, "wasxfail", None) is not None
    outcome = f"x{report.outcome}" if expected else report.outcome
    _outcomes.setdefault(report.nodeid, []).append(outcome)
    if report.failed:
        _why[report.nodeid] = report.longreprtext[-4000:]


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        _outcomes[report.nodeid] = ["failed"]
        _why[report.nodeid] = report.longreprtext[-4000:]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: Any) -> None:
    _counts.update(getattr(node, "workeroutput", {}).get("daskps", {}))


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    path = session.config.getoption("--daskps-report")
    if output is not None:
        output["daskps"] = dict(_counts)
    elif path:
        with open(path, "w") as f:
            outcomes = {test: _summary(phases) for test, phases in _outcomes.items()}
            report = {"outcomes": outcomes, "why": _why, "counts": dict(_counts)}
            json.dump(report, f)


def _summary(phases: list[str]) -> str:
    """One word for setup, call and teardown."""
    for outcome in ("failed", "xskipped", "skipped", "xpassed"):
        if outcome in phases:
            return outcome
    return "passed"
