"""What is run."""

from __future__ import annotations

from typing import NamedTuple


class Suite(NamedTuple):
    """Tests that are compared.

    Attributes
    ----------
    name
        For the command line.
    paths
        Relative to the directory that the `dask` package is in; for ``test_client.py``, to
        its own.
    quick
        A share of them that is representative and fast; none: not in a quick run.
    options
        For pytest, without and with daskps.
    environment
        Likewise.
    client
        Whether ``daskps.Client`` takes the client's place.
    """

    name: str
    paths: tuple[str, ...]
    quick: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    client: bool = False


_BASE = (
    "dask/tests/test_delayed.py",
    "dask/tests/test_base.py",
    "dask/tests/test_graph_manipulation.py",
    "dask/tests/test_composite_expr.py",
)

SUITES = (
    Suite("delayed", _BASE, _BASE),
    Suite(
        "array",
        ("dask/array/tests",),
        (
            "dask/array/tests/test_slicing.py",
            "dask/array/tests/test_map_blocks.py",
            "dask/array/tests/test_atop.py",
            "dask/array/tests/test_gufunc.py",
            "dask/array/tests/test_masked.py",
        ),
    ),
    Suite("bag", ("dask/bag/tests",), ("dask/bag/tests/test_random.py",)),
    Suite(
        "dataframe",
        ("dask/dataframe/tests",),
        (
            "dask/dataframe/tests/test_categorical.py",
            "dask/dataframe/tests/test_indexing.py",
        ),
    ),
    Suite(
        "expressions",
        ("dask/dataframe/dask_expr/tests",),
        (
            "dask/dataframe/dask_expr/tests/test_merge.py",
            "dask/dataframe/dask_expr/tests/test_fusion.py",
        ),
    ),
    Suite(
        "array-expressions",
        ("dask/array/tests",),
        environment={"DASK_ARRAY__QUERY_PLANNING": "true"},
    ),
    Suite(
        "processes",
        (
            "dask/array/tests/test_array_core.py",
            "dask/array/tests/test_slicing.py",
            "dask/dataframe/dask_expr/tests/test_collection.py",
        ),
        options=("--daskps-processes",),
    ),
    Suite("client", ("test_client.py",), client=True),
)
