"""Where Dask splits a pandas frame, found without a walk over its index. Runs on the client.

``dask.dataframe.from_pandas`` makes a list of the whole index, and a sorted set of that,
which takes longer than to store the frame. What it looks for there is how many rows have
the same index, and pandas knows that without: at once of a range, and in one pass in C of
anything else.
"""

from __future__ import annotations

from typing import Any

import numpy as np

#: The first index of each partition and the last one of all; the rows where partitions
#: begin, and how many there are.
Divisions = tuple[list[Any], list[int]]
#: Rows, in order.
Rows = range | np.ndarray[tuple[int], np.dtype[np.intp]]


def find_divisions(
    index: Any, npartitions: int | None, chunksize: int | None
) -> Divisions | None:
    """What ``dask.dataframe.io.io.sorted_division_locations`` gives.

    Parameters
    ----------
    index
        Of a pandas frame; not empty.
    npartitions, chunksize
        How many partitions are wanted, or else how many rows in each.

    Returns
    -------
    tuple or None
        None: of such an index only Dask knows.
    """
    if not _is_plain(index) or not index.is_monotonic_increasing or index.hasnans:
        return None
    locations = _locations(_firsts(index), len(index), npartitions, chunksize)
    # As Dask does: Python's numbers and pandas' timestamps.
    divisions = [index[i : i + 1].tolist()[0] for i in [*locations, len(index) - 1]]
    return divisions, [*locations, len(index)]


def _is_plain(index: Any) -> bool:
    """Whether pandas orders and tells apart its items as Python does."""
    import pandas as pd

    types = (pd.RangeIndex, pd.DatetimeIndex, pd.TimedeltaIndex)
    if type(index) in types:
        return True
    dtype = index.dtype
    numbers = isinstance(dtype, np.dtype) and dtype.kind in "biuf"
    strings = isinstance(dtype, pd.StringDtype) or index.inferred_type == "string"
    return type(index) is pd.Index and (numbers or strings)


def _firsts(index: Any) -> Rows:
    """The first rows of rows with equal index."""
    if index.is_unique:
        return range(len(index))
    return np.flatnonzero(~index.duplicated())


def _locations(
    firsts: Rows, n: int, npartitions: int | None, chunksize: int | None
) -> list[int]:
    """Where partitions begin, so that rows with equal index are in one.

    As Dask chooses, step for step: another choice would give other keys, and another order
    of sums.
    """
    rows, more = divmod(n, npartitions) if npartitions else (chunksize or 0, 0)

    def wanted(partition: int) -> int:
        return rows + (partition < more)

    exact = npartitions if len(firsts) < n and npartitions else 0
    exact = exact if len(firsts) >= exact else 0
    locations, last, drift = [0], 0, 0
    at = wanted(0)
    while at < n:
        group = _group(firsts, at)
        if exact:
            # Enough groups have to be left for the other partitions.
            group = min(group, len(firsts) - (exact - len(locations)))
        group = max(group, last + 1)
        if group >= len(firsts):
            break
        start = int(firsts[group])
        if npartitions:
            drift += start - locations[-1] - wanted(len(locations) - 1)
        at = start + max(1, wanted(len(locations)) - drift)
        locations.append(start)
        last = group
    return locations


def _group(firsts: Rows, row: int) -> int:
    """In which group of equal rows a row is."""
    if isinstance(firsts, range):
        return row
    return int(np.searchsorted(firsts, row, side="right")) - 1
