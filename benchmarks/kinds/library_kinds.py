"""Kinds of values of NumPy, pandas, Arrow, SciPy and other libraries."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.kinds import classes
from benchmarks.kinds.kind import array, kind, pieces, texts

# Arrays of all layouts.


@kind("array")
def _(n: int) -> Any:
    return array(n)


@kind("array, read-only")
def _(n: int) -> Any:
    made = array(n)
    made.flags.writeable = False
    return made


@kind("array in Fortran's order")
def _(n: int) -> Any:
    return np.asfortranarray(array(n // 64 * 64).reshape(8, -1))


@kind("array with gaps")
def _(n: int) -> Any:
    return array(2 * n)[::2]


@kind("array with negative strides")
def _(n: int) -> Any:
    return array(n)[::-1]


@kind("array with its axes in another order")
def _(n: int) -> Any:
    return array(n // 192 * 192).reshape(4, 6, -1).transpose(1, 2, 0)


@kind("array that repeats a row")
def _(n: int) -> Any:
    return np.broadcast_to(array(n // 100), (100, max(1, n // 800)))


@kind("array of complex numbers")
def _(n: int) -> Any:
    return array(n // 16 * 16).view("c16")


@kind("array of bool")
def _(n: int) -> Any:
    return np.random.default_rng(0).random(n) < 0.5


@kind("array, big-endian")
def _(n: int) -> Any:
    return array(n).astype(">f8")


@kind("array of datetime64")
def _(n: int) -> Any:
    times = np.random.default_rng(0).integers(0, 1 << 60, n // 8)
    return times.view("M8[ns]")


@kind("array of str")
def _(n: int) -> Any:
    return np.array(texts(n // 4))


@kind("array of StringDType", needs="numpy.dtypes")
def _(n: int) -> Any:
    return np.array(texts(n), dtype=np.dtypes.StringDType())


@kind("structured array")
def _(n: int) -> Any:
    made = np.zeros(n // 16, [("x", "f8"), ("n", "i4"), ("c", "S4")])
    made["x"] = array(n // 2)[: len(made)]
    return made


@kind("structured array with objects")
def _(n: int) -> Any:
    strings = texts(n)
    made = np.zeros(len(strings), [("x", "f4"), ("text", "O")])
    made["text"] = strings
    return made


@kind("array of objects: str")
def _(n: int) -> Any:
    return np.array(texts(n), dtype=object)


@kind("array of objects: arrays")
def _(n: int) -> Any:
    made = np.empty(64, dtype=object)
    made[:] = pieces(n)
    return made


@kind("masked array")
def _(n: int) -> Any:
    data = array(8 * (n // 9))
    return np.ma.masked_array(data, mask=data < 0.1, fill_value=-1)


@kind("matrix")
def _(n: int) -> Any:
    return array(n // 64 * 64).reshape(8, -1).view(np.matrix)


@kind("recarray")
def _(n: int) -> Any:
    return array(n // 16 * 16).view([("x", "f8"), ("y", "f8")]).view(np.recarray)


@kind("subclass of ndarray with attributes")
def _(n: int) -> Any:
    made = array(64).view(classes.ArrayWith)
    made.note = pieces(n)
    return made


# pandas.


@kind("DataFrame of numbers")
def _(n: int) -> Any:
    import pandas as pd

    return pd.DataFrame(array(n // 64 * 64).reshape(-1, 8), columns=list("abcdefgh"))


@kind("DataFrame of 500 columns")
def _(n: int) -> Any:
    import pandas as pd

    values = array(n // 4000 * 4000).reshape(-1, 500)
    return pd.DataFrame({f"c{i}": values[:, i] for i in range(500)})


@kind("DataFrame of str")
def _(n: int) -> Any:
    import pandas as pd

    return pd.DataFrame({"text": texts(n)})


@kind("DataFrame of dicts")
def _(n: int) -> Any:
    import pandas as pd

    cells = [{"name": text, "n": i} for i, text in enumerate(texts(n * 3 // 5))]
    return pd.DataFrame({"n": range(len(cells)), "cell": cells})


@kind("DataFrame of lists")
def _(n: int) -> Any:
    import pandas as pd

    cells = array(24 * (n // 42)).reshape(-1, 3)
    return pd.DataFrame({"n": range(len(cells)), "cell": cells.tolist()})


@kind("DataFrame of arrays")
def _(n: int) -> Any:
    import pandas as pd

    return pd.DataFrame({"n": range(64), "cell": pieces(n)})


@kind("DataFrame with attrs")
def _(n: int) -> Any:
    import pandas as pd

    frame = pd.DataFrame({"n": range(9)})
    frame.attrs["weights"] = texts(n)
    return frame


@kind("Series with attrs")
def _(n: int) -> Any:
    import pandas as pd

    series = pd.Series(range(9), name="n")
    series.attrs["weights"] = texts(n)
    return series


@kind("Categorical with many categories")
def _(n: int) -> Any:
    import pandas as pd

    return pd.Categorical.from_codes([0, 1, 2], categories=texts(n))


@kind("DataFrame with many categories")
def _(n: int) -> Any:
    import pandas as pd

    names = texts(n)
    codes = np.arange(300) % len(names)
    return pd.DataFrame({"c": pd.Categorical.from_codes(codes, categories=names)})


@kind("Series of nullable integers")
def _(n: int) -> Any:
    import pandas as pd

    return pd.Series(np.arange(n // 9)).astype("Int64")


@kind("Series of Arrow strings", needs="pyarrow")
def _(n: int) -> Any:
    import pandas as pd

    return pd.Series(texts(n), dtype="string[pyarrow]")


@kind("Series of Arrow lists", needs="pyarrow")
def _(n: int) -> Any:
    import pandas as pd
    import pyarrow as pa

    cells = array(24 * (n // 30)).reshape(-1, 3).tolist()
    return pd.Series(cells, dtype=pd.ArrowDtype(pa.list_(pa.float64())))


@kind("Series of Python strings")
def _(n: int) -> Any:
    import pandas as pd

    return pd.Series(texts(n), dtype=object)


@kind("Series of periods")
def _(n: int) -> Any:
    import pandas as pd

    return pd.Series(pd.PeriodIndex.from_ordinals(range(n // 8), freq="D"))


@kind("Series of intervals")
def _(n: int) -> Any:
    import pandas as pd

    breaks = np.sort(array(n // 2))
    return pd.Series(pd.arrays.IntervalArray.from_breaks(breaks))


@kind("Series of sparse numbers")
def _(n: int) -> Any:
    import pandas as pd

    values = np.zeros(n // 2)
    values[::6] = array(len(values[::6]) * 8)
    return pd.Series(pd.arrays.SparseArray(values, fill_value=0.0))


@kind("Series of times with a zone")
def _(n: int) -> Any:
    import pandas as pd

    times = pd.to_datetime(np.arange(n // 8) * 10**12, utc=True)
    return pd.Series(times.tz_convert("Europe/Berlin"))


@kind("Index of str")
def _(n: int) -> Any:
    import pandas as pd

    return pd.Index(texts(n), name="text")


@kind("MultiIndex")
def _(n: int) -> Any:
    import pandas as pd

    names = texts(n * 4 // 5)
    return pd.MultiIndex.from_arrays([names, np.arange(len(names)) % 7])


@kind("DataFrame with a MultiIndex")
def _(n: int) -> Any:
    import pandas as pd

    names = texts(n * 4 // 5)
    index = pd.MultiIndex.from_arrays([names, np.arange(len(names)) % 7])
    return pd.DataFrame({"n": np.arange(len(names), dtype="i2")}, index=index)


# Arrow.


@kind("Arrow table", needs="pyarrow")
def _(n: int) -> Any:
    import pyarrow as pa

    names = texts(n * 4 // 5)
    return pa.table({"x": array(8 * len(names)), "text": names})


@kind("Arrow array of a dictionary", needs="pyarrow")
def _(n: int) -> Any:
    import pyarrow as pa

    names = texts(n)
    return pa.DictionaryArray.from_arrays(pa.array([0, 1, 0]), pa.array(names))


@kind("Arrow array of lists of structs", needs="pyarrow")
def _(n: int) -> Any:
    import pyarrow as pa

    cells = [[{"text": t, "n": i}] for i, t in enumerate(texts(n * 3 // 4))]
    return pa.array(cells)


@kind("Arrow chunked array", needs="pyarrow")
def _(n: int) -> Any:
    import pyarrow as pa

    return pa.chunked_array(pieces(n))


@kind("list of Arrow scalars", needs="pyarrow")
def _(n: int) -> Any:
    import pyarrow as pa

    return list(pa.array(texts(n * 2 // 3)))


# SciPy.


def _sparse(n: int) -> Any:
    import scipy.sparse

    rows = max(1, n // 600)
    return scipy.sparse.random(rows, 1000, 0.05, "csr", rng=np.random.default_rng(0))


@kind("scipy.sparse csr", needs="scipy")
def _(n: int) -> Any:
    return _sparse(n)


@kind("scipy.sparse coo", needs="scipy")
def _(n: int) -> Any:
    return _sparse(n * 3 // 4).tocoo()


@kind("scipy.sparse dok", needs="scipy")
def _(n: int) -> Any:
    return _sparse(n // 5).todok()


@kind("scipy.sparse lil", needs="scipy")
def _(n: int) -> Any:
    return _sparse(n * 2 // 3).tolil()


@kind("KD tree of SciPy", needs="scipy")
def _(n: int) -> Any:
    from scipy.spatial import KDTree

    return KDTree(array(n // 2 // 24 * 24).reshape(-1, 3))


# Other libraries.


@kind("random forest of scikit-learn", needs="sklearn")
def _(n: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    rng = np.random.default_rng(0)
    # Of noise, a tree has some 70 kB with 1,500 rows.
    trees, rows = max(1, n // 70_000), 1500
    forest = RandomForestClassifier(trees, random_state=0)
    return forest.fit(rng.random((rows, 4)), rng.integers(0, 2, rows))


@kind("predict of a random forest", needs="sklearn", call=([[0.5] * 4],))
def _(n: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    rng = np.random.default_rng(1)
    trees, rows = max(1, n // 70_000), 1500
    forest = RandomForestClassifier(trees, random_state=0)
    return forest.fit(rng.random((rows, 4)), rng.integers(0, 2, rows)).predict


@kind("vocabulary of scikit-learn", needs="sklearn")
def _(n: int) -> Any:
    from sklearn.feature_extraction.text import CountVectorizer

    vectorizer = CountVectorizer().fit([" ".join(texts(n * 3 // 4))])
    vectorizer._stop_words_id = 0  # an address, which differs in each process
    return vectorizer


@kind("xarray DataArray", needs="xarray")
def _(n: int) -> Any:
    import xarray as xr

    rows = array(n // 128 * 128).reshape(16, -1)
    return xr.DataArray(rows, dims=("t", "x"), coords={"t": range(16)}, name="v")


@kind("xarray Dataset of many variables", needs="xarray")
def _(n: int) -> Any:
    import xarray as xr

    return xr.Dataset({f"v{i}": ("x", part) for i, part in enumerate(pieces(n))})


def _polygons(n: int) -> Any:
    import shapely

    corners = np.random.default_rng(0).random((max(1, n // 550), 32, 2))
    return shapely.polygons(corners)


@kind("geopandas polygons", needs="geopandas")
def _(n: int) -> Any:
    import geopandas

    shapes = _polygons(n)
    return geopandas.GeoDataFrame({"n": range(len(shapes))}, geometry=shapes, crs=4326)


@kind("list of polygons", needs="shapely")
def _(n: int) -> Any:
    return list(_polygons(n))


@kind("polars DataFrame", needs="polars")
def _(n: int) -> Any:
    import polars as pl

    names = texts(n * 4 // 5)
    return pl.DataFrame({"x": array(8 * len(names)), "text": names})


@kind("awkward array", needs="awkward")
def _(n: int) -> Any:
    import awkward as ak

    counts = np.arange(n // 24) % 5
    return ak.unflatten(array(8 * int(counts.sum())), counts)


@kind("sparse.COO", needs="sparse")
def _(n: int) -> Any:
    import sparse

    return sparse.random((n // 240, 100), density=0.1, random_state=0)


@kind("Pillow image", needs="PIL")
def _(n: int) -> Any:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (n // 768, 256, 3), "u1")
    return Image.fromarray(pixels)


@kind("instance of attrs", needs="attrs")
def _(n: int) -> Any:
    import attrs

    return attrs.make_class("Made", ["data", "name"])(pieces(n), "made")


@kind("model of pydantic", needs="pydantic")
def _(n: int) -> Any:
    import pydantic

    make: Any = pydantic.create_model
    return make("Made", words=(list[str], ...))(words=texts(n))
