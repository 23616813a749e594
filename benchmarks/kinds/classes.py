"""Classes whose instances hold something large, each in its own way."""

from __future__ import annotations

import copyreg
import enum
from collections import UserDict, namedtuple
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np


class Box:
    """Holds something."""

    def __init__(self, value: Any):
        self.value = value

    def first(self) -> Any:
        """What a method does with it."""
        return self.value[0]


class Model:
    """A model of parts: a forest, an ensemble."""

    def __init__(self, parts: list[np.ndarray]):
        self.parts = [Box(part) for part in parts]
        self.name = "model"

    def predict(self, x: float) -> float:
        """From all parts."""
        return float(sum(part.value[0] * x for part in self.parts))


class Slotted:
    """Has slots, and no dictionary."""

    __slots__ = ("other", "value")

    def __init__(self, value: Any):
        self.value = value


class SlottedChild(Slotted):
    """Has slots, and a dictionary as well."""

    def __init__(self, value: Any, more: Any):
        super().__init__(value)
        self.more = more


@dataclass
class Data:
    """A data class."""

    value: Any
    name: str = "data"


@dataclass(frozen=True, slots=True)
class FrozenData:
    """One with slots."""

    value: Any
    name: str = "frozen"


@dataclass
class TaskResult:
    """What TaPS returns from each task."""

    value: Any
    info: dict[str, float]


Pair = namedtuple("Pair", ["left", "right"])


class Typed(NamedTuple):
    """The other way to make one."""

    value: Any
    name: str


class Colour(enum.Enum):
    """Keys and attributes."""

    RED = 1
    GREEN = "green"


class Reduced:
    """Pickles itself with `__reduce__`."""

    def __init__(self, value: Any):
        self.inside = value

    def __reduce__(self) -> tuple[Any, ...]:
        return Reduced, (self.inside,)


class WithState:
    """Says what its state is, which is not its dictionary."""

    __slots__ = ("_value",)

    def __init__(self, value: Any):
        self._value = value

    def __getstate__(self) -> Any:
        return {"state": self._value}

    def __setstate__(self, state: Any) -> None:
        self._value = state["state"]


class WithNewArguments:
    """Says with what it is made."""

    value: Any

    def __new__(cls, value: Any) -> WithNewArguments:
        """Not without a value."""
        made = super().__new__(cls)
        made.value = value
        return made

    def __getnewargs__(self) -> tuple[Any]:
        return (self.value,)

    def __getstate__(self) -> None:
        return None


class Registered:
    """`copyreg` knows how to pickle it."""

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value


def _reduce_registered(registered: Registered) -> tuple[Any, ...]:
    return Registered, (registered.value,)


copyreg.pickle(Registered, _reduce_registered)  # type: ignore[arg-type]


class DictWith(dict):
    """A dictionary with attributes."""


class ListWith(list):
    """A list with attributes."""


class SetWith(set):
    """A set with attributes."""


class TupleWith(tuple):
    """A tuple with attributes."""


class StrWith(str):
    """A string with attributes."""


class IntWith(int):
    """A number with attributes."""


class FloatWith(float):
    """Another one."""


class ArrayWith(np.ndarray):
    """An array whose attributes are pickled with it."""

    def __reduce__(self) -> Any:
        make, args, state = super().__reduce__()  # type: ignore[misc]
        return make, args, (state, self.__dict__)

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state[0])
        self.__dict__.update(state[1])


class Registry(UserDict):
    """A mapping that is no dictionary."""


class ProblemError(Exception):
    """An exception that says a lot."""


#: Those that hold one value, each in its own way.
HOLDERS = (Box, Slotted, Data, FrozenData, Reduced, WithState)
