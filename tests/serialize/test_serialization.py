"""Values as a short stream and large buffers, and back."""

from __future__ import annotations

import collections
import dataclasses
import os
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from processes import PATH

from daskps.serialize.frames import contiguous_parts, frame_nbytes
from daskps.serialize.values import deserialize, from_bytes, serialize, to_bytes

pytestmark = pytest.mark.core

Point = collections.namedtuple("Point", ["x", "y"])


@dataclasses.dataclass
class Model:
    name: str
    weights: np.ndarray

    def __eq__(self, other):
        return self.name == other.name and np.array_equal(self.weights, other.weights)

    __hash__ = None


BASE = np.arange(60_000, dtype="f8").reshape(200, 300)
RECORDS = np.zeros(9_000, dtype=[("a", "i4"), ("b", "f8", (2,))])
RECORDS["a"] = range(9_000)

LAYOUTS = {
    "C order": BASE,
    "Fortran order": np.asfortranarray(BASE),
    "transposed": BASE.T,
    "a block": BASE[10:110, 20:220],
    "every second": BASE[::2, ::3],
    "backwards": BASE[::-1],
    "backwards in both": BASE[::-1, ::-1],
    "broadcast": np.broadcast_to(BASE[0], (50, 300)),
    "axes permuted": BASE.reshape(20, 10, 300).transpose(1, 2, 0),
    "one column": BASE[:, 5],
    "zero-dimensional": np.array(7.5),
    "empty": BASE[:0],
    "empty in the middle": np.empty((3, 0, 4)),
    "booleans": BASE > 500,
    "complex": BASE.astype("c16")[:, ::2],
    "big endian": BASE.astype(">f8"),
    "strings": np.array(["a", "bcd"] * 20_000),
    "times": np.arange(50_000).astype("M8[s]"),
    "some times": np.arange(50_000).astype("M8[s]").reshape(200, 250)[:, ::2],
    "records": RECORDS,
    "a field of records": RECORDS["b"],
    "objects": np.array([None, "x", 1.5, [1]] * 10, dtype=object),
    "one long row": np.arange(2_000_000)[None, ::2],
}


@pytest.fixture(params=LAYOUTS)
def array(request):
    return LAYOUTS[request.param]


def roundtrip(value):
    """Through copies, as if another process had read them."""
    stream, buffers, writable = serialize(value)
    copies = []
    for buffer, w in zip(buffers, writable, strict=True):
        data = b"".join(bytes(part) for part in contiguous_parts(buffer))
        assert len(data) == frame_nbytes(buffer)
        copies.append(bytearray(data) if w else data)
    return deserialize(stream, copies)


def assert_same_array(new, old):
    assert type(new) is type(old)
    assert new.dtype == old.dtype
    assert new.shape == old.shape
    np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize("through", [roundtrip, lambda x: from_bytes(to_bytes(x))])
class TestArrays:
    def test_of_every_layout(self, array, through):
        assert_same_array(through(array), array)

    def test_within_a_list(self, array, through):
        new = through([array, 1, array])
        assert_same_array(new[0], array)
        assert new[0] is new[2]

    def test_keep_whether_they_may_be_written_to(self, array, through):
        array = array.copy()
        assert through(array).flags.writeable
        array.flags.writeable = False
        # Pickle decides: it copies some types, times and objects among them.
        expected = pickle.loads(pickle.dumps(array, protocol=5))
        assert through(array).flags.writeable == expected.flags.writeable
        if array.dtype.kind in "biufc":
            assert not through(array).flags.writeable

    def test_do_not_refer_to_the_original(self, through):
        array = BASE.copy()
        new = through(array)
        array[:] = -1
        assert new[0, 1] == 1


VALUES = {
    "bytes": b"x" * 100_000,
    "no bytes": b"",
    "a bytearray": bytearray(b"y" * 100_000),
    "text": "häh" * 50_000,
    "a list of bytes": [b"z" * 100_000, b"w" * 70_000, 1],
    "a tuple of bytes": (b"z" * 100_000, "other"),
    "a dictionary": {"a": list(range(1000)), ("b", 1): b"q" * 100_000},
    "a set": {b"1" * 100_000, b"2"},
    "a named tuple": Point(1, b"p" * 100_000),
    "a data class": Model("m", BASE),
    "None": None,
    "a function": len,
}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("through", [roundtrip, lambda x: from_bytes(to_bytes(x))])
def test_values_keep_type_and_content(name, through):
    new = through(VALUES[name])
    assert type(new) is type(VALUES[name])
    assert new == VALUES[name]


def test_what_was_one_object_stays_one():
    data = b"s" * 100_000
    new = roundtrip([data, data])
    assert new[0] is new[1]


def test_masked_arrays_and_matrices_keep_their_class():
    masked = np.ma.masked_greater(BASE, 500.0)
    new = roundtrip(masked)
    assert type(new) is np.ma.MaskedArray
    np.testing.assert_array_equal(new.mask, masked.mask)
    assert type(roundtrip(BASE.view(np.matrix))) is np.matrix


def test_frames_of_pandas():
    frame = pd.DataFrame({"a": range(5000), "b": ["x", None] * 2500, "c": 0.5})
    frame["c"] = frame["c"].astype("category")
    pd.testing.assert_frame_equal(roundtrip(frame), frame)


@pytest.mark.parametrize("name", ["C order", "a block", "Fortran order", "backwards"])
def test_the_content_of_arrays_is_not_in_the_stream(name):
    array = LAYOUTS[name]
    stream, buffers, _ = serialize(array)
    assert len(stream) < 500
    assert sum(map(frame_nbytes, buffers)) == array.nbytes


def test_the_content_of_bytes_is_not_in_the_stream():
    stream, buffers, _ = serialize([b"z" * 100_000, b"w" * 100_000])
    assert len(stream) < 500
    assert sum(map(frame_nbytes, buffers)) == 200_000


def test_contiguous_buffers_are_not_copied():
    array = BASE.copy()
    _, (buffer,), _ = serialize(array)
    assert np.shares_memory(np.asarray(buffer), array)


def test_functions_of_main_are_pickled_by_value():
    # As Dask does, since workers have another __main__.
    namespace = {"__name__": "__main__"}
    exec("def f(x): return x + 1", namespace)
    assert roundtrip(namespace["f"])(1) == 2


class Unpicklable:
    def __reduce__(self):
        raise RuntimeError("no way")


def test_what_cannot_be_pickled_raises_its_own_error():
    with pytest.raises(Exception, match="no way"):
        serialize([BASE, Unpicklable()])


@pytest.mark.parametrize("cut", [0, 3, 10, 40, 1000, -1])
def test_cut_off_bytes_are_noticed(cut):
    with pytest.raises(ValueError, match="cut short"):
        from_bytes(to_bytes(BASE)[:cut])


def test_bytes_of_something_else_are_noticed():
    with pytest.raises(ValueError, match="not a value that daskps stored"):
        from_bytes(pickle.dumps(list(range(100))))


def test_slices_of_arrow_data_keep_a_type_of_the_users_own():
    class Mine(pa.ExtensionType):
        def __init__(self):
            super().__init__(pa.int64(), "daskps.tests.mine")

        def __arrow_ext_serialize__(self):
            return b""

        @classmethod
        def __arrow_ext_deserialize__(cls, storage_type, serialized):
            return cls()

        def __reduce__(self):
            return Mine, ()

    array = pa.ExtensionArray.from_storage(Mine(), pa.array(range(100_000)))
    for data in (
        array[:1000],
        pa.chunked_array([array])[:1000],
        pa.table({"a": array}).slice(0, 1000),
    ):
        new = roundtrip(data)
        assert type(new) is type(data)
        assert new == data
        assert "mine" in str(new.schema if isinstance(new, pa.Table) else new.type)


class HasAView:
    """Gives pickle a view of an array, rather than the array."""

    def __init__(self):
        self.view = memoryview(bytearray(1 << 20)).cast("d", (256, 512))

    def __reduce_ex__(self, protocol):
        return bytes, (pickle.PickleBuffer(self.view),)


KEPT_BY_AN_ERROR = """
import gc, pickle
import numpy as np
from daskps.serialize.sent import to_sent
from daskps.serialize.values import serialize, serialize_method
from test_serialization import HasAView

ways = (
    lambda value: serialize(value).buffers,
    lambda value: serialize_method("sum", serialize(value)).buffers,
    lambda value: to_sent(value, pickle.HIGHEST_PROTOCOL).frames,
)
a = np.ones((300, 400))
for value in a, a.T, a[::2], a.astype("c8"), HasAView(), a.ravel():
    for way in ways:
        frames = way(value)
        assert max(len(memoryview(f).tobytes()) for f in frames) >= a.nbytes // 2
        try:
            raise ValueError(frames)
        except ValueError as e:
            frames.append(e)
        del frames
        gc.collect()
print("all well")
"""


def test_what_an_error_keeps_of_a_value_can_be_collected():
    run = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", KEPT_BY_AN_ERROR],
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(PATH)},
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stdout) == (0, "all well\n"), run.stderr
    assert not run.stderr
