"""No value is weighed far too light: what is weighed and what is pickled, at random."""

from __future__ import annotations

import functools
import sys
import types
from unittest import mock

import cloudpickle
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.kinds import classes
from benchmarks.kinds.catalogue import all_kinds, kinds
from daskps.dask_private.graphs import Task
from daskps.objects import sizes
from daskps.objects.pickles import Pickles
from daskps.objects.sizes import nbytes_of
from daskps.serialize.values import serialize

KB = 1000
#: Below this size (bytes), being wrong costs nothing.
MATTERS_NBYTES = 64 * KB


def assert_not_too_light(value):
    pickled = serialize(value).nbytes
    if pickled > MATTERS_NBYTES:
        assert nbytes_of(value) >= pickled / 2


@pytest.mark.parametrize("name", list(all_kinds()))
def test_no_kind_of_value_is_weighed_too_light(name):
    assert_not_too_light(kinds(300 * KB)[name]())


ARRAY = np.arange(10_000)
ARGUMENTS = {
    "array": [ARRAY],
    "small arrays": [np.arange(3), np.ones((2, 2), "f4")],
    "one array twice": [ARRAY, ARRAY],
    "views": [ARRAY[::2], np.broadcast_to(np.ones(1), (1000,))],
    "numbers": [1, 2.5, True, None, 3j, 1 << 900],
    "strings": ["a" * 1000, b"b" * 1000, bytearray(10)],
    "one number many times": [1.5] * 10_000,
    "one string many times": ["ab"] * 10_000,
    "in a list": [[ARRAY]],
    "of objects": [np.array([ARRAY, 1], "O")],
}


@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)
def test_a_simple_task_weighs_what_it_does_when_it_is_opened(arguments, monkeypatch):
    task = Task("key", functools.singledispatch, *arguments)
    at_once = sizes.nbytes_of_all([task], Pickles())
    monkeypatch.setattr(sizes, "_nbytes_if_simple", lambda *args: None)
    opened = sizes.nbytes_of_all([task], Pickles())
    assert at_once == pytest.approx(opened, abs=20)


def test_functions_of_a_package_that_is_pickled_by_value():
    module = types.ModuleType("package_by_value.part")
    exec("def function():\n    return table", vars(module))
    module.table = ARRAY
    packages = {"package_by_value": types.ModuleType("package_by_value")}
    with mock.patch.dict(sys.modules, packages | {module.__name__: module}):
        assert nbytes_of(module.function) < ARRAY.nbytes
        cloudpickle.register_pickle_by_value(packages["package_by_value"])
        try:
            assert_not_too_light(module.function)
            assert nbytes_of(module.function) >= ARRAY.nbytes
        finally:
            cloudpickle.unregister_pickle_by_value(packages["package_by_value"])


# Some make a model, which takes long.
QUICK = [k for k in all_kinds().values() if "random forest" not in k.name]

of_kinds = st.builds(
    lambda kind, nbytes: kind.make(nbytes),
    st.sampled_from(QUICK),
    st.sampled_from([4 * KB, 20 * KB, 100 * KB, 300 * KB]),
)
small = st.one_of(
    st.none(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.binary(max_size=2000),
    st.integers(1, 3000).map(lambda n: np.arange(float(n))),
)


def closure_over(value):
    return lambda: value


def with_attribute(make, value):
    made = make()
    made.note = value
    return made


def object_array(values):
    made = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        made[i] = value  # all at once, NumPy asks some for an array
    return made


def structured_array(values):
    made = np.zeros(len(values), [("n", "i4"), ("cell", "O")])
    made["cell"] = object_array(values)
    return made


def series_of(values):
    pd = pytest.importorskip("pandas", reason="daskps does without it")
    return pd.Series(object_array(values))


def nestings(inside):
    """Values with other values within."""
    lists = st.lists(inside, max_size=5)
    keys = st.one_of(st.text(max_size=3), st.integers(), st.binary(max_size=200))
    return st.one_of(
        lists,
        lists.map(tuple),
        st.dictionaries(keys, inside, max_size=4),
        # Far more of one than are looked at each.
        st.builds(lambda value, n: [value, *range(n)], inside, st.integers(0, 500)),
        st.builds(
            lambda value, n: [*(classes.Slotted(i) for i in range(n)), value],
            inside.map(classes.Slotted),
            st.integers(0, 300),
        ),
        *(
            inside.map(of)
            for of in (
                *classes.HOLDERS,
                classes.WithNewArguments,
                classes.Registered,
                closure_over,
                functools.partial(functools.partial, print),
                lambda value: functools.partial(print, end=value),
                lambda value: classes.Box([value]).first,
                lambda value: slice(value, None),
                lambda value: classes.Pair(value, 1),
                lambda value: {"key": value}.get,
                lambda value: [value].index,
                *(
                    functools.partial(with_attribute, make)
                    for make in (
                        classes.DictWith,
                        classes.ListWith,
                        classes.StrWith,
                        classes.SetWith,
                        lambda: lambda: None,
                    )
                ),
            )
        ),
        lists.map(object_array),
        lists.map(structured_array),
        lists.map(series_of),
    )


# Libraries draw random numbers when they make an object of some kinds.
@pytest.mark.filterwarnings("ignore:Do not use the .random. module")
@pytest.mark.parametrize(
    "examples",
    [pytest.param(80, id="few"), pytest.param(500, id="many", marks=pytest.mark.slow)],
)
def test_no_value_is_weighed_too_light(examples):
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.recursive(st.one_of(of_kinds, small), nestings, max_leaves=8))
    def check(value):
        assert_not_too_light(value)

    check()
