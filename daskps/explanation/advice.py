"""What to do about a large value, in a line."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np

from daskps.explanation.values import Travels
from daskps.objects.frame_sizes import is_frame

#: A value is data, if a task or a block is it and nothing else; a function, with what it
#: carries; or an argument.
Role: TypeAlias = Literal["data", "function", "argument"]


def advice(value: Any, travels: Travels, role: Role, tasks: int, copies: int) -> str:
    """A line for the table.

    Parameters
    ----------
    value
        One of those that are equal.
    travels
        How daskps would have it travel.
    role
        What it is in the tasks.
    tasks, copies
        How many tasks use it, and how many equal objects there are.
    """
    if travels == "unneeded":
        return (
            "No task that is needed uses it: take the part that you want before Dask."
        )
    if travels == "inline":
        return (
            f"Below the threshold, but sent {tasks} times: lower the threshold in "
            "daskps.proxy_graph(threshold=...)."
        )
    if travels == "packed":
        return "Small, but there are many: daskps.proxy_graph() packs them together."
    if role == "function":
        return (
            "daskps.proxy_graph() stores the function once; or make what it captures "
            "an argument."
        )
    if copies > 1:
        return (
            f"Make it once instead of {copies} times; daskps.proxy_graph() stores one."
        )
    if role == "data":
        return _of_data(value)
    if tasks > 1:
        return (
            f"daskps.proxy_graph() stores it once for {tasks} tasks; "
            "Client.scatter(..., broadcast=True) sends it to each worker."
        )
    return "daskps.proxy_graph() stores it; or load it in the task."


def _of_data(value: Any) -> str:
    if is_frame(type(value)):
        load = "dask.dataframe.read_parquet"
    elif isinstance(value, np.ndarray):
        load = "dask.array.from_zarr"
    else:
        load = "dask.delayed or dask.bag"
    return f"daskps.proxy_graph() stores it; or have tasks load it ({load})."
