"""Kinds of values of Python itself: containers, instances, functions."""

from __future__ import annotations

import array as arrays
import decimal
import enum
import fractions
import functools
import io
import ipaddress
import operator
import pathlib
import types
import uuid
import xml.etree.ElementTree
from collections import ChainMap, Counter, OrderedDict, UserList, defaultdict, deque
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from benchmarks.kinds import classes
from benchmarks.kinds.kind import array, kind, pieces, texts

# Runs of bytes.


@kind("bytes")
def _(n: int) -> Any:
    return array(n).tobytes()


@kind("bytearray")
def _(n: int) -> Any:
    return bytearray(array(n).tobytes())


@kind("str")
def _(n: int) -> Any:
    return "".join(texts(n, 100))


@kind("str, not ASCII")
def _(n: int) -> Any:
    return "".join(texts(n * 3 // 4)).translate(str.maketrans("0123", "éßω水"))


@kind("array.array")
def _(n: int) -> Any:
    return arrays.array("d", array(n).tobytes())


@kind("io.BytesIO")
def _(n: int) -> Any:
    return io.BytesIO(array(n).tobytes())


# Containers of arrays, each far below the threshold.


@kind("list of arrays")
def _(n: int) -> Any:
    return pieces(n)


@kind("tuple of arrays")
def _(n: int) -> Any:
    return tuple(pieces(n))


@kind("dict of arrays")
def _(n: int) -> Any:
    return {f"layer {i}": part for i, part in enumerate(pieces(n))}


@kind("dict of dicts of lists of arrays")
def _(n: int) -> Any:
    parts = pieces(n)
    return {i: {"weights": [parts[i], [parts[i + 32]]]} for i in range(32)}


@kind("list of slices of one array")
def _(n: int) -> Any:
    return np.array_split(array(n), 64)


@kind("slices that hold arrays")
def _(n: int) -> Any:
    return [slice(part, None, i) for i, part in enumerate(pieces(n))]


@kind("a slice that holds an array")
def _(n: int) -> Any:
    return slice(None, array(n))


# Containers of small things.


@kind("list of floats")
def _(n: int) -> Any:
    return array(8 * (n // 9)).tolist()


@kind("list of lists of ints")
def _(n: int) -> Any:
    rows = np.random.default_rng(0).integers(1 << 20, 1 << 30, (n // 50, 9))
    return rows.tolist()


@kind("list of str")
def _(n: int) -> Any:
    return texts(n)


@kind("list of np.str_")
def _(n: int) -> Any:
    return [np.str_(text) for text in texts(n // 4)]


@kind("list of np.float64")
def _(n: int) -> Any:
    return list(array(8 * (n // 20)))


@kind("list of large ints")
def _(n: int) -> Any:
    # Dask makes strings of them to name a bag, and Python none of more than 4,300 digits.
    data = array(n).tobytes()
    parts = (data[i : i + 1600] for i in range(0, len(data), 1600))
    return [int.from_bytes(part, "little") for part in parts]


@kind("int")
def _(n: int) -> Any:
    return int.from_bytes(array(n).tobytes(), "little")


@kind("set of bytes")
def _(n: int) -> Any:
    return {text.encode() for text in texts(n)}


@kind("frozenset of str")
def _(n: int) -> Any:
    return frozenset(texts(n))


@kind("dict of small things")
def _(n: int) -> Any:
    return {text: (i, text[:3], None, i / 7) for i, text in enumerate(texts(n // 2))}


@kind("dict whose keys are large")
def _(n: int) -> Any:
    return {(i, part.tobytes()): None for i, part in enumerate(pieces(n))}


@kind("list of dicts")
def _(n: int) -> Any:
    return [{"name": text, "n": i, "at": i / 3} for i, text in enumerate(texts(n // 2))]


@kind("list of bytes, with one twice")
def _(n: int) -> Any:
    parts = [part.tobytes() for part in pieces(n)]
    return [*parts, parts[0]]


@kind("deque")
def _(n: int) -> Any:
    return deque(texts(n), maxlen=10**6)


@kind("OrderedDict")
def _(n: int) -> Any:
    return OrderedDict((i, part) for i, part in enumerate(pieces(n)))


@kind("defaultdict")
def _(n: int) -> Any:
    made: Any = defaultdict(list)
    for i, text in enumerate(texts(n)):
        made[i % 100].append(text)
    return made


@kind("Counter")
def _(n: int) -> Any:
    return Counter({text: i for i, text in enumerate(texts(n))})


@kind("ChainMap")
def _(n: int) -> Any:
    return ChainMap({"a": 1}, dict(enumerate(pieces(n))))


@kind("UserDict")
def _(n: int) -> Any:
    return classes.Registry(dict(enumerate(pieces(n))))


@kind("UserList")
def _(n: int) -> Any:
    return UserList(pieces(n))


@kind("iterator over a list")
def _(n: int) -> Any:
    return iter(pieces(n))


@kind("list of Fraction")
def _(n: int) -> Any:
    return [fractions.Fraction(i * 7919 + 1, 10**12 + 39) for i in range(n // 20)]


@kind("list of Decimal")
def _(n: int) -> Any:
    return [decimal.Decimal(repr(x)) for x in array(8 * (n // 30)).tolist()]


@kind("list of Path")
def _(n: int) -> Any:
    return [pathlib.PurePosixPath("/data", t) for t in texts(n)]


@kind("list of datetime")
def _(n: int) -> Any:
    start = datetime(2001, 1, 1)
    return [start + timedelta(seconds=997 * i) for i in range(n // 20)]


@kind("list of UUID")
def _(n: int) -> Any:
    return [uuid.UUID(text) for text in texts(n, 32)]


@kind("list of IP addresses")
def _(n: int) -> Any:
    return [ipaddress.IPv4Address(i * 7919) for i in range(n // 12)]


@kind("XML tree")
def _(n: int) -> Any:
    root = xml.etree.ElementTree.Element("root")
    for text in texts(n // 2):
        xml.etree.ElementTree.SubElement(root, "item").text = text
    return root


# Instances.


@kind("instance")
def _(n: int) -> Any:
    return classes.Box(array(n))


@kind("instance of parts")
def _(n: int) -> Any:
    return classes.Model(pieces(n))


@kind("instance with slots")
def _(n: int) -> Any:
    return classes.Slotted(pieces(n))


@kind("instance with slots and attributes")
def _(n: int) -> Any:
    return classes.SlottedChild(array(n // 2), pieces(n // 2))


@kind("201 instances with slots, the last is large")
def _(n: int) -> Any:
    return [*(classes.Slotted(i) for i in range(200)), classes.Slotted(array(n))]


@kind("list of small instances")
def _(n: int) -> Any:
    return [classes.Box(text) for text in texts(n // 2)]


@kind("data class")
def _(n: int) -> Any:
    return classes.Data(pieces(n))


@kind("data class with slots")
def _(n: int) -> Any:
    return classes.FrozenData(tuple(pieces(n)))


@kind("task result of TaPS")
def _(n: int) -> Any:
    return classes.TaskResult(array(n), {"started": 1.5, "ended": 2.5})


@kind("namedtuple")
def _(n: int) -> Any:
    return classes.Pair(array(n // 2), pieces(n // 2))


@kind("NamedTuple")
def _(n: int) -> Any:
    return classes.Typed(array(n), "typed")


@kind("dict by members of an enum")
def _(n: int) -> Any:
    return {classes.Colour.RED: array(n // 2), classes.Colour.GREEN: array(n // 2, 1)}


@kind("member of an enum that holds an array")
def _(n: int) -> Any:
    class Local(enum.Enum):
        SMALL = 1
        LARGE = array(n).tobytes()

    return Local.LARGE


@kind("instance with __reduce__")
def _(n: int) -> Any:
    return classes.Reduced(pieces(n))


@kind("instance with __getstate__")
def _(n: int) -> Any:
    return classes.WithState(pieces(n))


@kind("instance with __getnewargs__")
def _(n: int) -> Any:
    return classes.WithNewArguments(pieces(n))


@kind("instance that copyreg pickles")
def _(n: int) -> Any:
    return classes.Registered(pieces(n))


@kind("SimpleNamespace")
def _(n: int) -> Any:
    return types.SimpleNamespace(weights=pieces(n), name="namespace")


@kind("exception")
def _(n: int) -> Any:
    error = classes.ProblemError("at", texts(n // 2))
    error.context = pieces(n // 2)  # type: ignore[attr-defined]
    return error


def _with(value: Any, n: int) -> Any:
    value.note = pieces(n)
    return value


@kind("subclass of dict with attributes")
def _(n: int) -> Any:
    return _with(classes.DictWith(a=1), n)


@kind("subclass of list with attributes")
def _(n: int) -> Any:
    return _with(classes.ListWith([1, 2]), n)


@kind("subclass of set with attributes")
def _(n: int) -> Any:
    return _with(classes.SetWith([1, 2]), n)


@kind("subclass of tuple with attributes")
def _(n: int) -> Any:
    return _with(classes.TupleWith([1, 2]), n)


@kind("subclass of str with attributes")
def _(n: int) -> Any:
    return _with(classes.StrWith("a string"), n)


@kind("subclass of int with attributes")
def _(n: int) -> Any:
    return _with(classes.IntWith(7), n)


@kind("list of subclasses of float with attributes")
def _(n: int) -> Any:
    return [_with(classes.FloatWith(i), n // 9) for i in range(9)]


@kind("instance of a class that is pickled by value")
def _(n: int) -> Any:
    class Local:
        def __init__(self, value: Any):
            self.value = value

    return Local(pieces(n))


@kind("class that is pickled by value")
def _(n: int) -> Any:
    class Local:
        weights = array(n)

    return Local


@kind("values of a dict")
def _(n: int) -> Any:
    return dict(enumerate(pieces(n))).values()


# Functions, and what else can be called.


@kind("closure", call=(2,))
def _(n: int) -> Any:
    weights = array(n)

    def predict(x: float) -> float:
        return float(weights[0] * x)

    return predict


@kind("closure over parts", call=(2,))
def _(n: int) -> Any:
    parts = pieces(n)
    return lambda x: float(parts[0][0] * x)


@kind("closure within a closure", call=(2,))
def _(n: int) -> Any:
    parts = pieces(n)

    def part(i: int) -> np.ndarray:
        return parts[i]

    return lambda x: float(part(0)[0] * x)


@kind("function with large defaults", call=(2,))
def _(n: int) -> Any:
    def predict(x: float, weights: Any = array(n // 2), *, more: Any = pieces(n // 2)):  # type: ignore[no-untyped-def]  # noqa: B008
        return float(weights[0] * x + more[0][0])

    return predict


@kind("function with attributes", call=(2,))
def _(n: int) -> Any:
    def double(x: float) -> float:
        return 2 * x

    return _with(double, n)


@kind("function that uses a global variable", call=(2,))
def _(n: int) -> Any:
    # As in a notebook: nobody can import it.
    namespace: dict[str, Any] = {"__name__": "__notebook__", "weights": pieces(n)}
    exec("def predict(x):\n    return float(weights[0][0] * x)", namespace)
    return namespace["predict"]


@kind("partial", call=(2,))
def _(n: int) -> Any:
    return functools.partial(_first_times, pieces(n))


def _first_times(parts: Any, x: float) -> float:
    return float(parts[0][0] * x)


@kind("partial with a keyword", call=(2,))
def _(n: int) -> Any:
    return functools.partial(functools.partial(_times_first), parts=pieces(n))


def _times_first(x: float, parts: Any) -> float:
    return float(parts[0][0] * x)


@kind("bound method of a model of parts", call=(2,))
def _(n: int) -> Any:
    return classes.Model(pieces(n)).predict


@kind("bound method of an instance", call=())
def _(n: int) -> Any:
    return classes.Box(array(n)).first


@kind("dict.get", call=("nobody",))
def _(n: int) -> Any:
    return dict.fromkeys(texts(n), 1).get


@kind("list.index", call=("last",))
def _(n: int) -> Any:
    return [*texts(n), "last"].index


@kind("set.__contains__", call=("nobody",))
def _(n: int) -> Any:
    return set(texts(n)).__contains__


@kind("str.count", call=("ab",))
def _(n: int) -> Any:
    return "".join(texts(n)).count


@kind("ndarray.sum", call=())
def _(n: int) -> Any:
    # Whole numbers: the sum of others depends on where in memory they are.
    return np.arange(n // 8).sum


@kind("itemgetter of large keys", call=({},))
def _(n: int) -> Any:
    class Anything(dict):
        def __missing__(self, key: Any) -> int:
            return len(key)

    return functools.partial(_called_with, operator.itemgetter(*texts(n)), Anything())


def _called_with(get: Callable[[Any], Any], things: Any, _: Any) -> int:
    return len(get(things))
