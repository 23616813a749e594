"""Functions that tasks run. Importable, so that they are pickled by name."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np


def nothing(*args: Any) -> None:
    """Take anything, do nothing."""


def itself(value: Any) -> Any:
    """Give back a value."""
    return value


def view(array: np.ndarray) -> np.ndarray:
    """Give back an array, though not the very object, with which proxystore_ex fails."""
    return array[:]


def first(array: np.ndarray, i: int = 0) -> float:
    """Touch a little of an array."""
    return float(array[i % len(array)])


def make(nbytes: int) -> np.ndarray:
    """An array of this size."""
    return np.ones(nbytes // 8)


def crc(data: bytes) -> int:
    """Read some bytes."""
    return zlib.crc32(data)


def increment(x: int) -> int:
    """A small task."""
    return x + 1
