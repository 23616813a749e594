"""Many shapes of work, small and large, common and odd: is any slower with daskps?

Each is what a user's program does between having its data and having its result. To add
one: how it is called, the data, what is done with them, and what must come out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
from distributed import Client, Future, wait

from benchmarks import tasks
from benchmarks.peers import BOTH
from benchmarks.scenario import KB, MB, Scenario, Work, fresh

#: The group of all shapes.
GROUP = "shapes"

_numbers = itertools.count()


def shapes(scale: float = 1.0) -> list[Scenario]:
    """All shapes.

    Parameters
    ----------
    scale
        Multiplies the sizes of data and the numbers of tasks, rows, columns and partitions.
    """
    return [
        *_futures(scale),
        *_scattered(scale),
        *_arrays(scale),
        *_frames(scale),
        *_bags_and_delayed(scale),
    ]


def _shape(
    name: str,
    nbytes: float,
    make: Callable[[], Any],
    do: Callable[[Client, Any], Any],
    expected: Callable[[Any], Any],
) -> Scenario:
    """One shape.

    Parameters
    ----------
    name
        For the table; sizes are those of the full scale.
    nbytes
        About how much data there is.
    make
        Makes data that nobody has seen before; not timed.
    do
        Given the client and the data, gives a result; timed.
    expected
        What the result must be, given the data; not timed.
    """

    def check(data: Any, result: Any) -> None:
        _assert_equal(result, expected(data))

    return Scenario(
        name,
        Work(lambda client: make(), lambda client, data, ship: do(client, data), check),
        None,
        BOTH,
        GROUP,
        nbytes=int(nbytes),
    )


def _of(scale: float) -> Callable[[float], int]:
    return lambda n: max(1, int(n * scale))


def _futures(scale: float) -> list[Scenario]:
    """``submit`` and ``map``."""
    of = _of(scale)

    def submit(name: str, nbytes: float) -> Scenario:
        return _shape(
            f"submit, {name} in",
            of(nbytes),
            lambda: fresh(of(nbytes)),
            lambda client, x: client.submit(tasks.first, x, pure=False).result(),
            lambda x: x[0],
        )

    def fetch(name: str, nbytes: float) -> Scenario:
        return _shape(
            f"submit, {name} out",
            of(nbytes),
            lambda: of(nbytes),
            lambda client, n: client.submit(tasks.make, n, pure=False).result(),
            tasks.make,
        )

    return [
        submit("10 kB", 10 * KB),
        submit("200 kB", 200 * KB),
        submit("1.6 MB", 1.6 * MB),
        submit("256 MB", 256 * MB),
        fetch("10 kB", 10 * KB),
        fetch("1.6 MB", 1.6 * MB),
        fetch("64 MB", 64 * MB),
        _shape(
            "200 submits of 10 kB",
            of(200) * of(10 * KB),
            lambda: [fresh(of(10 * KB)) for _ in range(of(200))],
            lambda c, xs: c.gather([c.submit(tasks.first, x, pure=False) for x in xs]),
            lambda xs: [x[0] for x in xs],
        ),
        _shape(
            "map of 1,000 numbers",
            0,
            lambda: range(of(1000)),
            lambda c, xs: c.gather(c.map(tasks.increment, xs, pure=False)),
            lambda xs: [x + 1 for x in xs],
        ),
        _shape(
            "map over 20 arrays of 1.6 MB",
            20 * of(1.6 * MB),
            lambda: [fresh(of(1.6 * MB)) for _ in range(20)],
            lambda c, xs: c.gather(c.map(tasks.first, xs, pure=False)),
            lambda xs: [x[0] for x in xs],
        ),
        _shape(
            "map with a closure over 4 MB",
            of(4 * MB),
            lambda: fresh(of(4 * MB)),
            lambda c, x: c.gather(c.map(lambda i: float(x[i]), range(10), pure=False)),
            lambda x: [x[i] for i in range(10)],
        ),
        _shape(
            "model of 16 MB in 10 submits",
            of(16 * MB),
            lambda: tasks.Model(fresh(of(16 * MB))),
            lambda c, model: c.gather(
                [c.submit(tasks.predict, model, i, pure=False) for i in range(10)]
            ),
            lambda model: [model.predict(i) for i in range(10)],
        ),
        _shape(
            "submit of nested containers, 2,000 small arrays",
            of(2000) * 800,
            lambda: {"a": [{"b": fresh(800)} for _ in range(of(2000))]},
            lambda c, x: c.submit(len, x, pure=False).result(),
            len,
        ),
        _shape(
            "submit of a list of 100,000 numbers",
            of(100_000) * 8,
            lambda: list(range(of(100_000))),
            lambda c, x: c.submit(sum, x, pure=False).result(),
            sum,
        ),
    ]


def _scattered(scale: float) -> list[Scenario]:
    """``scatter``, alone and for tasks."""
    of = _of(scale)

    def scatter(name: str, n: int, nbytes: float, **options: Any) -> Scenario:
        return _shape(
            f"scatter {name}",
            n * of(nbytes),
            lambda: [fresh(of(nbytes)) for _ in range(n)],
            lambda c, xs: c.scatter(xs, hash=False, **options),
            lambda xs: xs,
        )

    def use(client: Client, x: Any) -> Any:
        future = client.scatter(x, hash=False)
        return client.gather([client.submit(tasks.first, future, i) for i in range(20)])

    return [
        scatter("10 kB", 1, 10 * KB),
        scatter("200 kB", 1, 200 * KB),
        scatter("1.6 MB", 1, 1.6 * MB),
        scatter("10 x 1.6 MB", 10, 1.6 * MB),
        scatter("100 x 10 kB", of(100), 10 * KB),
        scatter("16 MB", 1, 16 * MB),
        scatter("128 MB", 1, 128 * MB),
        scatter("1.6 MB, broadcast", 1, 1.6 * MB, broadcast=True),
        _shape(
            "scatter 4 MB for 20 tasks",
            of(4 * MB),
            lambda: fresh(of(4 * MB)),
            use,
            lambda x: [x[i % len(x)] for i in range(20)],
        ),
    ]


def _arrays(scale: float) -> list[Scenario]:
    of = _of(scale)

    def blocks(nbytes: float, n: int) -> Callable[[], tuple[np.ndarray, Any]]:
        def make() -> tuple[np.ndarray, Any]:
            x = fresh(of(nbytes))
            return x, da.from_array(x, chunks=-(-len(x) // n), name=False)

        return make

    def square(side: int, chunk: int) -> Callable[[], tuple[np.ndarray, Any]]:
        def make() -> tuple[np.ndarray, Any]:
            x = fresh(8 * side * side).reshape(side, side)
            return x, da.from_array(x, chunks=chunk, name=False)

        return make

    def persist(client: Client, prepared: tuple[np.ndarray, Any]) -> Any:
        x = prepared[1].persist()
        wait(x)
        return x.sum().compute()

    def total(client: Client, prepared: tuple[np.ndarray, Any]) -> Any:
        return prepared[1].sum().compute()

    def expected_total(prepared: tuple[np.ndarray, Any]) -> Any:
        return prepared[0].sum()

    side = max(8, int(4000 * scale**0.5))
    return [
        _shape(
            "array 80 kB, sum", of(80 * KB), blocks(80 * KB, 4), total, expected_total
        ),
        _shape("array 4 MB, sum", of(4 * MB), blocks(4 * MB, 4), total, expected_total),
        _shape(
            "array 256 MB, sum",
            of(256 * MB),
            blocks(256 * MB, 64),
            total,
            expected_total,
        ),
        _shape(
            "array 16 MB in 1,000 blocks, sum",
            of(16 * MB),
            blocks(16 * MB, of(1000)),
            total,
            expected_total,
        ),
        _shape(
            "array 128 MB, a slice of 10 x 10",
            8 * side * side,
            square(side, side // 4),
            lambda c, p: p[1][:10, :10].compute(),
            lambda p: p[0][:10, :10],
        ),
        _shape(
            "array 128 MB, rechunked, sum",
            8 * side * side,
            square(side, side // 4),
            lambda c, p: p[1].rechunk((side // 8, side)).sum().compute(),
            expected_total,
        ),
        _shape(
            "array 16 MB, persist, sum",
            of(16 * MB),
            blocks(16 * MB, 16),
            persist,
            expected_total,
        ),
        _shape(
            "array of ones in 500 blocks, sum",
            0,
            lambda: of(500),
            lambda c, n: da.ones(n * 1000, chunks=1000).sum().compute(),
            lambda n: n * 1000,
        ),
        _shape(
            "map_blocks with 4 MB beside, 8 blocks",
            of(4 * MB),
            lambda: fresh(of(4 * MB)),
            lambda c, x: (
                da.ones(8, chunks=1).map_blocks(tasks.plus_first, x, dtype=float)
            ).compute(),
            lambda x: np.full(8, 1 + x[0]),
        ),
        _shape(
            "array result of 64 MB",
            of(64 * MB),
            lambda: of(64 * MB) // 8,
            lambda c, n: da.ones(n, chunks=-(-n // 8)).compute(),
            np.ones,
        ),
        _shape(
            "array of 20,000 objects",
            of(20_000) * 60,
            lambda: np.array([str(x) for x in fresh(8 * of(20_000))], dtype=object),
            lambda c, x: da.from_array(x, chunks=len(x) // 4 or 1).compute(),
            lambda x: x,
        ),
    ]


def _frames(scale: float) -> list[Scenario]:
    of = _of(scale)

    def shape(
        name: str,
        nbytes: float,
        frame: Callable[[], pd.DataFrame],
        npartitions: int,
        do: Callable[[Any], Any],
    ) -> Scenario:
        def make() -> tuple[pd.DataFrame, Any]:
            data = frame()
            # Dask hashes the frame here, to name it.
            return data, dd.from_pandas(data, npartitions=npartitions)

        return _shape(
            f"frame {name}",
            of(nbytes),
            make,
            lambda client, p: do(p[1]).compute(),
            lambda p: do(p[0]),
        )

    def floats(rows: int, columns: int) -> Callable[[], pd.DataFrame]:
        names = [f"c{i}" for i in range(columns)]
        return lambda: pd.DataFrame(
            fresh(8 * rows * columns).reshape(rows, columns), columns=names
        )

    def named() -> pd.DataFrame:
        x = fresh(8 * of(100_000))
        names = np.array([f"name {i}" for i in range(100)])
        return pd.DataFrame({"name": names[(x * 100).astype(int)], "x": x})

    def objects() -> pd.DataFrame:
        return named().assign(items=lambda df: [{"x": x} for x in df.x])

    def by_time() -> pd.DataFrame:
        df = floats(of(500_000), 4)()
        return df.set_index(pd.date_range("2000", periods=len(df), freq="s"))

    def repeated() -> pd.DataFrame:
        df = floats(of(500_000), 4)()
        return df.set_index(np.arange(len(df)) // 3)

    def categorical() -> pd.DataFrame:
        return named().astype({"name": "category"})

    def by_name(df: Any) -> Any:
        return df.groupby("name", observed=True).x.sum().max()

    def mean(df: Any) -> Any:
        return df.mean()

    def sort(df: Any) -> Any:
        return df.sort_values("c0")

    return [
        shape("100 kB, mean", 100 * KB, floats(of(3000), 4), 4, mean),
        shape("3.2 MB, mean", 3.2 * MB, floats(of(100_000), 4), 4, mean),
        shape("4,000,000 rows x 8, mean", 256 * MB, floats(of(4_000_000), 8), 16, mean),
        shape("500 rows x 2,000, mean", 8 * MB, floats(500, of(2000)), 4, mean),
        shape(
            "16 MB, 200 partitions, mean",
            16 * MB,
            floats(of(250_000), 8),
            of(200),
            mean,
        ),
        shape("16 MB by time, mean", 16 * MB, by_time, 16, mean),
        shape("16 MB, index with duplicates, mean", 16 * MB, repeated, 16, mean),
        shape("of strings, groupby", 2 * MB, named, 8, by_name),
        shape("of categories, groupby", 1 * MB, categorical, 8, by_name),
        shape("of dictionaries, sum", 20 * MB, objects, 8, lambda df: df.x.sum()),
        shape(
            "64 MB, a column of 8",
            64 * MB,
            floats(of(1_000_000), 8),
            8,
            lambda df: df.c0.sum(),
        ),
        shape("16 MB, sorted by a column", 16 * MB, floats(of(250_000), 8), 8, sort),
        shape(
            "64 MB as a result", 64 * MB, floats(of(1_000_000), 8), 8, lambda df: df + 1
        ),
    ]


def _bags_and_delayed(scale: float) -> list[Scenario]:
    of = _of(scale)

    def bag(items: list[Any], n: int) -> tuple[list[Any], Any]:
        return items, db.from_sequence(items, npartitions=n)

    def tree(client: Client, xs: list[np.ndarray]) -> Any:
        values = [dask.delayed(tasks.first)(dask.delayed(x)) for x in xs]
        return dask.delayed(sum)(values).compute()

    return [
        _shape(
            "bag of 50,000 small dicts",
            of(50_000) * 80,
            lambda: bag(
                [{"id": i, "name": f"{next(_numbers)}"} for i in range(of(50_000))], 16
            ),
            lambda c, p: p[1].pluck("id").sum().compute(),
            lambda p: sum(item["id"] for item in p[0]),
        ),
        _shape(
            "bag of 20,000 strings, 100 partitions",
            of(20_000) * 60,
            lambda: bag([f"{next(_numbers)}" for _ in range(of(20_000))], of(100)),
            lambda c, p: p[1].map(len).sum().compute(),
            lambda p: sum(map(len, p[0])),
        ),
        _shape(
            "bag of 100 arrays of 200 kB",
            100 * of(200 * KB),
            lambda: bag([fresh(of(200 * KB)) for _ in range(100)], 10),
            lambda c, p: p[1].map(tasks.first).compute(),
            lambda p: [x[0] for x in p[0]],
        ),
        _shape(
            "300 delayed numbers",
            0,
            lambda: list(range(of(300))),
            lambda c, xs: dask.delayed(sum)(
                [dask.delayed(tasks.increment)(x, pure=False) for x in xs]
            ).compute(),
            lambda xs: sum(xs) + len(xs),
        ),
        _shape(
            "10 delayed arrays of 1.6 MB",
            10 * of(1.6 * MB),
            lambda: [fresh(of(1.6 * MB)) for _ in range(10)],
            tree,
            lambda xs: sum(x[0] for x in xs),
        ),
        _shape(
            "delayed, a list of 50 arrays of 200 kB",
            50 * of(200 * KB),
            lambda: [fresh(of(200 * KB)) for _ in range(50)],
            lambda c, xs: dask.delayed(len)(xs).compute(),
            len,
        ),
    ]


def _assert_equal(result: Any, expected: Any) -> None:
    """Whether a result is right: of whatever type."""
    if isinstance(result, list) and result and isinstance(result[0], Future):
        result = [future.result() for future in result]
    if isinstance(expected, (pd.DataFrame, pd.Series)):
        compare = (
            pd.testing.assert_frame_equal
            if isinstance(expected, pd.DataFrame)
            else pd.testing.assert_series_equal
        )
        compare(result, expected, check_index_type=False, check_names=False)
    elif isinstance(expected, np.ndarray) and expected.dtype == object:
        np.testing.assert_array_equal(result, expected)
    else:
        np.testing.assert_allclose(result, expected)
