"""Values at random, of all kinds, layouts and types, and what was drawn for them."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.kinds import classes
from benchmarks.kinds.catalogue import all_kinds


class Draw:
    """Random choices that depend on what they are for, and a record of them.

    Attributes
    ----------
    taken
        What was chosen, in order, for people.
    """

    def __init__(self, *purpose: Any):
        self._random = random.Random("/".join(map(str, purpose)))
        self.numbers = np.random.default_rng(self._random.getrandbits(32))
        self.taken: list[str] = []

    def one_of(self, options: Sequence[Any]) -> Any:
        """One of these."""
        return self._record(self._random.choice(options))

    def number(self, least: int, most: int) -> int:
        """A number, both ends included."""
        number: int = self._record(self._random.randint(least, most))
        return number

    def chance(self, probability: float) -> bool:
        """True, with a probability."""
        return self._random.random() < probability

    def _record(self, choice: Any) -> Any:
        name = getattr(choice, "__name__", None)
        self.taken.append((name or repr(choice))[:40])
        return choice


_DTYPES = [
    *("f8", "f4", "i8", "i2", "u1", "?", "c16", ">f8", ">i4", "M8[ns]", "m8[s]"),
    *("S7", "U5", "O", "T"),
]
_LAYOUTS = ["C", "F", "gaps", "backwards", "axes", "repeated", "read-only", "shifted"]
_SHAPES = [(), (0,), (1,), (7,), (300,), (20_000,), (3, 5), (40, 60), (2, 3, 4), (0, 4)]
# Those of random forests take long to make.
_KINDS = [k for k in all_kinds().values() if "random forest" not in k.name]


def array(draw: Draw, shapes: Sequence[tuple[int, ...]] = _SHAPES) -> np.ndarray:
    """An array of any type and layout."""
    dtype, layout = draw.one_of(_DTYPES), draw.one_of(_LAYOUTS)
    shape = draw.one_of(shapes)
    numbers = draw.numbers.integers(0, 100, shape)
    if dtype == "T":
        made = numbers.astype("U3").astype(np.dtypes.StringDType())
    elif dtype == "O":
        made = np.asarray(numbers.astype("U3"), dtype=object)
    else:
        made = numbers.astype(dtype)
    return laid_out(made, layout)


def laid_out(made: np.ndarray, layout: str) -> np.ndarray:
    """The same array, with its elements elsewhere in memory."""
    if made.ndim == 0:
        return made
    if layout == "F":
        return np.asfortranarray(made)
    if layout == "gaps":
        return np.repeat(made, 2, axis=0)[::2]
    if layout == "backwards":
        return made[::-1]
    if layout == "axes":
        return made.T
    if layout == "repeated":
        return np.broadcast_to(made, (2, *made.shape))
    if layout == "read-only":
        made.flags.writeable = False
    if layout == "shifted":
        return made[1:]
    return made


def frame(draw: Draw) -> Any:
    """A frame of several types of columns."""
    import pandas as pd

    n = draw.one_of([1, 50, 4000])
    numbers = draw.numbers.integers(0, 50, n)
    text = pd.Series(numbers.astype("U3"))
    columns: dict[str, Callable[[], Any]] = {
        "number": lambda: numbers,
        "float": lambda: numbers / 7,
        "text": lambda: text.astype("str"),
        "category": lambda: text.astype("category"),
        "nullable": lambda: pd.Series(numbers).astype("Int64"),
        "arrow": lambda: text.astype("string[pyarrow]"),
        "time": lambda: pd.to_datetime(numbers * 10**9),
        "zone": lambda: pd.to_datetime(numbers * 10**9, utc=True),
        "object": lambda: pd.Series([{"n": int(i)} for i in numbers], dtype=object),
    }
    chosen = [name for name in columns if draw.chance(0.4)] or ["number"]
    draw.taken.append("+".join(chosen))
    made = pd.DataFrame({name: columns[name]() for name in chosen})
    if draw.chance(0.2):
        made.attrs["note"] = "x" * draw.one_of([3, 2000])
    if draw.chance(0.3):
        made.index = pd.Index(numbers if draw.chance(0.5) else text, name="index")
    return made


def of_kind(draw: Draw) -> Any:
    """A value of one of the kinds."""
    kind = draw.one_of(_KINDS)
    draw.taken[-1] = f"kind {kind.name!r}"
    return kind.make(draw.one_of([4096, 20_000, 100_000]))


def simple(draw: Draw) -> Any:
    """Something small."""
    return draw.one_of(
        [None, 0, -1.5, True, "text", b"bytes", 10**30, (), "é" * 900, b"\0" * 3000, 2j]
    )


def long(draw: Draw) -> Any:
    """A long string, or a long run of bytes."""
    data = draw.numbers.bytes(draw.one_of([500, 70_000, 200_000]))
    return draw.one_of([bytes, bytearray, bytes.hex])(data)


def _with_note(make: Callable[[], Any], value: Any) -> Any:
    made = make()
    made.note = value
    return made


def _object_array(value: Any) -> Any:
    made = np.empty(2, dtype=object)
    made[0] = value
    made[1] = value
    return made


_NESTINGS: list[Callable[[Any], Any]] = [
    lambda v: [v],
    lambda v: (v, 1),
    lambda v: [v, v],
    lambda v: {"a": v, "b": [v]},
    lambda v: {"a": {"b": (v,)}},
    lambda v: slice(v, None),
    lambda v: lambda: v,
    *classes.HOLDERS,
    lambda v: classes.Pair(v, [v]),
    lambda v: classes.Box([v, v]).first,
    lambda v: functools.partial(classes.Box, v),
    lambda v: {"key": v}.get,
    lambda v: _with_note(classes.DictWith, v),
    lambda v: _with_note(classes.ListWith, v),
    lambda v: _with_note(classes.StrWith, v),
    _object_array,
]


def nested(draw: Draw) -> Any:
    """A value within others."""
    made = value(draw)
    for _ in range(draw.number(1, 2)):
        i = draw.number(0, len(_NESTINGS) - 1)
        made = _NESTINGS[i](made)
        draw.taken[-1] = f"nested in {type(made).__name__} ({i})"
    return made


def value(draw: Draw) -> Any:
    """Any value."""
    makers = [array, array, array, frame, of_kind, of_kind, simple, long, nested]
    return draw.one_of(makers)(draw)
