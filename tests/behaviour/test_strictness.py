"""Functions that look closely at their arguments get what plain Dask gives them."""

from __future__ import annotations

import ctypes
import hashlib
import pickle
import types

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest

import daskps

MIB = 1 << 20


@pytest.fixture
def data():
    return np.random.default_rng(0).integers(0, 100, MIB // 8)


@pytest.fixture
def session(client):
    with daskps.proxy_graph():
        yield


pytestmark = pytest.mark.usefixtures("session")


def exact_type(x):
    return type(x)


@pytest.mark.parametrize(
    "make",
    [
        np.asarray,
        lambda x: x.tobytes(),
        lambda x: bytearray(x.tobytes()),
        lambda x: x.tolist(),
        lambda x: x.tobytes().hex(),
        lambda x: dict(enumerate(x.tolist())),
        lambda x: set(range(MIB // 8)),
        pd.Series,
        lambda x: pd.DataFrame({"x": x}),
        pd.Index,
    ],
    ids=["array", "bytes", "bytearray", "list", "str", "dict", "set", "s", "df", "ix"],
)
def test_type_is_the_very_type(client, data, make):
    value = make(data)
    assert client.submit(exact_type, value).result() is type(value)


def through_buffer(x):
    view = memoryview(x).cast("B")
    return hashlib.sha256(view).hexdigest(), view.readonly, view.c_contiguous


def test_a_consumer_of_buffers(client, data):
    for value in data, data.tobytes(), bytearray(data.tobytes()):
        assert client.submit(through_buffer, value).result() == through_buffer(value)


def through_address(x):
    address = ctypes.cast(x.ctypes.data, ctypes.POINTER(ctypes.c_int64))
    return sum(address[i] for i in range(1000)), x.ctypes.data % x.dtype.alignment


def test_a_consumer_of_addresses(client, data):
    expected = int(data[:1000].sum()), 0
    assert client.submit(through_address, data).result() == expected


def test_a_function_compiled_by_numba(client, data):
    numba = pytest.importorskip("numba")

    # With a signature: anything but such an array is refused.
    @numba.njit("int64(int64[::1])")
    def total(x):
        result = 0
        for i in range(len(x)):
            result += x[i]
        return result

    assert client.submit(total, data).result() == data.sum()
    assert client.submit(total.py_func, data).result() == data.sum()


def test_a_ufunc_written_in_c(client, data):
    blocks = da.from_array(data, chunks=-1)
    np.testing.assert_array_equal(
        blocks.map_blocks(np.add.accumulate).compute(), np.add.accumulate(data)
    )


def pickled(x):
    return pickle.dumps(x), pickle.dumps(x, protocol=5)


def test_pickling_an_argument(client, data):
    for stream in client.submit(pickled, data).result():
        assert b"daskps" not in stream
        assert b"proxystore" not in stream
        np.testing.assert_array_equal(pickle.loads(stream), data)


def changed(x):
    x[:] += 1
    return int(x.sum())


def test_changing_an_argument_changes_no_other(client, data):
    first = client.submit(changed, data, pure=False).result()
    again = client.submit(changed, data, pure=False).result()
    assert first == again == data.sum() + len(data)
    assert client.submit(np.sum, data).result() == data.sum()


def flags(x):
    return x.flags.writeable, x.flags.c_contiguous, x.flags.f_contiguous


@pytest.mark.parametrize("writeable", [True, False])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_keeps_its_flags(client, data, writeable, order):
    value = np.asarray(data.reshape(256, -1), order=order)
    value.flags.writeable = writeable
    mine = client.submit(flags, value, pure=False).result()
    with daskps.proxy_graph(threshold="1 GiB"):
        plain = client.submit(flags, value, pure=False).result()
    assert mine == plain


def same(x):
    return x


def test_returning_the_argument(client, data):
    future = client.submit(same, data)
    for _ in range(2):
        result = future.result()
        assert type(result) is np.ndarray
        np.testing.assert_array_equal(result, data)
    assert dask.delayed(same)(data).compute().sum() == data.sum()


def keep_a_view(x):
    import builtins

    builtins.kept_by_a_test = types.SimpleNamespace(view=x[::2])


def look_at_the_view():
    import builtins

    total = int(builtins.kept_by_a_test.view.sum())
    del builtins.kept_by_a_test
    return total


def test_keeping_a_view_after_the_task(client, data):
    """The object is evicted and its memory used again, before anybody looks."""
    worker = sorted(client.scheduler_info()["workers"])[:1]
    client.submit(keep_a_view, data, workers=worker).result()
    for seed in range(4):
        other = np.random.default_rng(seed).integers(0, 100, MIB // 8)
        assert client.submit(np.sum, other, workers=worker).result() == other.sum()
    looked = client.submit(look_at_the_view, workers=worker, pure=False).result()
    assert looked == data[::2].sum()
