"""Functions that tasks run. Importable, so that they are pickled by name."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pandas as pd
from proxystore.proxy import Proxy, extract


def nothing(*args: Any) -> None:
    """Take anything, do nothing."""


def itself(value: Any) -> Any:
    """Give back a value."""
    return value


def view(array: np.ndarray) -> np.ndarray:
    """Give back an array, though not the very object, with which proxystore_ex fails."""
    return array[:]


def value_of(value: Any) -> Any:
    """Give back a value itself, also where it came as a proxy."""
    return extract(value) if type(value) is Proxy else value


def first(array: np.ndarray, i: int = 0) -> float:
    """Touch a little of an array."""
    return float(array[i % len(array)])


def first_of_block(array: np.ndarray) -> np.ndarray:
    """The beginning of an array, as an array of its own."""
    return array[:1].copy()


def first_row(frame: pd.DataFrame) -> pd.DataFrame:
    """The beginning of a data frame, as a frame of its own."""
    return frame.iloc[:1].copy()


def make(nbytes: int) -> np.ndarray:
    """An array of this size."""
    return np.ones(max(1, nbytes // 8))


def make_and_drop(nbytes: int) -> None:
    """What :func:`make` costs."""
    make(nbytes)


def make_frame(rows: int) -> pd.DataFrame:
    """A data frame of 32 columns."""
    return pd.DataFrame(np.ones((rows, 32)))


def crc(data: bytes) -> int:
    """Read some bytes."""
    return zlib.crc32(data)


def increment(x: int) -> int:
    """A small task."""
    return x + 1


def plus_first(block: np.ndarray, array: np.ndarray) -> np.ndarray:
    """Use two arrays, though little of one."""
    return block + array[0]


class InZarr:
    """An array in a Zarr directory, which tasks read as a whole."""

    def __init__(self, path: str, array: np.ndarray):
        import zarr  # other peers' workers are without it

        zarr.save_array(path, array)
        self.path = path

    def __len__(self) -> int:
        import zarr

        length: int = zarr.open_array(self.path, mode="r").shape[0]
        return length

    def __getitem__(self, i: int) -> float:
        import zarr

        value: float = zarr.load(self.path)[i]
        return value


class Model:
    """A model that is an array."""

    def __init__(self, weights: np.ndarray):
        self.weights = weights

    def predict(self, i: int) -> float:
        """Use a little of it."""
        return float(self.weights[i % len(self.weights)])


def predict(model: Model, i: int) -> float:
    """Use a model."""
    return model.predict(i)


class Point:
    """A small instance."""

    def __init__(self, x: int, y: int):
        self.x = x
        self.y = y


def abscissa(point: Point) -> int:
    """A part of it."""
    return point.x
