"""Tests that differ with daskps, and may."""

from __future__ import annotations

# A worker stops listening, and the test supposes that the scheduler has no connection to it
# that is open. Telling the workers which store to open has opened one, as any Client.run
# before would have.
_CONNECTED = "supposes that the scheduler was never connected to a worker"

# Tasks in the same process return the very object that they were given. What was stored is
# a copy, as it is with scheduler="processes" in plain Dask.
_IDENTITY = "asks whether the result is the same object, not whether it is equal"

# A DecimalDtype compares its decimal.Context by identity, so that pandas joins partitions
# that were pickled as objects. So it does in plain Dask with processes, and distributed.
_CONTEXT = "asks whether a type is the same object after it was pickled"

_NOT_IN_GRAPH = "large values are not in the graph, and so there is no warning of them"
_UNPICKLED = "the task raises the value's own error, where Dask fails the whole graph"

#: Reasons by id; an id without parameters stands for all of them.
EXPECTED: dict[str, str] = {
    "dask/tests/test_delayed.py::test_traverse_false": _IDENTITY,
    "dask/bag/tests/test_bag.py::test_repartition_partition_size_complex_dtypes": (
        _IDENTITY
    ),
    "dask/dataframe/tests/test_extensions.py::test_register_extension_type": _CONTEXT,
    "test_client.py::test_run_rpc_error": _CONNECTED,
    "test_client.py::test_get_versions_rpc_error": _CONNECTED,
    "test_client.py::test_warn_when_submitting_large_values": _NOT_IN_GRAPH,
    "test_client.py::test_warn_when_submitting_large_values_memoryview": _NOT_IN_GRAPH,
    "test_client.py::test_map_large_kwargs_in_graph": "the keyword is not in the graph",
    "test_client.py::test_robust_undeserializable": _UNPICKLED,
    "test_client.py::test_robust_undeserializable_function": _UNPICKLED,
    "test_client.py::test_count_serialization": (
        "a value is pickled once more, to find out how large it is"
    ),
    # Longer than the test allows.
    "test_client.py::test_repr[str]": "the client's repr says what is switched on",
    "test_client.py::test_repr[repr]": "the client's repr says what is switched on",
}
