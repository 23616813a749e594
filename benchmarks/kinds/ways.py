"""The ways on which a value comes to a task, or from one."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import dask
import dask.array as da
import dask.bag as db
import numpy as np
from distributed import Client

from benchmarks.kinds.catalogue import made
from benchmarks.kinds.kind import Kind

#: What a task does with a value that came to it.
Look = Callable[[Any], Any]
#: Takes a client, a kind, bytes, and what a task does with the value; gives what came out.
Way = Callable[[Client, Kind, int, Look], Any]


def positional(client: Client, kind: Kind, nbytes: int, look: Look) -> Any:
    """An argument."""
    return client.submit(look, kind.make(nbytes), pure=False).result()


def keyword(client: Client, kind: Kind, nbytes: int, look: Look) -> Any:
    """A keyword argument."""
    value = kind.make(nbytes)
    return client.submit(_by_keyword, look, value=value, pure=False).result()


def _by_keyword(look: Look, *, value: Any) -> Any:
    return look(value)


def container(client: Client, kind: Kind, nbytes: int, look: Look) -> Any:
    """In a dictionary in a list, beside itself."""
    value = kind.make(nbytes)
    arguments = [{"value": value}, value]
    return client.submit(look, arguments, pure=False).result()


def closure(client: Client, kind: Kind, nbytes: int, look: Look) -> Any:
    """What a function carries."""
    value = kind.make(nbytes)
    return client.submit(lambda: look(value), pure=False).result()


def collection(client: Client, kind: Kind, nbytes: int, look: Look) -> Any:
    """In a collection of one part: an array, a frame, a bag, or a delayed value."""
    parts = _parts(kind.make(nbytes))
    name = f"look-{uuid.uuid4().hex}"
    looks = [
        dask.delayed(look)(part, dask_key_name=f"{name}-{i}")
        for i, part in enumerate(parts)
    ]
    return client.gather(client.compute(looks))


def _parts(value: Any) -> list[Any]:
    """The delayed parts of the collection that one would make of a value."""
    if isinstance(value, np.ndarray):
        return list(da.from_array(value, chunks=-1, name=False).to_delayed().ravel())
    if type(value) is list:
        return list(db.from_sequence(value, npartitions=1).to_delayed())
    if _is_plain_frame(value):
        import dask.dataframe as dd

        return list(dd.from_pandas(value, npartitions=1, sort=False).to_delayed())
    return [dask.delayed(value, name=f"value-{uuid.uuid4().hex}", traverse=False)]


def _is_plain_frame(value: Any) -> bool:
    if type(value).__module__.partition(".")[0] != "pandas":
        return False
    import pandas as pd

    if type(value) not in (pd.DataFrame, pd.Series):
        return False
    return not isinstance(value.index, pd.MultiIndex)  # which Dask does not take


def result(client: Client, kind: Kind, nbytes: int, look: Look) -> Any:
    """What a task returns."""
    return look(client.submit(made, kind.name, nbytes, pure=False).result())


def called(client: Client, kind: Kind, nbytes: int, look: Look) -> Any:
    """The function that is submitted; nothing for what cannot be called."""
    if kind.call is None:
        return None
    return look(client.submit(kind.make(nbytes), *kind.call, pure=False).result())


WAYS: list[Way] = [positional, keyword, container, closure, collection, result, called]


def type_name(value: object) -> str:
    """What a task looks at."""
    return type(value).__name__
