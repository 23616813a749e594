"""Which parts of a value are large, and the path to each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from itertools import chain
from types import FunctionType, MethodType
from typing import Any, NamedTuple

import numpy as np

from daskps.graph.census import Weight
from daskps.objects.frame_sizes import is_frame, nbytes_of_each_column
from daskps.objects.pickles import Pickles
from daskps.objects.sizes import globals_of, nbytes_of_all, slots_of

# A part of this share of a value is worth a line; one of the other share is what the value
# consists of, so that what it consists of is what counts.
SHARE, NEARLY_ALL = 0.1, 0.9
MOST_PARTS = 3
MOST_STEPS = 8
# Only of a frame with at most so many columns each is weighed.
MOST_COLUMNS = 500
# Characters of a key that are shown.
KEY_LENGTH = 40


class Part(NamedTuple):
    """A large part of a value.

    Attributes
    ----------
    path
        To it, as a Python expression that begins with the value's own name.
    value
        The part.
    nbytes
        Its size.
    kind
        How a function has it: "captured", "global", "default" or "partial".
    """

    path: str
    value: Any
    nbytes: int
    kind: str = ""


class _Child(NamedTuple):
    """What a value consists of: how its path goes on, it, and the kind of a variable."""

    step: Callable[[str], str]
    value: Any
    kind: str = ""


def largest_parts(value: Any, name: str, nbytes: int, pickles: Pickles) -> list[Part]:
    """The paths to the largest parts of a value.

    Parameters
    ----------
    value, name, nbytes
        The value, what it is called, and its size.
    pickles
        What had to be pickled to be weighed.

    Returns
    -------
    list of Part
        Each at least a tenth of it, the largest first; none if there is none, or if the
        value is all there is.
    """
    whole = Part(name, value, nbytes)
    deepest = _deepest(whole, pickles)
    parts = _heavy(deepest, nbytes, pickles)
    if not parts:
        return [] if deepest is whole else [deepest]
    return [_deepest(part, pickles) for part in parts[:MOST_PARTS]]


def _deepest(part: Part, pickles: Pickles) -> Part:
    """What nearly all of a part is in."""
    for _ in range(MOST_STEPS):
        inner = _heavy(part, part.nbytes, pickles, NEARLY_ALL)
        if not inner:
            break
        part = inner[0]
    return part


def _heavy(
    part: Part, nbytes: int, pickles: Pickles, share: float = SHARE
) -> list[Part]:
    """Children of a part that have a share of so many bytes, the largest first."""
    at_least = max(1, int(share * nbytes))
    if is_frame(type(part.value)):
        columns = _columns(part.value, pickles)
        found = [Part(_item(n)(part.path), None, b, part.kind) for n, b in columns]
        return _largest(p for p in found if p.nbytes >= at_least)
    children = {id(child.value): child for child in _children(part.value)}
    things = [child.value for child in children.values()]
    weight = Weight(things, part.nbytes, pickles=pickles)
    found = []
    for item, _ in weight.heavy(at_least):
        child = children[id(item)]
        # A single one is taken for as large as all of them.
        own = nbytes_of_all([item], pickles)
        path, kind = child.step(part.path), child.kind or part.kind
        found.append(Part(path, item, own, kind))
    return _largest(p for p in found if p.nbytes >= at_least)


def _largest(parts: Iterable[Part]) -> list[Part]:
    return sorted(parts, key=lambda part: -part.nbytes)


def _columns(frame: Any, pickles: Pickles) -> list[tuple[Any, int]]:
    if len(getattr(frame, "columns", ())) > MOST_COLUMNS or frame.ndim < 2:
        return []
    return nbytes_of_each_column(frame, lambda cells: nbytes_of_all(cells, pickles))


def _children(value: Any) -> Iterable[_Child]:
    """What a value consists of, with names that people know."""
    if isinstance(value, dict):
        return (_Child(_item(key), item) for key, item in value.items())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        named = zip(value._fields, value, strict=True)
        return (_Child(_attribute(name), item) for name, item in named)
    if isinstance(value, (list, tuple)):
        return (_Child(_item(i), item) for i, item in enumerate(value))
    if isinstance(value, (set, frozenset)):
        return (_Child(lambda path: f"an item of {path}", item) for item in value)
    if isinstance(value, FunctionType):
        return _of_function(value)
    if isinstance(value, MethodType):
        return [_Child(lambda path: "self", value.__self__)]
    if isinstance(value, functools.partial):
        return _of_partial(value)
    if isinstance(value, np.ndarray):
        items = value.ravel().tolist() if value.dtype == object else ()
        return (_Child(_item(i), item) for i, item in enumerate(items))
    return _attributes(value)


def _of_function(function: FunctionType) -> Iterable[_Child]:
    names = function.__code__.co_freevars
    for name, cell in zip(names, function.__closure__ or (), strict=True):
        try:
            yield _Child(_called(name), cell.cell_contents, "captured")
        except ValueError:  # not assigned yet
            continue
    for name, item in globals_of(function).items():
        yield _Child(_called(name), item, "global")
    arguments = function.__code__.co_varnames[: function.__code__.co_argcount]
    defaults = function.__defaults__ or ()
    named = zip(arguments[len(arguments) - len(defaults) :], defaults, strict=True)
    for name, item in chain(named, (function.__kwdefaults__ or {}).items()):
        yield _Child(_called(name), item, "default")
    for name, item in vars(function).items():
        yield _Child(_attribute(name), item)


def _of_partial(value: functools.partial[Any]) -> Iterable[_Child]:
    yield _Child(_attribute("func"), value.func)
    for i, item in enumerate(value.args):
        yield _Child(lambda path, i=i: f"{path}.args[{i}]", item)  # type: ignore[misc]
    for name, item in value.keywords.items():
        yield _Child(_called(name), item, "partial")


def _attributes(value: Any) -> Iterable[_Child]:
    named = getattr(value, "__dict__", None)
    found = dict(named) if type(named) is dict else {}
    for name in slots_of(type(value)):
        found.setdefault(name, getattr(value, name, None))
    return (_Child(_attribute(name), item) for name, item in found.items())


def _item(key: Any) -> Callable[[str], str]:
    def step(path: str) -> str:
        shown = repr(key)
        if len(shown) > KEY_LENGTH:
            shown = shown[:KEY_LENGTH] + "..."
        return f"{path}[{shown}]"

    return step


def _attribute(name: str) -> Callable[[str], str]:
    return lambda path: f"{path}.{name}"


def _called(name: str) -> Callable[[str], str]:
    """A variable of a function, which has a name of its own."""
    return lambda path: name
