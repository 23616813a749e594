"""Data of Dask's collections: arrays, data frames and bags, sent and fetched."""

from __future__ import annotations

from typing import Any

import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
from distributed import Client, wait

from benchmarks import tasks
from benchmarks.peers import BOTH, ZARR
from benchmarks.scenario import Scenario, Ship, Work, fresh, on_workers, same, size

# Columns of data frames.
COLUMNS = 32
# Blocks that arrays consist of, and partitions of frames and bags.
CHUNKS, PARTITIONS = 64, 16


def _compute(client: Client, prepared: tuple[Any, Any], ship: Ship) -> Any:
    return prepared[1].compute()


def array_sum(nbytes: int) -> Scenario:
    """A NumPy array, chunked and summed."""

    def prepare(client: Client) -> tuple[np.ndarray, Any]:
        # name=False: else Dask hashes the array, which takes longer than all the rest.
        x = fresh(nbytes)
        return x, da.from_array(x, chunks=_chunk(nbytes), name=False).sum()

    def do(client: Client, prepared: tuple[np.ndarray, Any], ship: Ship) -> Any:
        x, total = prepared
        shipped = ship(x)
        if isinstance(shipped, tasks.InZarr):
            total = da.from_zarr(shipped.path).sum()
        return total.compute()

    return Scenario(
        f"from_array {size(nbytes)}, sum",
        Work(prepare, do, lambda p, result: _close(result, p[0].sum())),
        Work(lambda c: (None, _ones_on_workers(nbytes).sum()), _compute),
        (*BOTH, ZARR),
        "collections",
        nbytes=nbytes,
    )


def second_compute(nbytes: int) -> Scenario:
    """The second computation on one array: the first one is part of the preparation."""

    def prepare(client: Client) -> tuple[np.ndarray, Any]:
        x = fresh(nbytes)
        array = da.from_array(x, chunks=_chunk(nbytes), name=False)
        array.sum().compute()
        return x, array.mean()

    return Scenario(
        f"second compute() on {size(nbytes)}",
        Work(prepare, _compute, lambda p, result: _close(result, p[0].mean())),
        Work(lambda c: (None, _ones_on_workers(nbytes).mean()), _compute),
        BOTH,
        "collections",
        nbytes=nbytes,
    )


def frame_mean(nbytes: int) -> Scenario:
    """A pandas frame, and the mean of each column."""

    def prepare(client: Client) -> tuple[pd.DataFrame, Any]:
        frame = _frame(nbytes)
        return frame, dd.from_pandas(frame, npartitions=PARTITIONS).mean()

    def prepare_limit(client: Client) -> tuple[Any, Any]:
        rows = nbytes // 8 // COLUMNS // PARTITIONS
        parts = [rows] * PARTITIONS
        frame = dd.from_pandas(_frame(nbytes), npartitions=PARTITIONS)
        return frame, on_workers(dd.from_map(tasks.make_frame, parts)).mean()

    def limit(client: Client, prepared: tuple[Any, Any], ship: Ship) -> None:
        # Dask looks at the whole index to find divisions, and keeps them: once for each
        # collection, and part of computing it.
        assert len(prepared[0].divisions) == PARTITIONS + 1
        prepared[1].compute()

    return Scenario(
        f"from_pandas {size(nbytes)}, mean",
        Work(prepare, _compute, lambda p, result: _close(result, p[0].mean())),
        Work(prepare_limit, limit),
        BOTH,
        "collections",
        nbytes=nbytes,
    )


def bag_of_bytes(nbytes: int) -> Scenario:
    """A bag of bytes objects, whose checksums are computed."""
    blob = nbytes // PARTITIONS // 16

    def prepare(client: Client) -> tuple[list[bytes], Any]:
        data = fresh(nbytes).tobytes()
        blobs = [data[i : i + blob] for i in range(0, nbytes, blob)]
        # Dask hashes the whole sequence here, to name the bag.
        bag = db.from_sequence(blobs, npartitions=PARTITIONS)
        return blobs, bag.map(tasks.crc)

    def prepare_limit(client: Client) -> tuple[None, Any]:
        sizes = db.from_sequence([blob] * 16 * PARTITIONS, npartitions=PARTITIONS)
        return None, on_workers(sizes.map(bytes)).map(tasks.crc)

    def check(prepared: tuple[list[bytes], Any], result: list[int]) -> None:
        same(result, map(tasks.crc, prepared[0]))

    return Scenario(
        f"bag of {size(nbytes)} of bytes",
        Work(prepare, _compute, check),
        Work(prepare_limit, _compute),
        BOTH,
        "collections",
        nbytes=nbytes,
    )


def cholesky(n: int, block: int) -> Scenario:
    """The Cholesky factor of a NumPy matrix, which stays on the workers."""

    def prepare(client: Client) -> np.ndarray:
        # Diagonally dominant, therefore positive definite; cheaper than a product.
        a = fresh(8 * n * n).reshape(n, n)
        a += a.T
        a[np.diag_indices(n)] += 2 * n
        return a

    def do(client: Client, a: np.ndarray, ship: Ship) -> Any:
        x = da.from_array(a, chunks=(block, block), name=False)
        return on_workers(da.linalg.cholesky(x, lower=True))

    def check(a: np.ndarray, result: Any) -> None:
        first = result[:block, :block].compute()
        _close(first @ first.T, a[:block, :block])

    return Scenario(
        f"Cholesky {n}, blocks of {block}",
        Work(prepare, do, check),
        Work(
            lambda client: on_workers(da.eye(n, chunks=block) * 2 * n + 1),
            lambda client, x, ship: on_workers(da.linalg.cholesky(x, lower=True)),
        ),
        BOTH,
        "collections",
        nbytes=8 * n * n,
    )


def large_result(nbytes: int) -> Scenario:
    """An array that is made on the workers comes back.

    The limit makes the same array, in one piece on one worker, and leaves it there.
    """

    def check(x: Any, result: np.ndarray) -> None:
        assert result.shape == x.shape, "a wrong shape"
        assert result.min() == result.max() == 1, "a wrong value"

    def leave(client: Client, x: Any, ship: Ship) -> None:
        wait(client.compute(x))

    return Scenario(
        f"{size(nbytes)} result of compute()",
        Work(
            lambda client: da.ones(nbytes // 8, chunks=_chunk(nbytes)),
            lambda client, x, ship: x.compute(),
            check,
        ),
        Work(
            lambda client: da.ones(nbytes // 8, chunks=_chunk(nbytes)),
            leave,
        ),
        BOTH,
        "collections",
        nbytes=nbytes,
    )


def in_one_piece(nbytes: int) -> list[Scenario]:
    """Collections of a single block, whose copies are counted.

    The tasks only look at the data, and make no copy of it.
    """

    def array(client: Client) -> Any:
        x = da.from_array(fresh(nbytes), chunks=-1, name=False)
        return None, x.map_blocks(tasks.first_of_block, dtype=float, chunks=((1,),))

    def frame(client: Client) -> Any:
        x = dd.from_pandas(_frame(nbytes), npartitions=1)
        return None, x.map_partitions(tasks.first_row)

    def bag(client: Client) -> Any:
        x = db.from_sequence([fresh(nbytes).tobytes()], npartitions=1)
        return None, x.map(len)

    return [
        Scenario(
            f"{name} {size(nbytes)}, one block",
            Work(prepare, _compute),
            None,
            BOTH,
            "one block",
            nbytes=nbytes,
            in_one_piece=True,
        )
        for name, prepare in (
            ("from_array", array),
            ("from_pandas", frame),
            ("bag of bytes", bag),
        )
    ]


def _frame(nbytes: int) -> pd.DataFrame:
    """A pandas frame of about this size that nobody has seen before."""
    row = 8 * COLUMNS
    return pd.DataFrame(fresh(nbytes // row * row).reshape(-1, COLUMNS))


def _chunk(nbytes: int) -> int:
    return max(1, nbytes // 8 // CHUNKS)


def _ones_on_workers(nbytes: int) -> Any:
    return on_workers(da.ones(nbytes // 8, chunks=_chunk(nbytes)))


def _close(result: Any, expected: Any) -> None:
    np.testing.assert_allclose(result, expected)
