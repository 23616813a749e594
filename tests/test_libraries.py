"""Libraries on top of Dask, as they are: none needs a change.

Those that are not installed are skipped. The extra ``libraries`` has all of them.
"""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from processes import graph_nbytes, messages_sent

import daskps

MIB = 1 << 20


def array(seed=0, nbytes=2 * MIB):
    return np.random.default_rng(seed).random(nbytes // 8)


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
