"""Run Dask's own tests without daskps, then with every literal in a store.

::

    python -m tests.dask_suites                    # everything
    python -m tests.dask_suites array dataframe    # some suites
    python -m tests.dask_suites --quick            # a share of each, in some minutes
    python -m tests.dask_suites --help

Dask's wheel contains its tests. Each suite runs twice in the same way, the second time with
a threshold of one byte, for the schedulers that its tests use (:mod:`.plugin`). A test that
fails then, or is skipped, although it does not without daskps, is repeated alone, without
and with daskps. If it still differs in any repetition, it is reported, and the exit code is
1. So it is if nothing was stored, or if something was left in a store.

``distributed/tests/test_client.py`` is in no wheel or source distribution. It is taken from
a checkout (``--distributed DIRECTORY``), or else downloaded from GitHub.
"""

from __future__ import annotations

import argparse
import sys

from .distributed_tests import NotAvailableError
from .running import COLUMNS, Comparison, compare
from .suites import SUITES


def main() -> int:
    arguments = _arguments()
    comparisons = []
    for suite in SUITES:
        if arguments.suites and suite.name not in arguments.suites:
            continue
        if arguments.quick and not suite.quick and not arguments.suites:
            continue
        print(f"{suite.name} ...", flush=True)
        try:
            comparison = compare(
                suite, arguments.quick, arguments.processes, arguments.distributed
            )
        except NotAvailableError as e:
            print(f"{suite.name}: {e}", file=sys.stderr)
            if arguments.suites:
                return 2
            continue
        _show(comparison)
        comparisons.append(comparison)
    print("\n".join(_table(comparisons)))
    return int(any(comparison.problems for comparison in comparisons))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.dask_suites")
    names = [suite.name for suite in SUITES]
    parser.add_argument("suites", nargs="*", metavar="suite", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="a share of each suite")
    parser.add_argument(
        "-n", dest="processes", type=int, default=2, help="processes (default: 2)"
    )
    parser.add_argument(
        "--distributed", metavar="DIRECTORY", help="a checkout of dask/distributed"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.suites) - set(names):
        parser.error(f"no suite {', '.join(unknown)}: choose from {', '.join(names)}")
    return arguments


def _show(comparison: Comparison) -> None:
    for problem in comparison.problems:
        print(f"  {problem}")
    for test, reason in comparison.expected.items():
        print(f"  differs, as expected: {test} ({reason})")
    for test in comparison.unsteady:
        print(f"  differed once, and not when repeated: {test}")


def _table(comparisons: list[Comparison]) -> list[str]:
    heads = ("suite", *COLUMNS)
    rows = [heads, *((c.suite, *map(str, c.counts())) for c in comparisons)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


if __name__ == "__main__":
    sys.exit(main())
