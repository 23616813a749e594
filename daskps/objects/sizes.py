"""How large a value is, with all that it contains or carries, found mostly in C.

Looking at each object in Python would cost more than the two per cent that are allowed for
programs without anything large. Values are therefore taken level by level: all objects of a
level are dropped by type if they cannot be large, and what is inside the others makes up the
next level, each object once. Most steps are one pass in C.

Inside means more than containers: a function carries its closure, its defaults and, if it
is pickled by value, the global variables that it uses; an instance carries its attributes.
"""

from __future__ import annotations

import array
import collections
import copyreg
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
    GetSetDescriptorType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    NoneType,
    WrapperDescriptorType,
)
from typing import Any, TypeVar, cast

import cloudpickle
import numpy as np
from proxystore.proxy import Proxy

from daskps.dask_private.graphs import Alias, DataNode, GraphNode, Task, TaskRef
from daskps.objects.frame_sizes import frame_nbytes, is_frame
from daskps.objects.pickles import Pickles
from daskps.references.nodes import ProxyNode
from daskps.safety_net import fell_back

#: Never large.
FREE: frozenset[type] = frozenset(
    {
        bool,
        NoneType,
        range,
        type(...),
        # Each kind of dtype has a type of its own.
        *(type(np.dtype(code)) for code in np.typecodes["All"]),
        np.ufunc,
        Alias,
        TaskRef,
        ModuleType,
        GetSetDescriptorType,
        MethodDescriptorType,
        WrapperDescriptorType,
    }
)
# Bytes that pickle (protocol 5) writes for a number, about; and for what is around the data
# of a string, an array, a NumPy scalar, the attributes of an instance, the items of a
# container, the bounds of a slice.
INT_NBYTES, FLOAT_NBYTES, COMPLEX_NBYTES = 3, 9, 45
STRING_HEAD_NBYTES, ARRAY_HEAD_NBYTES, SCALAR_HEAD_NBYTES = 3, 50, 20
INSTANCE_NBYTES, CONTAINER_NBYTES, SLICE_NBYTES = 14, 4, 8
# Of an array that is larger, only the data counts.
SMALL_ARRAY_NBYTES = 1 << 12
# Where there are many things, numbers are counted, and not looked at.
_FREE_IF_MANY = FREE | {int, float, complex}
# Containers of more items are summed up by pickle, as far as only numbers and strings are
# in them and in the containers within, and a few other objects.
SHORT_ITEMS = 100
# What was found of those with more than this is kept, for it is asked for several times.
KEPT_ITEMS = 1000
OTHERS_AT_MOST = 32
# And as far as they are small (bytes each): larger ones are few, and may be shared.
SMALL_ITEM_NBYTES = 256
# Strings up to this length are counted as often as they occur.
TINY_NBYTES = 256


_BUILT_IN = (tuple, list, set, frozenset, dict)
_CONTAINERS = (*_BUILT_IN, collections.deque)
# Tasks and containers may be nested, but repeat little: they are not told apart, to save
# time, down to this depth, below which there could be a cycle. But where there are many,
# only tasks and their arguments are not: what is deeper may refer to its parents.
_PLAIN = (Task, slice, *_CONTAINERS)
DEEP_LEVELS = 8
MANY, SHALLOW = 1000, 3
# Of a task that is looked at without taking it level by level.
FEW_ARGUMENTS = 16
# So many types among objects are sorted out one after the other.
FEW_TYPES = 6
# Functions of these types are compared by identity, so that a set tells them apart; others
# are told apart when they are opened.
_COMPARED_BY_IDENTITY = {FunctionType, type}
# Keys of these types are compared in C, so that equal ones can be counted once.
_PLAIN_KEYS = {str, int, bytes, float, bool, NoneType}
_BOUNDS = {int, NoneType}
_OF_SLICE = tuple(map(operator.attrgetter, ("start", "stop", "step")))
# Containers that pickle as their items and attributes, in ways of their own.
_WELL_KNOWN = {
    collections.OrderedDict,
    collections.defaultdict,
    collections.Counter,
    collections.deque,
}
# Instructions that use a global variable. cloudpickle looks for the same.
_GLOBAL = {"LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL"}
# Py_TPFLAGS_HEAPTYPE: made by a class statement (or by a C module, rarely).
_HEAP_TYPE = 1 << 9


def is_small(value: Any, threshold: int) -> bool:
    """Whether a value is certainly small, which most are. Costs next to nothing."""
    type_ = type(value)
    if type_ in FREE:
        return True
    if type_ in (bytes, bytearray, str):
        return sys.getsizeof(value) < threshold
    # One that is derived may have more than its elements.
    if type_ is np.ndarray:
        return bool(value.nbytes < threshold and not value.dtype.hasobject)
    return False


def nbytes_of(value: Any, pickles: Pickles | None = None) -> int:
    """Bytes of one literal, with all that it contains or carries; 0 if it cannot be told.

    Parameters
    ----------
    value
        Anything.
    pickles
        Keeps what had to be pickled to be weighed.
    """
    if type(value) in FREE:
        return 0
    try:
        return nbytes_of_all([value], pickles or Pickles())
    except Exception as e:
        fell_back(e, "weigh", value)
        return 0


def nbytes_of_all(
    things: list[Any], pickles: Pickles, proxies: list[Any] | None = None
) -> int:
    """Bytes of several things, and of all that they contain or carry, each object once.

    Parameters
    ----------
    things
        Graph nodes and literals, in any mix.
    pickles
        Keeps what had to be pickled to be weighed.
    proxies
        Nodes for values that are stored already, and proxies made by hand, are added to
        this list.
    """
    simple = _nbytes_if_simple(things[0], pickles) if len(things) == 1 else None
    if simple is not None:
        return simple
    counted = _Seen()
    nbytes = 0
    for type_, members in _leaves(by_type(things), pickles):
        if not issubclass(type_, (ProxyNode, Proxy)):
            nbytes += _total(type_, members, counted, pickles)
        elif proxies is not None:
            proxies += members
    return nbytes


def _nbytes_if_simple(task: Any, pickles: Pickles) -> int | None:
    """Bytes of a task with a few numbers, strings and arrays; None: of any other.

    Programs submit them by the thousand, one by one, and it takes a sixth of the time.
    """
    if type(task) is not Task or len(task.args) + len(task.kwargs) > FEW_ARGUMENTS:
        return None
    if not _is_named(task.func):
        return None
    nbytes = 0
    for value in {id(v): v for v in chain(task.args, task.kwargs.values())}.values():
        type_ = type(value)
        if type_ in _NUMBERS:
            nbytes += _NUMBERS[type_]([value])
        elif type_ in (str, bytes, bytearray):
            nbytes += STRING_HEAD_NBYTES + len(value)
        elif type_ is np.ndarray and not value.dtype.hasobject:
            nbytes += _array_nbytes(value, pickles)
        elif type_ not in FREE:
            return None
    return nbytes


def _is_named(function: Any) -> bool:
    """Whether a function is one that pickling writes by its name alone."""
    if type(function) is BuiltinFunctionType:
        return type(function.__self__) is ModuleType
    return type(function) is FunctionType and not _by_value(function)


def _leaves(
    groups: dict[type, list[Any]], pickles: Pickles
) -> Iterator[tuple[type, list[Any]]]:
    """All that has a size of its own, by type. Long containers come as :class:`_Plain`."""
    seen = _Seen()
    depth = 0
    while groups:
        level: list[Iterable[Any]] = []
        depth += 1
        for type_, members in groups.items():
            if _class_by_value(type_):
                level.append([type_])
            contents = _contents(type_)
            if contents is None:
                yield type_, members
                continue
            plain = issubclass(type_, _PLAIN)
            many = len(members) > MANY and depth > SHALLOW
            told_apart = depth > DEEP_LEVELS or many or not plain
            new = seen.new(members) if told_apart else members
            if issubclass(type_, _CONTAINERS):
                level.append([_Plain(CONTAINER_NBYTES * len(new))])
                new, summaries = _summarised(new, seen, told_apart, pickles)
                level += summaries
            level += contents(new) if new else []
        groups = by_type(list(chain.from_iterable(level)))


def _summarised(
    containers: list[Any], seen: _Seen, told_apart: bool, pickles: Pickles
) -> tuple[list[Any], list[list[Any]]]:
    """Containers that are to be opened, and what stands for the others."""
    if max(map(len, containers), default=0) <= SHORT_ITEMS:
        return containers, []
    long = [c for c in containers if len(c) > SHORT_ITEMS]
    to_open = [c for c in containers if len(c) <= SHORT_ITEMS]
    summaries = []
    for container in long if told_apart else seen.new(long):
        kept = len(container) > KEPT_ITEMS
        summary = pickles.once(container, _summary) if kept else _summary(container)
        if summary is None:
            to_open.append(container)
        else:
            summaries.append(summary)
    return to_open, summaries


def by_type(things: list[Any]) -> dict[type, list[Any]]:
    """What has a size, by type."""
    found = set(map(type, things))
    many = len(things) > MANY
    types = found - (_FREE_IF_MANY if many else FREE)
    if len(found) == len(types) == 1:
        return {types.pop(): things}
    if len(types) <= FEW_TYPES:
        # A pass in C for each type is faster than one in Python for all.
        kinds = list(map(type, things))
        groups = {
            t: list(compress(things, map(operator.is_, kinds, repeat(t))))
            for t in types
        }
    else:
        groups = {t: [] for t in types}
        for thing in things:
            if type(thing) in types:
                groups[type(thing)].append(thing)
    if many:
        numbers = len(things) - sum(map(len, groups.values()))
        groups[_Plain] = [*groups.get(_Plain, ()), _Plain(FLOAT_NBYTES * numbers)]
    return groups


class _Seen:
    """Objects that were met. They are kept alive, so that an id means one of them."""

    def __init__(self) -> None:
        self._ids: set[int] = set()
        self._kept: list[list[Any]] = []

    def new(self, things: list[Any]) -> list[Any]:
        """Those that were not met before, once each."""
        ids = list(map(id, things))
        new = set(ids) - self._ids if self._ids else set(ids)
        if len(new) < len(ids):
            by_id = dict(zip(ids, things, strict=True))
            things = [by_id[i] for i in by_id if i in new]
        self._ids |= new
        self._kept.append(things)
        return things


_Contents = Callable[[list[Any]], list[Iterable[Any]]]
_Function = TypeVar("_Function", bound=Callable[..., Any])


def _by_type_once(function: _Function) -> _Function:
    """Keep what a function of a type, or of code, has given. (mypy: types are no keys.)"""
    return cast(_Function, functools.lru_cache(maxsize=1000)(function))


@_by_type_once
def _contents(type_: type[Any]) -> _Contents | None:
    """What gives the contents of objects of this type; None if they have none."""
    if issubclass(type_, (ProxyNode, Proxy)):
        return None
    if issubclass(type_, Task):
        return _in_tasks
    if issubclass(type_, DataNode):
        return lambda nodes: [map(operator.attrgetter("value"), nodes)]
    if issubclass(type_, (GraphNode, TaskRef)):
        return lambda objects: []
    if type_ in _INSIDE:
        return _INSIDE[type_]
    if issubclass(type_, type):
        return lambda classes: [vars(c).values() for c in classes if _class_by_value(c)]
    if issubclass(type_, _CONTAINERS):
        return _contents_of_containers(type_)
    if issubclass(type_, functools.partial):
        return _in_partials
    if _has_size(type_) or not _pickles_attributes(type_, object):
        return None
    slots = slots_of(type_)
    # Python 3.13: futures of asyncio have a dictionary that nobody can ask for.
    if not slots and any("__dict__" in vars(base) for base in type_.__mro__):
        return lambda instances: [
            [_Plain(INSTANCE_NBYTES * len(instances))],
            chain.from_iterable(map(dict.values, map(vars, instances))),  # type: ignore[arg-type]
        ]
    attributes = functools.partial(_attributes, slots)
    return lambda instances: [
        [_Plain(INSTANCE_NBYTES * len(instances))],
        *map(attributes, instances),
    ]


def _contents_of_containers(type_: type[Any]) -> _Contents | None:
    base = next(b for b in _CONTAINERS if issubclass(type_, b))
    items = _in_dicts if base is dict else _in_containers
    if type_ is base or type_ in _WELL_KNOWN:
        return items
    if _is_namedtuple(type_):
        return items
    if not _pickles_attributes(type_, base):
        return None
    attributes = functools.partial(_attributes, slots_of(type_))
    return lambda containers: [*items(containers), *map(attributes, containers)]


def _is_namedtuple(type_: type[Any]) -> bool:
    return issubclass(type_, tuple) and hasattr(type_, "_fields")


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
    keys: Iterable[Any] = list(chain.from_iterable(dicts))
    if _PLAIN_KEYS.issuperset(map(type, keys)):
        keys = set(keys)
    return [keys, chain.from_iterable(map(dict.values, dicts))]


def _in_containers(containers: list[Any]) -> list[Iterable[Any]]:
    return [chain.from_iterable(containers)]


def _in_partials(partials: list[Any]) -> list[Iterable[Any]]:
    return [
        chain(
            (partial.func,),
            partial.args,
            partial.keywords.values(),
            vars(partial).values(),
        )
        for partial in partials
    ]


def _in_slices(slices: list[Any]) -> list[Iterable[Any]]:
    parts = [list(map(part, slices)) for part in _OF_SLICE]
    # Nearly all are of numbers: a look at the types is enough.
    others = [part for part in parts if not _BOUNDS.issuperset(map(type, part))]
    return [[_Plain(SLICE_NBYTES * len(slices))], *others]


def _in_methods(methods: list[Any]) -> list[Iterable[Any]]:
    return [map(operator.attrgetter("__self__"), methods)]


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
    used = globals_of(function).values()
    keywords = (function.__kwdefaults__ or {}).values()
    attributes = vars(function).values()
    code = (function.__code__,)
    return chain(code, cells, function.__defaults__ or (), keywords, attributes, used)


def globals_of(function: FunctionType) -> dict[str, Any]:
    """Global variables that are pickled with a function."""
    if not _by_value(function):
        return {}
    variables = function.__globals__
    return {n: variables[n] for n in _names(function.__code__) if n in variables}


def _in_code(codes: list[Any]) -> list[Iterable[Any]]:
    return [(code.co_code, *code.co_consts) for code in codes]


# What is in objects of these very types.
_INSIDE: dict[type, _Contents] = {
    slice: _in_slices,
    FunctionType: lambda functions: list(map(_in_function, functions)),
    CodeType: _in_code,
    MethodType: _in_methods,
    BuiltinFunctionType: _in_methods,
    MethodWrapperType: _in_methods,
}


def _by_value(defined: Any) -> bool:
    """Whether pickling writes a function or a class itself, not only its name."""
    module = sys.modules.get(defined.__module__ or "")
    if module is None or defined.__module__ == "__main__":
        return True
    # A package that was registered stands for all that is in it.
    for package in cloudpickle.list_registry_pickle_by_value():
        if f"{defined.__module__}.".startswith(f"{package}."):
            return True
    try:
        found = operator.attrgetter(defined.__qualname__)(module)
    except AttributeError:
        return True
    return found is not defined and not hasattr(found, "__wrapped__")


@_by_type_once
def _class_by_value(type_: type[Any]) -> bool:
    """Whether instances carry their class, and with it what its attributes are."""
    return bool(type_.__flags__ & _HEAP_TYPE) and _by_value(type_)


@_by_type_once
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


_STATE = (
    "__reduce__",
    "__reduce_ex__",
    "__getstate__",
    "__getnewargs__",
    "__getnewargs_ex__",
)


def _pickles_attributes(type_: type[Any], base: type) -> bool:
    """Whether pickling an instance writes what is of its base, its attributes, no more."""
    own = (getattr(type_, n, None) is not getattr(base, n, None) for n in _STATE)
    known = type_ in copyreg.dispatch_table or any(own)
    return not known and bool(type_.__flags__ & _HEAP_TYPE)


@_by_type_once
def slots_of(type_: type[Any]) -> tuple[str, ...]:
    """The names of attributes that instances of a type have in slots."""
    names: list[str] = []
    for base in type_.__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name.startswith("__") and not name.endswith("__"):
                name = f"_{base.__name__.lstrip('_')}{name}"  # noqa: PLW2901
            names.append(name)
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


def _attributes(slots: tuple[str, ...], instance: Any) -> Iterable[Any]:
    # Some have no attributes although their type says so (asyncio.Future).
    named = getattr(instance, "__dict__", {}).values()
    return chain(named, (getattr(instance, s, None) for s in slots)) if slots else named


class _Counter:
    """A file that only counts what is written, up to a limit."""

    def __init__(self, at_most: int):
        self.nbytes = 0
        self._at_most = at_most

    def write(self, data: Any) -> None:
        self.nbytes += len(data)
        if self.nbytes >= self._at_most:
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


def _summary(container: Any) -> list[Any] | None:
    """What stands for all that is within a container; None if it is to be opened."""
    if type(container) not in _BUILT_IN:  # pickle would ask for its own methods
        if type(container) not in _WELL_KNOWN and not _is_namedtuple(type(container)):
            return None
        items = container.items() if isinstance(container, dict) else container
        container = list(items)
    counter = _Counter(SMALL_ITEM_NBYTES * len(container))
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


def _total(
    type_: type[Any], members: list[Any], counted: _Seen, pickles: Pickles
) -> int:
    """Bytes of those of these objects that were not counted before."""
    if type_ in _NUMBERS:
        return _NUMBERS[type_](members)
    if type_ in (str, bytes, bytearray):
        if max(map(len, members)) <= TINY_NBYTES:
            return STRING_HEAD_NBYTES * len(members) + sum(map(len, members))
        return sum(map(len, counted.new(members)))
    members = counted.new(members)
    for known, nbytes in _KNOWN:
        if issubclass(type_, known):
            return sum(map(nbytes, members))
    if issubclass(type_, np.ndarray):
        size = functools.partial(_array_nbytes, pickles=pickles)
        return sum(
            pickles.once(array, size) if array.dtype.hasobject else size(array)
            for array in members
        )
    if is_frame(type_):
        weigh = functools.partial(nbytes_of_all, pickles=pickles.for_parts())
        find = functools.partial(frame_nbytes, weigh=weigh)
        return sum(pickles.once(frame, find) for frame in members)
    if _is_arrow(type_):
        return sum(map(operator.attrgetter("nbytes"), members))
    return pickles.nbytes(members)


def _ints_nbytes(ints: list[int]) -> int:
    nbytes = INT_NBYTES * len(ints)
    if max(ints).bit_length() < 64 and min(ints).bit_length() < 64:
        return nbytes
    return nbytes + sum(map(int.bit_length, ints)) // 8


_NUMBERS: dict[type, Callable[[list[Any]], int]] = {
    int: _ints_nbytes,
    float: lambda floats: FLOAT_NBYTES * len(floats),
    complex: lambda numbers: COMPLEX_NBYTES * len(numbers),
}
_KNOWN: list[tuple[Any, Callable[[Any], int]]] = [
    ((_Plain, memoryview), operator.attrgetter("nbytes")),
    (array.array, lambda a: len(a) * a.itemsize),
    (np.generic, lambda scalar: scalar.nbytes + SCALAR_HEAD_NBYTES),
]


@_by_type_once
def _has_size(type_: type[Any]) -> bool:
    """Whether the size of such objects is known without looking at their attributes."""
    known = (types for types, _ in _KNOWN)
    plain = (str, bytes, bytearray, int, float, complex, np.ndarray, *known)
    return issubclass(type_, plain) or is_frame(type_) or _is_arrow(type_)


@_by_type_once
def _is_arrow(type_: type[Any]) -> bool:
    return type_.__module__.partition(".")[0] == "pyarrow" and hasattr(type_, "nbytes")


def _array_nbytes(array: np.ndarray, pickles: Pickles) -> int:
    if isinstance(array, np.ma.MaskedArray):
        mask = array.mask if array.mask is not np.ma.nomask else np.empty(0)
        parts = [np.asarray(array), np.asarray(mask)]
        return sum(_array_nbytes(part, pickles) for part in parts)
    nbytes: int = 0 if array.dtype == object else array.nbytes
    if nbytes < SMALL_ARRAY_NBYTES:
        nbytes += ARRAY_HEAD_NBYTES
    if array.dtype.hasobject:
        nbytes += nbytes_of_all(array.ravel().tolist(), pickles)
    if type(array) is not np.ndarray and getattr(array, "__dict__", None):
        nbytes += nbytes_of_all(list(vars(array).values()), pickles)
    return nbytes
