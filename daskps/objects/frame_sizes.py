"""Sizes of pandas objects, for the census. Runs on the client.

Dask's own estimate draws cells at random, from the generators that the user's program may
have seeded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from daskps.lazy import loaded

# Of a column of Python objects, so many cells are weighed first.
CELLS_SAMPLED = 100
# If these are of such types only, the others are taken to be like them.
_ALIKE = {str, bytes, int, float, bool, type(None)}
# Bytes in a pickle for an object that is in it already.
REFERENCE_NBYTES = 2


def is_frame(type_: type) -> bool:
    """Whether objects of this type are data frames, columns of such, or indexes."""
    pandas = loaded("pandas")
    return pandas is not None and issubclass(
        type_, (pandas.DataFrame, pandas.Series, pandas.Index)
    )


def frame_nbytes(value: Any, weigh: Callable[[list[Any]], int]) -> int:
    """Bytes of a pandas object.

    Parameters
    ----------
    value
        Of a type that :func:`is_frame`.
    weigh
        Gives the bytes of Python objects.
    """
    import pandas as pd

    attached = _attached(value)
    nbytes = weigh(attached) if attached else 0
    if isinstance(value, pd.DataFrame):
        indexes = value.index, value.columns
        nbytes += sum(frame_nbytes(index, weigh) for index in indexes)
        return nbytes + _nbytes_of_columns(value, weigh)
    if isinstance(value, pd.Series):
        nbytes += frame_nbytes(value.index, weigh)
        return nbytes + _nbytes_of_array(value.array, weigh)
    if isinstance(value, pd.MultiIndex):
        levels = (frame_nbytes(level, weigh) for level in value.levels)
        return nbytes + sum(levels) + sum(code.nbytes for code in value.codes)
    if isinstance(value, pd.RangeIndex):
        return nbytes
    return nbytes + _nbytes_of_array(value.array, weigh)


def nbytes_of_each_column(
    frame: Any, weigh: Callable[[list[Any]], int]
) -> list[tuple[Any, int]]:
    """Names of a data frame's columns, each with its bytes."""
    columns = (frame.iloc[:, i].array for i in range(len(frame.columns)))
    sizes = (_nbytes_of_array(column, weigh) for column in columns)
    return list(zip(frame.columns, sizes, strict=True))


def _attached(value: Any) -> list[Any]:
    """What a frame carries besides its data: attributes of pandas, and of derived types."""
    names = getattr(value, "_metadata", ())
    attached = [getattr(value, name, None) for name in ("attrs", *names)]
    # Most have nothing.
    return [a for a in attached if a is not None and not (type(a) is dict and not a)]


def _nbytes_of_columns(frame: Any, weigh: Callable[[list[Any]], int]) -> int:
    # A frame may have thousands of columns: an object is made only of those that need it.
    dtypes = list(enumerate(frame.dtypes))
    plain = [d for _, d in dtypes if isinstance(d, np.dtype) and not d.hasobject]
    nbytes = len(frame) * sum(dtype.itemsize for dtype in plain)
    others = [i for i, d in dtypes if not isinstance(d, np.dtype) or d.hasobject]
    return nbytes + sum(_nbytes_of_array(frame.iloc[:, i].array, weigh) for i in others)


def _nbytes_of_array(values: Any, weigh: Callable[[list[Any]], int]) -> int:
    """Bytes of the data of a column, or of an index."""
    import pandas as pd

    dtype = values.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        codes: int = values.codes.nbytes
        return codes + frame_nbytes(dtype.categories, weigh)
    if not isinstance(dtype, pd.ArrowDtype):
        # Of Arrow's lists and decimals it is that of objects, which there are none of.
        dtype = getattr(dtype, "numpy_dtype", dtype)
    texts = isinstance(dtype, pd.StringDtype) and dtype.storage == "python"
    if texts or dtype == np.dtype(object):
        return _nbytes_of_cells(values, weigh)
    if isinstance(dtype, np.dtype) or type(values).__module__.startswith("pandas."):
        nbytes: int = values.nbytes
        return nbytes
    return weigh([values])  # only its own library knows what is in it


def _nbytes_of_cells(values: Any, weigh: Callable[[list[Any]], int]) -> int:
    n = len(values)
    sample = _cells(values[:: max(1, n // CELLS_SAMPLED)])
    if not _ALIKE.issuperset(map(type, sample)):
        return weigh([_cells(values)])
    each = {id(cell): cell for cell in sample}
    nbytes = weigh(list(each.values()))
    # If most of them are other objects, so are most of those that were not looked at.
    many = 2 * len(each) > len(sample)
    return nbytes * n // len(sample) if many else nbytes + n * REFERENCE_NBYTES


def _cells(values: Any) -> list[Any]:
    # Not by asking for one after the other, which pandas answers in Python.
    cells: list[Any] = np.asarray(values, dtype=object).tolist()
    return cells
