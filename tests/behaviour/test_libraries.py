"""Libraries on top of Dask, as they are: none needs a change.

Those that are not installed are skipped. The extra ``libraries`` has all of them.
"""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest
from processes import graph_nbytes, messages_sent

import daskps

MIB = 1 << 20


def array(seed=0, nbytes=2 * MIB):
    return np.random.default_rng(seed).random(nbytes // 8)


def same_by_reference(client, program):
    """What a program gives without daskps, and within a block in which little is small."""
    plain = program()
    with daskps.proxy_graph(threshold="4 KiB"), messages_sent(client) as messages:
        ours = program()
    assert "daskps-hold" in {message["op"] for message in messages}
    return ours, plain


def assert_same_array(ours, plain):
    assert type(ours) is type(plain)
    assert ours.dtype == plain.dtype
    np.testing.assert_array_equal(ours, plain)


def test_xarray(client):
    xr = pytest.importorskip("xarray")
    data = array().reshape(64, -1)
    dataset = xr.Dataset({"v": (("t", "x"), data)}, coords={"t": np.arange(64)})
    kernel = array(1)

    def shifted(block, *, kernel):
        return block + kernel[0]

    with daskps.proxy_graph(), messages_sent(client) as messages:
        chunked = dataset.chunk({"t": 16})
        xr.testing.assert_allclose(chunked.mean("t").compute(), dataset.mean("t"))
        applied = xr.apply_ufunc(
            shifted,
            chunked.v,
            kwargs={"kernel": kernel},
            dask="parallelized",
            output_dtypes=[float],
        ).compute()
    np.testing.assert_array_equal(applied.data, data + kernel[0])
    assert type(applied.data) is np.ndarray
    assert graph_nbytes(messages) < MIB


def column_sum(x, j):
    assert type(x) is np.ndarray
    return float(x[:, j].sum())


def test_joblib_and_grid_search(client):
    joblib = pytest.importorskip("joblib")
    linear_model = pytest.importorskip("sklearn.linear_model")
    model_selection = pytest.importorskip("sklearn.model_selection")
    x = array().reshape(-1, 16)
    y = x @ np.arange(16.0)
    with daskps.proxy_graph(), joblib.parallel_config(backend="dask"):
        sums = joblib.Parallel()(joblib.delayed(column_sum)(x, j) for j in range(4))
        search = model_selection.GridSearchCV(
            linear_model.Ridge(), {"alpha": [1e-6, 1e6]}, cv=2
        ).fit(x, y)
    np.testing.assert_allclose(sums, x[:, :4].sum(axis=0))
    assert search.best_params_ == {"alpha": 1e-6}


def test_dask_ml(client):
    cluster = pytest.importorskip("dask_ml.cluster")
    preprocessing = pytest.importorskip("dask_ml.preprocessing")
    wrappers = pytest.importorskip("dask_ml.wrappers")
    linear_model = pytest.importorskip("sklearn.linear_model")
    rows = np.repeat(np.eye(4) * 10, 16384, axis=0) + array().reshape(-1, 4)
    x = da.from_array(rows, chunks=(16384, 4))

    def fit():
        scaler = preprocessing.StandardScaler().fit(x)
        groups = cluster.KMeans(n_clusters=4, random_state=0).fit(x)
        # A fitted model that is large goes to each block.
        model = linear_model.Ridge().fit(rows, rows[:, 0])
        model.ballast = array(1)
        predicted = wrappers.ParallelPostFit(model).predict(x).compute()
        return scaler.mean_, groups.labels_.compute(), predicted

    plain = fit()
    with daskps.proxy_graph(), messages_sent(client) as messages:
        for ours, theirs in zip(fit(), plain, strict=True):
            np.testing.assert_allclose(ours, theirs)
    assert graph_nbytes(messages) < MIB


def test_xgboost(client):
    xgboost = pytest.importorskip("xgboost")
    xgboost_dask = pytest.importorskip("xgboost.dask")
    x = array().reshape(-1, 16)
    y = (x[:, 0] > 0.5).astype(int)

    def fit():
        train = xgboost_dask.DaskDMatrix(
            client,
            da.from_array(x, chunks=(8192, 16)),
            da.from_array(y, chunks=8192),
        )
        parameters = {"objective": "binary:logistic", "tree_method": "hist"}
        return xgboost_dask.train(client, parameters, train, num_boost_round=4)

    with daskps.proxy_graph(), messages_sent(client) as messages:
        booster = fit()["booster"]
        # The trained model is an argument of the prediction's tasks.
        predicted = xgboost_dask.predict(
            client, booster, da.from_array(x, chunks=(8192, 16))
        ).compute()
    assert ((predicted > 0.5) == y).mean() > 0.99
    np.testing.assert_allclose(
        predicted, booster.predict(xgboost.DMatrix(x)), rtol=1e-5
    )
    assert graph_nbytes(messages) < MIB


def test_torch(client):
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(512, 512)

    def forward(model, x):
        with torch.no_grad():
            return model(x).sum().item()

    x = torch.ones(512)
    with daskps.proxy_graph(), messages_sent(client) as messages:
        result = client.submit(forward, model, x).result()
    assert result == pytest.approx(forward(model, x))
    assert graph_nbytes(messages) < MIB / 4


def test_data_classes_of_libraries(client):
    attrs = pytest.importorskip("attrs")
    pydantic = pytest.importorskip("pydantic")

    Attrs = attrs.make_class("Attrs", ["data"])  # noqa: N806
    Model = pydantic.create_model(  # noqa: N806
        "Model",
        __config__=pydantic.ConfigDict(arbitrary_types_allowed=True),
        data=(np.ndarray, ...),
    )

    def total(holder):
        return float(holder.data.sum())

    data = array()
    with daskps.proxy_graph(), messages_sent(client) as messages:
        for made in Attrs(data), Model(data=data):
            assert client.submit(total, made).result() == data.sum()
    assert graph_nbytes(messages) < MIB


# Numbers below are whole where they are summed: then the order does not matter, in which
# Dask adds up what it has.


def test_dask_awkward(client):
    ak = pytest.importorskip("awkward")
    dak = pytest.importorskip("dask_awkward")
    counts = np.arange(20_000) % 5
    events = ak.zip(
        {
            "x": ak.unflatten(np.arange(counts.sum()), counts),
            "y": ak.unflatten(array()[: counts.sum()], counts),
        }
    )

    def program():
        collection = dak.from_awkward(events, npartitions=4)
        # Dask itself fails to fuse what dask-awkward has optimised.
        rest = [collection[collection.x > 9], dak.sum(collection.x * 2, axis=1)]
        return [
            collection.compute(),
            *(some.compute(optimize_graph=False) for some in rest),
        ]

    for ours, plain in zip(*same_by_reference(client, program), strict=True):
        assert type(ours) is type(plain) is ak.Array
        assert ak.array_equal(ours, plain, dtype_exact=True, check_parameters=True)


def test_dask_histogram(client):
    bh = pytest.importorskip("boost_histogram")
    dask_histogram = pytest.importorskip("dask_histogram")

    def program():
        x = da.from_array(array(), chunks=1 << 16)
        weights = da.from_array(np.arange(x.size) % 8.0, chunks=1 << 16)
        axes = (bh.axis.Regular(50, 0, 1),)
        storage = bh.storage.Weight()
        filled = dask_histogram.factory(x, axes=axes, weights=weights, storage=storage)
        counts, edges = dask_histogram.histogram(x, bins=20, range=(0, 1))
        return filled.compute(), *dask.compute(counts, edges)

    (ours, *arrays), (plain, *plain_arrays) = same_by_reference(client, program)
    assert type(ours) is type(plain) is bh.Histogram
    assert ours == plain
    assert ours.sum().value == sum(np.arange(len(array())) % 8)
    for mine, other in zip(arrays, plain_arrays, strict=True):
        assert_same_array(mine, other)


def test_dask_image(client):
    ndfilters = pytest.importorskip("dask_image.ndfilters")
    ndmeasure = pytest.importorskip("dask_image.ndmeasure")
    image = array().reshape(512, -1)

    def program():
        x = da.from_array(image, chunks=256)
        smooth = ndfilters.gaussian_filter(x, sigma=2)
        labels, n = ndmeasure.label(smooth > 0.5)
        means = ndmeasure.maximum(x, labels, [1, 2, 3])
        return dask.compute(smooth, labels, means, n)

    ours, plain = same_by_reference(client, program)
    assert plain[3] > 10
    for mine, other in zip(ours, plain, strict=True):
        assert_same_array(np.asarray(mine), np.asarray(other))
        assert type(mine) is type(other)


def test_dask_geopandas(client):
    geopandas = pytest.importorskip("geopandas")
    dask_geopandas = pytest.importorskip("dask_geopandas")
    testing = pytest.importorskip("geopandas.testing")
    n = 8192
    points = geopandas.points_from_xy(array()[:n], array(1)[:n])
    frame = geopandas.GeoDataFrame({"v": np.arange(n)}, geometry=points, crs=4326)
    squares = frame.iloc[:20].to_crs(3857).buffer(5000).to_crs(4326)
    areas = geopandas.GeoDataFrame({"area": range(20)}, geometry=squares.values)

    def program():
        collection = dask_geopandas.from_geopandas(frame, npartitions=4)
        joined = dask_geopandas.sjoin(collection, areas, predicate="within")
        return dask.compute(collection, joined, collection.to_crs(3857).geometry.x)

    ours, plain = same_by_reference(client, program)
    for i in range(2):
        assert type(ours[i]) is type(plain[i]) is geopandas.GeoDataFrame
        assert ours[i].crs == plain[i].crs == frame.crs
        testing.assert_geodataframe_equal(ours[i], plain[i])
    testing.assert_geodataframe_equal(ours[0], frame)
    assert len(ours[1]) >= 20
    assert ours[2].equals(plain[2])


def test_dask_array_with_expressions(client):
    """The package dask-array, whose arrays are other ones than those of dask.array."""
    dask_array = pytest.importorskip("dask_array")
    data = np.arange(1 << 18).reshape(512, 512) % 1000

    def program():
        x = dask_array.from_array(data, chunks=128)
        return dask.compute(
            x,
            (x @ x.T).sum(axis=0),
            x[10:400:3, ::-1] + 1,
            x.map_blocks(lambda block, other: block + other[0], data[0]),
        )

    for ours, plain in zip(*same_by_reference(client, program), strict=True):
        assert_same_array(ours, plain)


def test_flox(client):
    flox = pytest.importorskip("flox")
    data = np.arange(1 << 18).reshape(64, -1) % 1000.0
    months = np.arange(data.shape[1]) % 12

    def program():
        x = da.from_array(data, chunks=(64, 1024))
        found = [
            flox.groupby_reduce(x, months, func=func, method=method)
            for func, method in (("mean", "map-reduce"), ("max", "cohorts"))
        ]
        return [array for result in dask.compute(*found) for array in result]

    for ours, plain in zip(*same_by_reference(client, program), strict=True):
        assert_same_array(ours, plain)


def test_polars(client):
    pl = pytest.importorskip("polars")
    testing = pytest.importorskip("polars.testing")
    n = 1 << 16
    frame = pl.DataFrame(
        {
            "i": np.arange(n),
            "text": [f"row {i}" for i in range(n)],
            "group": pl.Series(["a", "b", "c", None] * (n // 4), dtype=pl.Categorical),
            "list": [[i, i + 1] for i in range(n)],
        }
    )

    def totals(frame, few):
        return frame.join(few, on="i").group_by("group").agg(pl.len(), pl.sum("i"))

    def program():
        parts = client.map(lambda f: f.filter(pl.col("i") % 2 == 0), [frame, frame[9:]])
        summed = [
            client.submit(totals, part, frame.head(4096), pure=False) for part in parts
        ]
        delayed = dask.delayed(pl.concat)([frame, frame[:5]])
        return [*client.gather(parts), *client.gather(summed), delayed.compute()]

    for ours, plain in zip(*same_by_reference(client, program), strict=True):
        assert type(ours) is type(plain) is pl.DataFrame
        assert ours.schema == plain.schema
        testing.assert_frame_equal(ours, plain, check_row_order=len(plain) > 4)


@pytest.mark.filterwarnings("ignore:Parameter .* will be ignored:UserWarning")
def test_lightgbm(client):
    lightgbm = pytest.importorskip("lightgbm")
    # Few values, so that bins do not depend on which rows are on which worker.
    x = np.random.default_rng(0).integers(0, 16, (16384, 8)).astype(float)
    y = (x[:, 0] + x[:, 1] > 15).astype(int)

    def program():
        rows = da.from_array(x, chunks=(8192, 8))
        model = lightgbm.DaskLGBMClassifier(
            client=client, n_estimators=8, deterministic=True, verbose=-1
        )
        model.fit(rows, da.from_array(y, chunks=8192))
        return model.predict(rows).compute(), model.predict_proba(rows).compute()

    ours, plain = same_by_reference(client, program)
    assert_same_array(ours[0], plain[0])
    assert (ours[0] == y).mean() > 0.9
    assert type(ours[1]) is type(plain[1])
    np.testing.assert_allclose(ours[1], plain[1], rtol=1e-6)
