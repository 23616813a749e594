"""Join a data frame with a large table that the program has, and aggregate it.

Visits of web pages are joined, partition by partition, with a table that says of each page
in which section it is; then the time that was spent in each section is added up. Both are
pandas frames in the client, as they often are. The frame is cut into partitions, and each
task needs the whole table.

On Dask as it is, and within ``daskps.proxy_graph()``, in turns: ``measuring.py`` says what
is reported.
"""

from __future__ import annotations

import sys

import dask.dataframe as dd
import numpy as np
import pandas as pd
from distributed import Client
from measuring import answers, in_turns, parser, positive, report


def per_section(visits: pd.DataFrame, pages: pd.DataFrame) -> pd.DataFrame:
    """Seconds in each section, of some visits."""
    joined = visits.merge(pages, on="page")
    return joined.groupby("section", as_index=False)["seconds"].sum()


def job(
    client: Client, visits: pd.DataFrame, pages: pd.DataFrame, npartitions: int
) -> pd.Series:
    """Seconds in each section, of all visits."""
    parts = dd.from_pandas(visits, npartitions=npartitions).map_partitions(
        per_section, pages, meta={"section": "int64", "seconds": "int64"}
    )
    return parts.groupby("section")["seconds"].sum().compute().sort_index()


def main(arguments: list[str] | None = None) -> int:
    """Run the example."""
    options = parser(
        __doc__,
        [
            ("--rows", positive, 1_000_000, "visits"),
            ("--pages", positive, 1_000_000, "rows of the table"),
            ("--partitions", positive, 8, "of the frame"),
        ],
    ).parse_args(arguments)
    rng = np.random.default_rng(options.seed)
    visits = pd.DataFrame(
        {
            "page": rng.integers(options.pages, size=options.rows),
            "seconds": rng.integers(1, 600, size=options.rows),
        }
    )
    pages = pd.DataFrame(
        {
            "page": rng.permutation(options.pages),
            "section": rng.integers(50, size=options.pages),
        }
    )
    runs = in_turns(
        lambda client: job(client, visits, pages, options.partitions),
        lambda client: job(client, visits[:1000], pages, 2),
        options.workers,
        options.repeat,
    )
    report(runs)
    expected = per_section(visits, pages).set_index("section")["seconds"]
    same = all(answer.equals(expected) for answer in answers(runs))
    print(
        f"\n{len(expected)} sections, {expected.sum():,} seconds: what pandas finds"
        if same
        else "\nNOT what pandas finds"
    )
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
