"""Subtract a climatology from a dataset of xarray that is in memory, block by block.

Temperatures of each day, on a grid, are NumPy arrays in the client. The mean of each day of
the year, a large argument, is subtracted by ``xarray.map_blocks``, whose template is as
large as the data; then the warmest anomaly of each day is found.

On Dask as it is, and within ``daskps.proxy_graph()``, in turns: ``measuring.py`` says what
is reported.
"""

from __future__ import annotations

import sys

import numpy as np
import xarray as xr
from distributed import Client
from measuring import answers, in_turns, parser, positive, report


def anomaly(block: xr.Dataset, mean: xr.DataArray) -> xr.Dataset:
    """What differs from the mean of the day of the year."""
    days = block["day"].values % len(mean)
    return block.assign(temperature=block["temperature"] - mean.values[days])


def job(client: Client, data: xr.Dataset, mean: xr.DataArray, days: int) -> np.ndarray:
    """The warmest anomaly of each day."""
    chunked = data.chunk(day=days)
    found = xr.map_blocks(anomaly, chunked, args=[mean], template=chunked)
    return found["temperature"].max(["lat", "lon"]).compute().values


def main(arguments: list[str] | None = None) -> int:
    """Run the example."""
    options = parser(
        __doc__,
        [
            ("--days", positive, 730, "of the dataset"),
            (
                "--grid",
                positive,
                144,
                "points from north to south; twice as many round",
            ),
            ("--chunk", positive, 73, "days in one block"),
        ],
    ).parse_args(arguments)
    rng = np.random.default_rng(options.seed)
    shape = options.days, options.grid, 2 * options.grid
    data = xr.Dataset(
        {"temperature": (("day", "lat", "lon"), rng.normal(15, 8, shape).astype("f4"))},
        coords={"day": np.arange(options.days)},
    )
    # A table for a quarter of a year: every day of the dataset needs all of it.
    year = min(92, options.days)
    mean = data["temperature"][:year].rename(day="day_of_year")
    runs = in_turns(
        lambda client: job(client, data, mean, options.chunk),
        lambda client: job(client, data.isel(day=slice(2)), mean, 1),
        options.workers,
        options.repeat,
    )
    report(runs)
    values = data["temperature"].values
    expected = (values - mean.values[np.arange(options.days) % year]).max((1, 2))
    same = all(np.array_equal(answer, expected) for answer in answers(runs))
    print("\nThe warmest anomalies are " + ("" if same else "NOT ") + "those of NumPy")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
