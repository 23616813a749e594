"""A double of DAOS's Python bindings, which come with DAOS and cannot be installed alone.

It behaves as pydaos of DAOS 2.4 does, its traps included, since those are what has to be
tested: see each method. Where the real one fails in some runs and not in others, this one
always fails; where the real one hangs, this one raises an error. Pools and containers are
directories, dictionaries are directories in them, and values are files, so that several
processes see the same ones.

Importing it puts a handler for SIGTERM in place of the one that is there, which ends the
process with status 1, unless ``IPATH_NO_BACKTRACE`` and ``HFI_NO_BACKTRACE`` are set: as a
libfabric that has the PSM provider does.

Environment
-----------
PYDAOS_DOUBLE
    The directory of all pools.
PYDAOS_DOUBLE_BANDWIDTH
    Bytes for each second, for which a transfer keeps the interpreter's lock, as the real
    one does. Default: transfers take no time.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import itertools
import os
import secrets
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

# One value: the length is a signed 32-bit number on its way.
MAX_VALUE = 2**31 - 1

#: Names of error codes.
CODES = {
    -1002: "DER_NO_HDL",
    -1003: "DER_INVAL",
    -1004: "DER_EXIST",
    -1005: "DER_NONEXIST",
    -1007: "DER_NOSPACE",
    -1017: "DER_OVERFLOW",
}
NO_HDL, INVAL, EXIST, NONEXIST, NOSPACE, OVERFLOW = CODES

# Through this, a call keeps the interpreter's lock.
_libc = ctypes.PyDLL(None)
_handles = itertools.count(1)
# In the file of a value: how long its key is, and then the key.
_HEAD = struct.Struct("<I")


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _backtrace(_: int) -> None:
    os._exit(1)


if not {"IPATH_NO_BACKTRACE", "HFI_NO_BACKTRACE"} <= os.environ.keys():
    _libc.signal(signal.SIGTERM, _backtrace)


class PyDError(Exception):
    """What went wrong is in the text alone."""

    def __init__(self, message: str, rc: int):
        self.message = f"{message}: {CODES.get(rc, rc)}"
        super().__init__(message, rc)

    def __str__(self) -> str:
        return self.message


class DObjNotFound(Exception):  # noqa: N818  (its name in pydaos)
    """There is no object of this name.

    Its argument is itself, so that ``repr`` and pickle follow it for ever.
    """

    def __init__(self, name: str):
        self.name = name
        super().__init__(self)

    def __str__(self) -> str:
        return f"Failed to open '{self.name}'"


class DaosClient:
    """The library, initialised once in each process."""

    initialised = 0
    process: int | None = None

    @classmethod
    def check(cls) -> None:
        """The real library may hang in a forked process, and in its parent after that."""
        if cls.process is None:
            cls.initialised += 1
            cls.process = os.getpid()
        if cls.process != os.getpid():
            raise RuntimeError("DAOS in a forked process: here the real one may hang")
        if os.path.exists(_hung(os.getpid())):
            raise RuntimeError("a forked process closed a handle: the real one hangs")


def _root() -> str:
    return os.environ["PYDAOS_DOUBLE"]


def _hung(process: int | None) -> str:
    """A file that is there if the library in a process does not answer any more."""
    return os.path.join(_root(), f"hung.{process}")


def _agent() -> str:
    """Which run of the agent this is."""
    try:
        with open(os.path.join(_root(), "agent")) as f:
            return f.read()
    except FileNotFoundError:
        return ""


def restart_agent() -> None:
    """As when the node's agent is restarted: no handle works any more."""
    with open(os.path.join(_root(), "agent.new"), "w") as f:
        f.write(secrets.token_hex(8))
    os.rename(f.name, os.path.join(_root(), "agent"))


def create_container(pool: str, container: str) -> None:
    """As ``daos cont create POOL CONTAINER --type=PYTHON``."""
    os.makedirs(os.path.join(_root(), pool, container))


def _file_name(name: bytes) -> str:
    """Names and keys may be far longer than names of files."""
    return hashlib.blake2b(name, digest_size=20).hexdigest()


class _Handle:
    """Something that is open in the library, in one process."""

    def __init__(self) -> None:
        DaosClient.check()
        self._handle = next(_handles)
        self._process = os.getpid()
        self._agent_run = _agent()

    def __del__(
        self,
        # Bound here, since the module may be gone by then.
        is_finalizing: Callable[[], bool] = sys.is_finalizing,
        getpid: Callable[[], int] = os.getpid,
        abort: Callable[[], None] = os.abort,
        mark: Callable[..., Any] = open,
        hung: Callable[[int | None], str] = _hung,
    ) -> None:
        process = self.__dict__.get("_process")
        if process is None:
            return
        if process != getpid():
            # It was opened by the process from which this one was forked.
            mark(hung(process), "w").close()
            abort()
        # The real library is gone by then, sometimes.
        if is_finalizing():
            abort()

    def __reduce__(self) -> Any:
        return _unpickled, (type(self), dict(self.__dict__))

    def _use(self, doing: str) -> None:
        DaosClient.check()
        if self._process != os.getpid():
            # A raw handle of another process.
            os.kill(os.getpid(), signal.SIGSEGV)
        if self._agent_run != _agent():
            raise PyDError(f"failed to {doing}", NO_HDL)


def _unpickled(kind: type[_Handle], attributes: dict[str, Any]) -> _Handle:
    handle = kind.__new__(kind)
    handle.__dict__.update(attributes)
    return handle


class DCont(_Handle):
    """A container, by labels or UUIDs, or by its path in the unified namespace."""

    def __init__(
        self, pool: str | None = None, cont: str | None = None, path: str | None = None
    ):
        super().__init__()
        if path is None and (pool is None or cont is None):
            raise PyDError("invalid pool or container UUID", INVAL)
        self._name = f"daos://{pool}/{cont}" if path is None else path
        self._path = path or os.path.join(_root(), str(pool), str(cont))
        if not os.path.isdir(self._path):
            raise PyDError("failed to access container", NONEXIST)

    def __str__(self) -> str:
        return self._name

    __repr__ = __str__

    def get(self, name: str) -> DDict:
        """Open an object of this container."""
        path = self._object(name, "look up object")
        if not os.path.isdir(path):
            raise DObjNotFound(name)
        return DDict(self, name, path)

    def __getitem__(self, name: str) -> DDict:
        return self.get(name)

    def dict(self, name: str, v: dict[Any, Any] | None = None, cid: str = "0") -> DDict:
        """Create a dictionary, of some class of objects; an error if there is one."""
        path = self._object(name, "create DAOS dict")
        try:
            os.mkdir(path)
        except FileExistsError:
            raise PyDError("failed to create DAOS dict", EXIST) from None
        created = DDict(self, name, path)
        if v:
            created.bput(v)
        return created

    def array(self, name: str, v: Any = None, cid: str = "0") -> Any:
        """Not made by this double."""
        raise NotImplementedError

    def _object(self, name: str, doing: str) -> str:
        self._use(doing)
        if "\0" in name:
            raise ValueError("embedded null character")
        if not name:
            raise PyDError(f"failed to {doing}", INVAL)
        return os.path.join(self._path, _file_name(name.encode()))


class _Keys:
    """What iterating over a dictionary gives: it cannot be iterated over itself."""

    def __init__(self, keys: Iterator[bytes]):
        self._keys = keys

    def __next__(self) -> str:
        try:
            return next(self._keys).decode()
        except UnicodeDecodeError as e:
            raise SystemError("a key that is no text") from e


class DDict(_Handle):
    """A dictionary in a container. It does not have all that a ``dict`` has."""

    #: Larger values are read in two round trips.
    value_size = 1 << 20

    def __init__(self, cont: DCont, name: str, path: str):
        super().__init__()
        self.cont = cont
        self.name = name
        self._path = path

    def __str__(self) -> str:
        return self.name

    # Compared by content, and so not to be hashed.
    def __eq__(self, other: object) -> bool:
        content = other.dump() if isinstance(other, DDict) else other
        return self.dump() == content

    # As Python itself does where there is __eq__ alone; mypy takes it for a method.
    __hash__ = None  # type: ignore[assignment]

    def get(self, key: str | bytes) -> bytes:
        values: dict[Any, Any] = {key: None}
        self.bget(values)
        if values[key] is None:
            raise KeyError(key)
        return values[key]

    def __getitem__(self, key: str | bytes) -> bytes:
        return self.get(key)

    def put(self, key: str | bytes, value: Any) -> None:
        self.bput({key: value})

    def __setitem__(self, key: str | bytes, value: Any) -> None:
        self.put(key, value)

    def pop(self, key: str | bytes) -> None:
        """Delete; silent if it is not there, and never gives the value."""
        self.put(key, None)

    def __delitem__(self, key: str | bytes) -> None:
        self.put(key, None)

    def bget(
        self, values: dict[Any, Any] | None, value_size: int | None = None
    ) -> dict[Any, Any] | None:
        """Fill in the values of keys; None for what is not there. Gives what it is given."""
        self._use("retrieve KV value")
        for key in values or ():
            values[key] = self._fetch(key)
        return values

    def bput(self, values: dict[Any, Any] | None) -> None:
        """Put several; with one that is not valid after others, the process aborts."""
        self._use("store KV value")
        for i, (key, value) in enumerate((values or {}).items()):
            try:
                checked = _checked(value)
            except TypeError:
                if i:
                    os.abort()
                raise
            self._store(key, checked)

    def dump(self) -> dict[str, bytes]:
        """All keys and values."""
        values = dict.fromkeys(self)
        self.bget(values)
        return values

    def __contains__(self, key: str | bytes) -> bool:
        # The value is transferred.
        try:
            self.get(key)
        except KeyError:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        self._use("enumerate KV pair")
        return _Keys(self._all_keys())  # type: ignore[return-value]

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return any(True for _ in self)

    def _all_keys(self) -> Iterator[bytes]:
        for name in os.listdir(self._path):
            # It may be deleted meanwhile, or not all there.
            with contextlib.suppress(FileNotFoundError):
                if not name.endswith(".new"):
                    yield self._read(os.path.join(self._path, name))[0]

    def _file(self, key: str | bytes) -> tuple[str, bytes]:
        if not isinstance(key, (str, bytes)):
            raise TypeError(f"expected bytes, {type(key).__name__} found")
        raw = key.encode() if isinstance(key, str) else key
        raw = raw.split(b"\0")[0]  # a key is a C string
        if not raw:
            raise PyDError("failed to store KV value", INVAL)
        return os.path.join(self._path, _file_name(raw)), raw

    def _store(self, key: str | bytes, value: bytes) -> None:
        path, raw = self._file(key)
        _transfer(len(value))
        if not value:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        new = os.path.join(self._path, secrets.token_hex(8) + ".new")
        with open(new, "wb") as f:
            f.write(_HEAD.pack(len(raw)) + raw)
            f.write(value)
        os.rename(new, path)

    def _fetch(self, key: str | bytes) -> bytes | None:
        try:
            _, value = self._read(self._file(key)[0])
        except FileNotFoundError:
            return None
        _transfer(len(value))
        return value

    @staticmethod
    def _read(path: str) -> tuple[bytes, bytes]:
        with open(path, "rb") as f:
            (length,) = _HEAD.unpack(f.read(_HEAD.size))
            return f.read(length), f.read()


def _checked(value: Any) -> bytes:
    """What is stored of a value; an empty one deletes the key."""
    if value is None:
        return b""
    if isinstance(value, str):
        value = value.encode()
    if not isinstance(value, bytes):
        raise TypeError(f"expected bytes, {type(value).__name__} found")
    if len(value) > MAX_VALUE:
        raise PyDError("failed to store KV value", OVERFLOW)
    return value


def _transfer(nbytes: int) -> None:
    bandwidth = os.environ.get("PYDAOS_DOUBLE_BANDWIDTH")
    if bandwidth:
        end = time.perf_counter() + nbytes / float(bandwidth)
        while (left := end - time.perf_counter()) > 0:
            # Not more than a second: usleep() may refuse that.
            _libc.usleep(int(min(left, 0.5) * 1e6) + 1)
