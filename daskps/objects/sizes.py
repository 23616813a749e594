"""How large a value is, with all that it contains or carries, found mostly in C.

Looking at each object in Python would cost more than the two per cent that are allowed for
programs without anything large. Values are therefore taken level by level: all objects of a
level are dropped by type if they cannot be large, and what is inside the others makes up the
next level, each object once. Most steps are one pass in C.

Inside means more than containers: a function carries its closure, its defaults and, if it
is pickled by value, the global variables that it uses; an instance carries its attributes.
"""

from __future__ import annotations

import dis
import functools
import operator
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, compress, repeat
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MethodType,
    ModuleType,
    NoneType,
)
from typing import Any

import cloudpickle
import numpy as np
from dask.sizeof import sizeof
from proxystore.proxy import Proxy

from daskps.dask_private.graphs import Alias, DataNode, GraphNode, Task, TaskRef
from daskps.objects.frame_sizes import frame_nbytes, is_frame
from daskps.references.nodes import ProxyNode
from daskps.safety_net import fell_back
from daskps.serialize.values import serialize

#: Never large.
FREE: frozenset[type] = frozenset(
    {
        bool,
        int,
        float,
        complex,
        NoneType,
        type,
        slice,
        range,
        type(...),
        # Each kind of dtype has a type of its own.
        *(type(np.dtype(code)) for code in np.typecodes["All"]),
        Alias,
        TaskRef,
        BuiltinFunctionType,
        ModuleType,
    }
)
# Containers of more items are summed up by pickle, as far as only numbers and strings are
# in them and in the containers within, and a few other objects.
SHORT_ITEMS = 100
OTHERS_AT_MOST = 32
# And as far as they are small (bytes each): larger ones are few, and may be shared.
SMALL_ITEM_NBYTES = 256
# Objects that pickle themselves in their own way are pickled to learn their size: so many
# of each type, and if all of these are small (bytes), the others count as small too.
PICKLED_SAMPLE = 16
PICKLED_SMALL_NBYTES = 1 << 12
# Strings up to this length are counted as often as they occur.
TINY_NBYTES = 256


_CONTAINERS = (tuple, list, set, frozenset, dict)
# Tasks and containers may be nested, but repeat little: they are not told apart, to save
# time, down to this depth, below which there could be a cycle. But where there are many,
# only tasks and their arguments are not: what is deeper may refer to its parents.
_PLAIN = (Task, *_CONTAINERS)
DEEP_LEVELS = 8
MANY, SHALLOW = 1000, 3
# So many types among objects are sorted out one after the other.
FEW_TYPES = 6
# Functions of these types are compared by identity, so that a set tells them apart; others
# are told apart when they are opened.
_COMPARED_BY_IDENTITY = {FunctionType, type}
# Instructions that use a global variable. cloudpickle looks for the same.
_GLOBAL = {"LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL"}


def nbytes_of(value: Any) -> int:
    """Bytes of one literal, with all that it contains or carries; 0 if it cannot be told."""
    if type(value) in FREE:
        return 0
    try:
        return _nbytes_of(value)
    except Exception as e:
        fell_back(e, "weigh", value)
        return 0


def _nbytes_of(value: Any) -> int:
    counted: dict[int, Any] = {}
    found = leaves({type(value): [value]}, sys.maxsize)
    return sum(sum(sizes_of(type_, members, counted)) for type_, members in found)


def leaves(
    groups: dict[type, list[Any]], large: int
) -> Iterator[tuple[type, list[Any]]]:
    """All that could be large and has no known contents, by type.

    Containers without a string of `large` bytes may be given as a :class:`_Plain`.
    """
    seen: dict[int, Any] = {}
    depth = 0
    while groups:
        level: list[Iterable[Any]] = []
        depth += 1
        for type_, members in groups.items():
            contents = _contents(type_)
            if contents is None:
                yield type_, members
                continue
            plain = issubclass(type_, _PLAIN)
            many = len(members) > MANY and depth > SHALLOW
            told_apart = depth > DEEP_LEVELS or many or not plain
            new = _unseen(members, seen) if told_apart else members
            if (
                issubclass(type_, _CONTAINERS)
                and max(map(len, new), default=0) > SHORT_ITEMS
            ):
                long = [c for c in new if len(c) > SHORT_ITEMS]
                new = [c for c in new if len(c) <= SHORT_ITEMS]
                for container in long if told_apart else _unseen(long, seen):
                    summary = _summary(container, large)
                    if summary is None:
                        new.append(container)
                    else:
                        level.append(summary)
            level += contents(new) if new else []
        groups = by_type(list(chain.from_iterable(level)))


def by_type(things: list[Any]) -> dict[type, list[Any]]:
    """What could be large, by type."""
    found = set(map(type, things))
    types = found - FREE
    if len(found) == len(types) == 1:
        return {types.pop(): things}
    if len(types) <= FEW_TYPES:
        # A pass in C for each type is faster than one in Python for all.
        kinds = list(map(type, things))
        return {
            t: list(compress(things, map(operator.is_, kinds, repeat(t))))
            for t in types
        }
    groups: dict[type, list[Any]] = {t: [] for t in types}
    for thing in things:
        if type(thing) in types:
            groups[type(thing)].append(thing)
    return groups


def _unseen(things: list[Any], seen: dict[int, Any]) -> list[Any]:
    new = dict(zip(map(id, things), things, strict=True))
    for known in new.keys() & seen.keys():
        del new[known]
    # Kept alive as well, so that an id means one object.
    seen.update(new)
    return list(new.values())


_Contents = Callable[[list[Any]], list[Iterable[Any]]]


@functools.lru_cache(maxsize=1000)
def _contents(type_: type) -> _Contents | None:
    """What gives the contents of objects of this type; None if they have none."""
    if issubclass(type_, (ProxyNode, Proxy)):
        return None
    if issubclass(type_, Task):
        return _in_tasks
    if issubclass(type_, DataNode):
        return lambda nodes: [map(operator.attrgetter("value"), nodes)]
    if issubclass(type_, (GraphNode, TaskRef, type)):
        return lambda objects: []
    if issubclass(type_, dict):
        return _in_dicts
    if issubclass(type_, _CONTAINERS):
        return _in_containers
    if issubclass(type_, FunctionType):
        return lambda functions: list(map(_in_function, functions))
    if issubclass(type_, MethodType):
        return lambda methods: [map(operator.attrgetter("__self__"), methods)]
    if issubclass(type_, functools.partial):
        return _in_partials
    if _is_opaque(type_) and _pickles_attributes(type_):
        # Some have no attributes although their type says so (asyncio.Future).
        return lambda objects: [getattr(o, "__dict__", {}).values() for o in objects]
    return None


def _in_tasks(tasks: list[Any]) -> list[Iterable[Any]]:
    functions: Iterable[Any] = list(map(operator.attrgetter("func"), tasks))
    if _COMPARED_BY_IDENTITY.issuperset(map(type, functions)):
        functions = set(functions)
    args = chain.from_iterable(map(operator.attrgetter("args"), tasks))
    kwargs = filter(None, map(operator.attrgetter("kwargs"), tasks))
    # One iterable: so many small objects at once would wake the garbage collector.
    return [functions, args, chain.from_iterable(map(dict.values, kwargs))]


def _in_dicts(dicts: list[Any]) -> list[Iterable[Any]]:
    # One iterable, as for tasks: views of dictionaries are objects, too.
    return [chain.from_iterable(map(dict.values, dicts))]


def _in_containers(containers: list[Any]) -> list[Iterable[Any]]:
    return [chain.from_iterable(containers)]


def _in_partials(partials: list[Any]) -> list[Iterable[Any]]:
    return [
        chain((partial.func,), partial.args, partial.keywords.values())
        for partial in partials
    ]


def _in_function(function: Any) -> Iterable[Any]:
    """What is pickled with a function."""
    if not _by_value(function):
        return ()
    cells = []
    for cell in function.__closure__ or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:  # not assigned yet
            continue
    variables = function.__globals__
    used = (variables[n] for n in _names(function.__code__) if n in variables)
    keywords = (function.__kwdefaults__ or {}).values()
    return chain(cells, function.__defaults__ or (), keywords, used)


def _by_value(function: Any) -> bool:
    """Whether pickling writes the function itself, not only its name."""
    module = sys.modules.get(function.__module__ or "")
    if module is None or function.__module__ == "__main__":
        return True
    if function.__module__ in cloudpickle.list_registry_pickle_by_value():
        return True
    try:
        found = operator.attrgetter(function.__qualname__)(module)
    except AttributeError:
        return True
    return found is not function and not hasattr(found, "__wrapped__")


@functools.lru_cache(maxsize=1000)
def _names(code: CodeType) -> frozenset[str]:
    """Global variables that a function and those defined within it may use."""
    # Its names alone would not do: those of attributes are among them.
    names = {
        instruction.argval
        for instruction in dis.get_instructions(code)
        if instruction.opname in _GLOBAL
    }
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names(constant)
    return frozenset(names)


def _is_opaque(type_: type) -> bool:
    """Whether Dask does not say how large such objects are, or does more than that."""
    default = sizeof.dispatch(type_) is sizeof.dispatch(object)
    return default or _is_of_xarray(type_)


@functools.lru_cache(maxsize=1000)
def _is_of_xarray(type_: type) -> bool:
    """Whether Dask would read data that has not been read yet, to weigh it."""
    return any(base.__module__.partition(".")[0] == "xarray" for base in type_.__mro__)


def _pickles_attributes(type_: type) -> bool:
    """Whether pickling an instance writes its attributes and nothing else."""
    own = (
        getattr(type_, name, None) is not getattr(object, name, None)
        for name in ("__reduce__", "__reduce_ex__", "__getstate__", "__getnewargs__")
    )
    return bool(type_.__dictoffset__) and not any(own) and not _slots(type_)


def _slots(type_: type) -> bool:
    return any(getattr(base, "__slots__", ()) for base in type_.__mro__)


class _Counter:
    """A file that only counts what is written, up to a limit."""

    def __init__(self, large: int, at_most: int):
        self.nbytes = 0
        self._large, self._at_most = large, at_most

    def write(self, data: Any) -> None:
        # A long string is written by itself, short ones together (64 KiB, PEP 3154).
        self.nbytes += len(data)
        if len(data) >= self._large or self.nbytes >= self._at_most:
            raise _NotSummarisedError


class _Summary(pickle.Pickler):
    """Add up the numbers and strings within a container, in C, and list what else is there.

    Nothing else is pickled: its own methods are not called, and it is looked at later.
    """

    # Not its own file: it would refer to itself, and keep `others` alive until the garbage
    # collector comes.
    def __init__(self, file: _Counter):
        super().__init__(file, protocol=5)
        # Without a memo of objects, which takes most of the time of many small ones.
        self.fast = True
        self.others: list[Any] = []

    def reducer_override(self, obj: Any) -> Any:
        if obj is _nothing or obj is complex or type(obj) is complex:
            return NotImplemented
        self.others.append(obj)
        if len(self.others) > OTHERS_AT_MOST:
            raise _NotSummarisedError
        return _nothing, ()


class _NotSummarisedError(Exception):
    """Too much, or too many objects of other types: to be opened as others are."""


def _nothing() -> None:
    """Stands for an object that is not summarised."""


def _summary(container: Any, large: int) -> list[Any] | None:
    """What stands for all that is within a container; None if it is to be opened."""
    if type(container) not in _CONTAINERS:  # pickle would ask for its own methods
        values = container.values() if isinstance(container, dict) else container
        container = list(values)
    counter = _Counter(large, SMALL_ITEM_NBYTES * len(container))
    summary = _Summary(counter)
    try:
        summary.dump(container)
    except (_NotSummarisedError, ValueError, RecursionError, pickle.PicklingError):
        return None  # or it contains itself
    return [_Plain(counter.nbytes), *summary.others]


class _Plain:
    """Stands for many numbers and strings."""

    __slots__ = ("nbytes",)

    def __init__(self, nbytes: int):
        self.nbytes = nbytes


def sizes_of(type_: type, members: list[Any], counted: dict[int, Any]) -> list[int]:
    """Bytes of each of these objects that was not counted before."""
    if issubclass(type_, (bytes, bytearray, str)):
        sizes = list(map(len, members))
        if max(sizes) <= TINY_NBYTES:
            return sizes
        return list(map(len, _unseen(members, counted)))
    members = _unseen(members, counted)
    if issubclass(type_, (_Plain, memoryview)):
        return list(map(operator.attrgetter("nbytes"), members))
    if issubclass(type_, np.ndarray) and type_ is not np.ma.MaskedArray:
        return list(map(_array_nbytes, members))
    if is_frame(type_):
        return [frame_nbytes(frame, nbytes_of) for frame in members]
    if not _is_opaque(type_):
        return list(map(_known_nbytes, members))
    sizes = list(map(_pickled_nbytes, members[:PICKLED_SAMPLE]))
    if len(members) > PICKLED_SAMPLE:
        if max(sizes) > PICKLED_SMALL_NBYTES:
            sizes += map(_pickled_nbytes, members[PICKLED_SAMPLE:])
        else:
            sizes += [sum(sizes) // len(sizes)] * (len(members) - PICKLED_SAMPLE)
    return sizes


def _known_nbytes(value: Any) -> int:
    try:
        nbytes: int = sizeof(value)
        return nbytes
    except Exception:  # of a type that somebody else has registered, or a cycle
        return _pickled_nbytes(value)


def _array_nbytes(array: np.ndarray) -> int:
    if array.dtype == object:
        return array.nbytes + nbytes_of(array.ravel().tolist())
    return sizeof(array) if array.dtype.hasobject else array.nbytes


def _pickled_nbytes(value: Any) -> int:
    try:
        return serialize(value, last_resort=False).nbytes
    except Exception:
        return 0  # Dask will say why it cannot be sent, if it is to be sent
