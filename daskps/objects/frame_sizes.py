"""Sizes of pandas objects, for the census. Runs on the client.

Dask's own estimate draws cells at random, from the generators that the user's program may
have seeded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from daskps.lazy import loaded

# Of a column of Python objects, so many cells are weighed.
CELLS_SAMPLED = 100


def is_frame(type_: type) -> bool:
    """Whether objects of this type are data frames, columns of such, or indexes."""
    pandas = loaded("pandas")
    return pandas is not None and issubclass(
        type_, (pandas.DataFrame, pandas.Series, pandas.Index)
    )


def frame_nbytes(value: Any, weigh: Callable[[Any], int]) -> int:
    """Bytes of a pandas object.

    Parameters
    ----------
    value
        Of a type that :func:`is_frame`.
    weigh
        Gives the bytes of a list of Python objects.
    """
    import pandas as pd

    if isinstance(value, pd.DataFrame):
        indexes = value.index, value.columns
        nbytes = sum(frame_nbytes(index, weigh) for index in indexes)
        return nbytes + _nbytes_of_columns(value, weigh)
    if isinstance(value, pd.Series):
        return _nbytes(value, weigh) + frame_nbytes(value.index, weigh)
    if isinstance(value, pd.MultiIndex):
        levels = (frame_nbytes(level, weigh) for level in value.levels)
        return sum(levels) + sum(code.nbytes for code in value.codes)
    return _nbytes(value, weigh)


def _nbytes_of_columns(frame: Any, weigh: Callable[[Any], int]) -> int:
    # A frame may have thousands of columns: an object is made only of those that need it.
    dtypes = list(enumerate(frame.dtypes))
    plain = [d for _, d in dtypes if isinstance(d, np.dtype) and not d.hasobject]
    nbytes = len(frame) * sum(dtype.itemsize for dtype in plain)
    others = [i for i, d in dtypes if not isinstance(d, np.dtype) or d.hasobject]
    return nbytes + sum(_nbytes(frame.iloc[:, i], weigh) for i in others)


def _nbytes(values: Any, weigh: Callable[[Any], int]) -> int:
    """Bytes of a column, without its index, or of an index."""
    import pandas as pd

    if isinstance(values, pd.Series):
        nbytes: int = values.memory_usage(index=False, deep=False)
    else:
        nbytes = values.memory_usage(deep=False)
    objects = values.dtype == object or values.dtype == pd.StringDtype("python")
    if not objects or not len(values):
        return nbytes
    return nbytes + _nbytes_of_cells(values.array, len(values), weigh)


def _nbytes_of_cells(cells: Any, n: int, weigh: Callable[[Any], int]) -> int:
    sample = list(cells[:: max(1, n // CELLS_SAMPLED)])
    each = {id(cell): cell for cell in sample}
    nbytes = weigh(list(each.values()))
    # If most of them are other objects, so are most of those that were not looked at.
    many = 2 * len(each) > len(sample)
    return nbytes * n // len(sample) if many else nbytes
