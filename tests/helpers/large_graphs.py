"""Graphs that are large for reasons that users have met, with the variable at fault.

The first five are what threads of Dask's users describe; which one is said beside each.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
from distributed import Client

MIB = 1 << 20


def random(nbytes: int, seed: int = 0) -> np.ndarray:
    """Data of a size (bytes) that does not compress."""
    return np.random.default_rng(seed).random(nbytes // 8)


@dataclass
class LargeGraph:
    """A graph that is large for a reason.

    Attributes
    ----------
    arguments
        What :func:`daskps.explain` takes.
    compute
        Computes the same; the result is small.
    fault
        What the explanation has to say: the variable at fault, in words of its rows.
    keywords
        Keyword arguments of :func:`daskps.explain`.
    """

    arguments: tuple[Any, ...]
    compute: Callable[[Client], Any]
    fault: list[str]
    keywords: dict[str, Any]


def _collections(*collections: Any, fault: list[str]) -> LargeGraph:
    return LargeGraph(
        collections,
        lambda client: client.gather(client.compute(list(collections))),
        fault,
        {},
    )


def _map(
    function: Callable[..., Any], *iterables: Any, fault: list[str], **keywords: Any
) -> LargeGraph:
    def compute(client: Client) -> Any:
        futures = client.map(function, *iterables, pure=False, **keywords)
        return client.gather(futures)

    return LargeGraph((Client.map, function, *iterables), compute, fault, keywords)


def look_up(block: int, index: Any) -> int:
    """A task with an index."""
    return block + len(index)


def index_in_every_task() -> LargeGraph:
    """pydata/xarray#8409: every task of ``map_blocks`` has all of the index."""
    index = pd.Index(random(2 * MIB), name="points")
    blocks = [dask.delayed(look_up)(i, index=index) for i in range(20)]
    return _collections(*blocks, fault=["in look_up, argument index", "20"])


def infer(expression: pd.DataFrame, gene: str) -> float:
    """A task with a frame."""
    return float(expression[gene].sum())


def frame_in_every_task() -> LargeGraph:
    """dask/dask#11562: a graph of 11.52 GiB, of one frame that each task takes."""
    matrix = pd.DataFrame({f"gene{i}": random(MIB // 2, i) for i in range(8)})
    tasks = [dask.delayed(infer)(matrix, gene) for gene in matrix.columns]
    return _collections(*tasks, fault=["in infer, argument expression"])


def run_workflow(paths: list[str]) -> int:
    """A task with a little data."""
    return len(paths)


def many_small_ones() -> LargeGraph:
    """danforthcenter/plantcv#1773: 46,645 workflows, 13 MiB together."""
    command = "/usr/bin/plantcv-workflow.py" + " --option=value" * 16
    workflows = [[f"{command} {i} {j}" for j in range(60)] for i in range(800)]
    return _map(run_workflow, workflows, fault=["in run_workflow, argument paths"])


def of_column(column: pd.Series) -> pd.Series:
    """A task on a column."""
    return column.iloc[:1]


def pandas_frame() -> LargeGraph:
    """dask/dask#5585: ``map_partitions`` on a column of ``from_pandas``."""
    frame = pd.DataFrame({"text": random(16 * MIB), "n": np.arange(2 * MIB)})
    data = dd.from_pandas(frame, npartitions=4)
    lazy = data["text"].map_partitions(of_column, meta=("text", "f8"))
    return _collections(lazy, fault=["pandas.DataFrame", "frompandas", "['text']"])


def index_array() -> LargeGraph:
    """pydata/xarray#9802: what is selected is in the graph."""
    x = da.ones(4 * MIB, chunks=MIB, dtype="i1")
    chosen = np.random.default_rng(0).permutation(4 * MIB)
    return _collections(x[chosen].sum(), fault=["index array"])


def closure() -> LargeGraph:
    """A function that has captured an array, in 20 tasks."""
    table = {"emb": random(4 * MIB), "bias": 0.0}

    def score(i: int) -> float:
        return float(table["emb"][i] + table["bias"])

    return _map(score, range(20), fault=["score", "table['emb'] (captured)", "20"])


def list_of_isin() -> LargeGraph:
    """The list of ``isin``."""
    frame = dd.from_pandas(pd.DataFrame({"a": np.arange(1000)}), npartitions=4)
    names = [f"name of a customer {i:8}" for i in range(400_000)]
    return _collections(frame.a.isin(names).sum(), fault=["taken by isin"])


class Config:
    """A configuration with weights of layers."""

    def __init__(self, weights: list[np.ndarray]):
        self.weights = weights


def forward(x: int, **kwargs: Any) -> float:
    """A task with a keyword."""
    return x + float(kwargs["cfg"].weights[3][0])


def keyword_of_map() -> LargeGraph:
    """A configuration that is a keyword of ``Client.map``."""
    cfg = Config([random(100, i) for i in range(3)] + [random(3 * MIB)])
    fault = ["kwargs['cfg']", "kwargs['cfg'].weights[3]"]
    return _map(forward, range(20), cfg=cfg, fault=fault)


def equal_copies() -> LargeGraph:
    """300 equal copies, each large, made one by one."""
    add = functools.partial(look_up, 1)
    copies = [dask.delayed(add)(random(MIB // 2)) for _ in range(300)]
    return _collections(*copies, fault=["300 equal x", "argument index"])


def blocks_of_an_array() -> LargeGraph:
    """Data of which a tenth is wanted."""
    data = random(40 * MIB).reshape(-1, 16)
    x = da.from_array(data, chunks=(len(data) // 10, 16), name="measured")
    wanted = x[: len(data) // 10].sum()
    return _collections(wanted, fault=["in measured", "No task that is needed"])


GRAPHS = [
    index_in_every_task,
    frame_in_every_task,
    many_small_ones,
    pandas_frame,
    index_array,
    closure,
    list_of_isin,
    keyword_of_map,
    equal_copies,
    blocks_of_an_array,
]
