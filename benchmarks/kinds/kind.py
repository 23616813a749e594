"""What a kind of values is, and the list of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Kind:
    """Values that are made alike.

    Attributes
    ----------
    name
        Unique, for people.
    make
        Given a size, makes a value whose pickle has about so many bytes. The same one
        each time.
    needs
        The module that has to be installed, if any.
    call
        With what arguments a value can be called, if it is a function to be submitted.
    """

    name: str
    make: Callable[[int], Any]
    needs: str | None = None
    call: tuple[Any, ...] | None = None

    @property
    def installed(self) -> bool:
        """Whether there can be values here."""
        return self.needs is None or importlib.util.find_spec(self.needs) is not None


_all: dict[str, Kind] = {}


def kind(
    name: str, *, needs: str | None = None, call: tuple[Any, ...] | None = None
) -> Callable[[Callable[[int], Any]], Callable[[int], Any]]:
    """Add what is decorated to the list: :attr:`Kind.make`.

    Raises
    ------
    ValueError
        If there is one with this name.
    """

    def add(make: Callable[[int], Any]) -> Callable[[int], Any]:
        if name in _all:
            raise ValueError(f"there are two kinds named {name!r}")
        _all[name] = Kind(name, make, needs, call)
        return make

    return add


def listed() -> dict[str, Kind]:
    """The kinds that were added and are installed here, by name."""
    return {name: kind for name, kind in _all.items() if kind.installed}


# What values are made of. Random, so that nothing can be smaller than it looks.


def array(nbytes: int, seed: int = 0) -> np.ndarray:
    """Random numbers of 8 bytes."""
    return np.random.default_rng(seed).random(max(1, nbytes // 8))


def piece(nbytes: int, seed: int = 0, pieces: int = 64) -> np.ndarray:
    """One of so many arrays that have a number of bytes together."""
    return array(nbytes // pieces, seed)


def pieces(nbytes: int, n: int = 64) -> list[np.ndarray]:
    """Arrays that have a number of bytes together, each far below the threshold."""
    return [piece(nbytes, seed, n) for seed in range(n)]


def texts(nbytes: int, length: int = 40) -> list[str]:
    """Different strings that have a number of bytes together, in no order."""
    n = max(1, nbytes // (length + 4))  # what pickle adds
    digits = np.random.default_rng(1).bytes((n * length + 1) // 2).hex()
    return [digits[i * length : (i + 1) * length] for i in range(n)]
