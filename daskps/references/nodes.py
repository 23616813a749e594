"""The graph node that stands for a stored value. Made on the client, inert on the
scheduler, resolved on the worker.

A :class:`ProxyNode` takes the place of a literal: of a whole task that is only data, or of
an argument within a task. Dask evaluates nested nodes just before it calls the user's
function, which therefore receives the real object and is not wrapped.
"""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

from daskps import progress
from daskps.dask_private.graphs import GraphNode
from daskps.exceptions import ObjectMissingError
from daskps.references.giving_back import give_back
from daskps.references.together import Readable
from daskps.serialize.values import deserialize
from daskps.stores import opened

_anonymous = itertools.count()

# A part of an object that is smaller than this is copied out of it. A larger one stays a
# view, and keeps the whole mapping alive.
COPY_BELOW = 1 << 16


class ObjectId(NamedTuple):
    """An object in a store.

    Attributes
    ----------
    store
        Name of the store, as in :mod:`daskps.stores.opened`.
    key
        The connector's key.
    """

    store: str
    key: Any


class StoredBytes(NamedTuple):
    """A run of bytes within an object.

    Attributes
    ----------
    id
        The object.
    offset, nbytes
        Where in it.
    """

    id: ObjectId
    offset: int
    nbytes: int


class StoredValue:
    """Where the parts of one serialised value are.

    Attributes
    ----------
    stream
        The pickle, or where it is.
    buffers
        For each buffer of the pickle its bytes, or where they are.
    writable
        For each buffer, whether the value may write to it.
    refers_to
        Objects that the value does not consist of, but needs: it is a proxy of one.
    owners
        On the client only: what keeps the objects alive until a graph is submitted.
    """

    stream: bytes | StoredBytes
    buffers: list[bytes | StoredBytes]
    writable: list[bool]
    refers_to: tuple[ObjectId, ...]
    owners: list[Any]

    __slots__ = ("buffers", "owners", "refers_to", "stream", "writable")

    def __init__(
        self,
        stream: bytes | StoredBytes,
        buffers: list[bytes | StoredBytes],
        writable: list[bool],
        refers_to: tuple[ObjectId, ...] = (),
    ):
        self.stream = stream
        self.buffers = buffers
        self.writable = writable
        self.refers_to = refers_to
        self.owners = []

    def __reduce__(self) -> tuple[Any, ...]:
        parts = (self.stream, self.buffers, self.writable)
        return StoredValue, (*parts, self.refers_to) if self.refers_to else parts

    def objects(self) -> set[ObjectId]:
        """The objects that this value needs."""
        parts = itertools.chain((self.stream,), self.buffers)
        held = {part.id for part in parts if isinstance(part, StoredBytes)}
        return held.union(self.refers_to)

    def stored_nbytes(self) -> int:
        """How much of it is in a store (bytes)."""
        parts = itertools.chain((self.stream,), self.buffers)
        return sum(part.nbytes for part in parts if isinstance(part, StoredBytes))

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return self.stream, self.buffers, self.writable

    def resolve(self) -> Any:
        """Read the value: a new object at each call.

        Raises
        ------
        ObjectMissingError
            If a part of it is not in its store, or the store is not open here.
        """
        reader = _Reader()
        return deserialize(
            reader.read(self.stream, writable=False),
            [
                reader.read(part, writable)
                for part, writable in zip(self.buffers, self.writable, strict=True)
            ],
        )


def resolve_in_task(value: Readable) -> Any:
    """Read a value for the task that runs here.

    Raises
    ------
    ObjectMissingError
        If a part of it is not in its store, or there is no other worker to read it.
    distributed.Reschedule
        If it cannot be read here, but perhaps elsewhere.
    """
    try:
        # What a proxy stands for is read later, if at all: too late to give the task back.
        for id in value.refers_to:
            opened.expect(id.store, id.key)
    except ObjectMissingError as e:
        give_back(e)
    try:
        return value.resolve()
    except ObjectMissingError as e:
        give_back(e)
        raise


class _Reader:
    """Reads the parts of one value, each object once.

    No two writable buffers share memory, even where equal content made them share an
    object: the user may change one of them. What nobody can write to is mapped once for
    all values of this process.
    """

    def __init__(self) -> None:
        self._own: dict[ObjectId, memoryview] = {}
        self._read_only: dict[ObjectId, memoryview] = {}
        self._given: set[StoredBytes] = set()

    def read(self, part: bytes | StoredBytes, writable: bool) -> Any:
        if not isinstance(part, StoredBytes):
            return bytearray(part) if writable else part
        with progress.part(part.nbytes):
            data = self._own_object(part) if writable else self._object(part.id)
        end = part.offset + part.nbytes
        if data.nbytes < end:
            raise ObjectMissingError(
                f"Object {part.id.key} in store {part.id.store!r} has {data.nbytes} "
                f"bytes where at least {end} were stored: it was cut short. Submit the "
                "computation again."
            )
        if part.nbytes < min(COPY_BELOW, data.nbytes) or (writable and data.readonly):
            copy = bytearray if writable else bytes
            return copy(data[part.offset : end])
        return data[part.offset : end]

    def _own_object(self, part: StoredBytes) -> memoryview:
        if part.id not in self._own or part in self._given:
            self._own[part.id] = memoryview(opened.read(part.id.store, part.id.key))
        self._given.add(part)
        return self._own[part.id]

    def _object(self, id: ObjectId) -> memoryview:
        if id not in self._read_only:
            self._read_only[id] = _read_only(id)
        return self._read_only[id]


#: What is mapped to be read only, by object.
_mapped: weakref.WeakValueDictionary[ObjectId, Any] = weakref.WeakValueDictionary()


def _read_only(id: ObjectId) -> memoryview:
    mapped = _mapped.get(id)
    if mapped is None:
        data = memoryview(opened.read(id.store, id.key))
        # A mapping lives as long as any view of it. What was read into memory cannot be
        # referred to in this way, and is not shared.
        if not isinstance(data.obj, (bytes, bytearray)):
            with contextlib.suppress(TypeError):
                _mapped[id] = data.obj
        return data.toreadonly()
    return memoryview(mapped).cast("B").toreadonly()


class ProxyNode(GraphNode):
    """Stands in a graph for a value that is in a store.

    Parameters
    ----------
    key
        The task's key; None makes one up, for an argument within a task.
    value
        Where the value is.
    """

    value: Readable

    __slots__ = ("value",)

    def __init__(self, key: Any, value: Readable):
        self.value = value
        # Slots of GraphNode, which mypy does not see.
        self.key = ("proxy", next(_anonymous)) if key is None else key  # type: ignore[misc]
        self._dependencies: frozenset[Any] = frozenset()  # type: ignore[misc]

    @property
    def data_producer(self) -> bool:
        """As :class:`dask._task_spec.DataNode`, in whose place this node stands."""
        return True

    def copy(self) -> ProxyNode:
        return ProxyNode(self.key, self.value)

    def substitute(self, subs: dict[Any, Any], key: Any = None) -> ProxyNode:
        if key is None or key == self.key:
            return self
        return ProxyNode(key, self.value)

    def __call__(self, values: Any = ()) -> Any:
        return resolve_in_task(self.value)

    def __reduce__(self) -> tuple[Any, ...]:
        return ProxyNode, (self.key, self.value)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return type(self).__name__, *self.value.__dask_tokenize__()

    def __hash__(self) -> int:
        return hash((type(self), self.key))

    def __sizeof__(self) -> int:
        # Dask asks for the size of graphs. What is in the store is not part of them.
        return 512

    def __repr__(self) -> str:
        ids = ", ".join(sorted(str(i.key) for i in self.value.objects()))
        return f"<ProxyNode {self.key!r} {ids or 'inline'}>"


class _ReadBeforeCall:
    """What is called instead of a :class:`ProxyFunction`: the function itself.

    Not a method, which would call the function, and be a frame in its tracebacks.
    """

    def __get__(self, proxy: ProxyFunction | None, owner: type) -> Any:
        return self if proxy is None else resolve_in_task(proxy.value)


class ProxyFunction:
    """Stands in a task for a function that carries a large value.

    For a closure, a ``functools.partial``, a method of a large instance. Calling it reads
    the function and calls that.

    Parameters
    ----------
    value
        Where the function is.
    name
        What Dask calls it, in messages.
    """

    value: Readable
    __name__: str

    __slots__ = ("__name__", "value")

    __call__ = _ReadBeforeCall()

    def __init__(self, value: Readable, name: str):
        self.value = value
        self.__name__ = name

    def __reduce__(self) -> tuple[Any, ...]:
        return ProxyFunction, (self.value, self.__name__)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return type(self).__name__, *self.value.__dask_tokenize__()

    def __repr__(self) -> str:
        return f"<ProxyFunction {self.__name__}>"


def stored_objects(spec: Any) -> set[ObjectId]:
    """The objects that a task needs when it runs.

    Follows what Dask evaluates: arguments, nested tasks and containers, and the graphs
    within fused tasks.

    Parameters
    ----------
    spec
        A task's ``run_spec``, or anything within one.
    """
    found: set[ObjectId] = set()
    stack = [spec]
    while stack:
        node = stack.pop()
        if isinstance(node, (ProxyNode, ProxyFunction)):
            found |= node.value.objects()
        else:
            stack.extend(children(node))
    return found


def children(node: Any) -> Iterator[Any]:
    """The function, the arguments and the nodes that a node is made of."""
    if isinstance(node, GraphNode):
        yield getattr(node, "func", None)
        yield from getattr(node, "args", ())
        yield from getattr(node, "kwargs", {}).values()
    elif type(node) is dict:
        # The graph within a fused task, whose values are nodes. Nodes in a literal dict
        # or list are not evaluated by Dask, so they are not looked for.
        yield from (v for v in node.values() if isinstance(v, GraphNode))
