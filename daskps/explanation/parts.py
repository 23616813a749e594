"""Which parts of a value are large, and the path to each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from itertools import chain
from types import FunctionType, MethodType
from typing import Any, NamedTuple, TypeAlias

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

#: Given the path to a value, gives that to a part of it.
_Step: TypeAlias = Callable[[str], str]


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


class _Children(NamedTuple):
    """What a value consists of.

    Attributes
    ----------
    things
        All of it: there may be millions.
    name
        Gives, for the place of one of them, how its path goes on, and the kind of a
        variable.
    """

    things: list[Any]
    name: Callable[[int], tuple[_Step, str]]


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
    whole = part = Part(name, value, nbytes)
    for _ in range(MOST_STEPS):
        inner = _heavy(part, SHARE * nbytes, pickles)
        if not inner:
            break
        if inner[0].nbytes < NEARLY_ALL * part.nbytes:
            return [_deepest(p, pickles) for p in inner[:MOST_PARTS]]
        part = inner[0]
    return [] if part is whole else [part]


def _deepest(part: Part, pickles: Pickles) -> Part:
    """What nearly all of a part is in."""
    for _ in range(MOST_STEPS):
        inner = _heavy(part, NEARLY_ALL * part.nbytes, pickles)
        if not inner:
            break
        part = inner[0]
    return part


def _heavy(part: Part, at_least: float, pickles: Pickles) -> list[Part]:
    """Children of a part that have so many bytes, the largest first."""
    if is_frame(type(part.value)):
        columns = _columns(part.value, pickles)
        found = [Part(_item(n)(part.path), None, b, part.kind) for n, b in columns]
        return _largest(p for p in found if p.nbytes >= at_least)
    children = _children(part.value)
    weight = Weight(children.things, part.nbytes, pickles=pickles)
    heavy = {id(thing): thing for thing, _ in weight.heavy(max(1, int(at_least)))}
    if not heavy:
        return []
    found = []
    for i, thing in enumerate(children.things):
        if heavy.pop(id(thing), None) is not None:
            step, kind = children.name(i)
            # A single one is taken for as large as all of them.
            own = nbytes_of_all([thing], pickles)
            found.append(Part(step(part.path), thing, own, kind or part.kind))
    return _largest(p for p in found if p.nbytes >= at_least)


def _largest(parts: Iterable[Part]) -> list[Part]:
    return sorted(parts, key=lambda part: -part.nbytes)


def _columns(frame: Any, pickles: Pickles) -> list[tuple[Any, int]]:
    if len(getattr(frame, "columns", ())) > MOST_COLUMNS or frame.ndim < 2:
        return []
    return nbytes_of_each_column(frame, lambda cells: nbytes_of_all(cells, pickles))


def _children(value: Any) -> _Children:
    """What a value consists of, with names that people know."""
    if isinstance(value, dict):
        keys = list(value)
        return _Children(list(value.values()), lambda i: (_item(keys[i]), ""))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        fields = value._fields
        return _Children(list(value), lambda i: (_attribute(fields[i]), ""))
    if isinstance(value, (list, tuple)):
        return _Children(list(value), lambda i: (_item(i), ""))
    if isinstance(value, (set, frozenset)):
        return _Children(list(value), lambda i: (lambda path: f"an item of {path}", ""))
    if isinstance(value, np.ndarray):
        items = value.ravel().tolist() if value.dtype == object else []
        return _Children(items, lambda i: (_item(i), ""))
    if isinstance(value, FunctionType):
        return _named(_of_function(value))
    if isinstance(value, MethodType):
        return _Children([value.__self__], lambda i: (lambda path: "self", ""))
    if isinstance(value, functools.partial):
        return _named(_of_partial(value))
    return _named(_attributes(value))


#: A child with its name: how its path goes on, it, and the kind of a variable.
_Named: TypeAlias = tuple[_Step, Any, str]


def _named(children: Iterable[_Named]) -> _Children:
    listed = list(children)
    return _Children([c[1] for c in listed], lambda i: (listed[i][0], listed[i][2]))


def _of_function(function: FunctionType) -> Iterable[_Named]:
    names = function.__code__.co_freevars
    for name, cell in zip(names, function.__closure__ or (), strict=True):
        try:
            yield _called(name), cell.cell_contents, "captured"
        except ValueError:  # not assigned yet
            continue
    for name, item in globals_of(function).items():
        yield _called(name), item, "global"
    arguments = function.__code__.co_varnames[: function.__code__.co_argcount]
    defaults = function.__defaults__ or ()
    named = zip(arguments[len(arguments) - len(defaults) :], defaults, strict=True)
    for name, item in chain(named, (function.__kwdefaults__ or {}).items()):
        yield _called(name), item, "default"
    for name, item in vars(function).items():
        yield _attribute(name), item, ""


def _of_partial(value: functools.partial[Any]) -> Iterable[_Named]:
    yield _attribute("func"), value.func, ""
    for i, item in enumerate(value.args):
        yield _attribute(f"args[{i}]"), item, ""
    for name, item in value.keywords.items():
        yield _called(name), item, "partial"


def _attributes(value: Any) -> Iterable[_Named]:
    named = getattr(value, "__dict__", None)
    found = dict(named) if type(named) is dict else {}
    for name in slots_of(type(value)):
        found.setdefault(name, getattr(value, name, None))
    return ((_attribute(name), item, "") for name, item in found.items())


def _item(key: Any) -> _Step:
    def step(path: str) -> str:
        shown = repr(key)
        if len(shown) > KEY_LENGTH:
            shown = shown[:KEY_LENGTH] + "..."
        return f"{path}[{shown}]"

    return step


def _attribute(name: str) -> _Step:
    return lambda path: f"{path}.{name}"


def _called(name: str) -> _Step:
    """A variable of a function, which has a name of its own."""
    return lambda path: name
