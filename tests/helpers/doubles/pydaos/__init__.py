"""A double of DAOS's Python bindings, which come with DAOS and cannot be installed alone.

It behaves as pydaos of DAOS 2.4 does, its traps included, since those are what has to be
tested: see each method. Pools and containers are directories, dictionaries are directories
in them, and values are files, so that several processes see the same ones.

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
import itertools
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, unquote

# One value: the length is a signed 32-bit number on its way.
MAX_VALUE = 2**31 - 1

# Through this, a call keeps the interpreter's lock.
_libc = ctypes.PyDLL(None)
_handles = itertools.count(1)


class PyDError(Exception):
    """What went wrong is in the text alone."""

    def __init__(self, message: str, code: str):
        self.message = f"{message}: {code}"
        super().__init__(message, code)

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
        return f"No such object: {self.name}"


class DaosClient:
    """The library, initialised once in each process."""

    initialised = 0
    process: int | None = None

    @classmethod
    def check(cls) -> None:
        """The real library hangs in a forked process, parent and child."""
        if cls.process is None:
            cls.initialised += 1
            cls.process = os.getpid()
        if cls.process != os.getpid():
            raise RuntimeError("DAOS in a forked process: here the real one hangs")


def _root() -> str:
    return os.environ["PYDAOS_DOUBLE"]


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
    ) -> None:
        # The real library is gone by then, sometimes.
        if is_finalizing() and self.__dict__.get("_process") == getpid():
            abort()

    def _use(self, doing: str) -> None:
        DaosClient.check()
        if self._process != os.getpid():
            os.abort()  # a raw handle of another process: this one crashes
        if self._agent_run != _agent():
            raise PyDError(f"failed to {doing}", "DER_NO_HDL")


class DCont(_Handle):
    """A container, by labels or UUIDs."""

    def __init__(self, pool: str, cont: str):
        super().__init__()
        self._path = os.path.join(_root(), pool, cont)
        if not os.path.isdir(self._path):
            raise PyDError("failed to access container", "DER_NONEXIST")

    def get(self, name: str) -> DDict:
        """Open an object of this container."""
        self._use("look up object")
        path = os.path.join(self._path, quote(name, safe=""))
        if not os.path.isdir(path):
            raise DObjNotFound(name)
        return DDict(self, path)

    def dict(self, name: str, v: dict[Any, Any] | None = None) -> DDict:
        """Create a dictionary; an error if there is one."""
        self._use("create DDict object")
        path = os.path.join(self._path, quote(name, safe=""))
        try:
            os.mkdir(path)
        except FileExistsError:
            raise PyDError("failed to create DDict object", "DER_EXIST") from None
        created = DDict(self, path)
        if v:
            created.bput(v)
        return created


class DDict(_Handle):
    """A dictionary in a container. It does not have all that a ``dict`` has."""

    def __init__(self, cont: DCont, path: str):
        super().__init__()
        self.cont = cont
        self._path = path

    def get(self, key: str | bytes) -> bytes:
        values: dict[Any, Any] = {key: None}
        self.bget(values)
        if values[key] is None:
            raise KeyError(key)
        return values[key]

    def __getitem__(self, key: str | bytes) -> bytes:
        return self.get(key)

    def put(self, key: str | bytes, value: Any) -> None:
        self._use("store KV value")
        self._store(key, _checked(value))

    def __setitem__(self, key: str | bytes, value: Any) -> None:
        self.put(key, value)

    def pop(self, key: str | bytes) -> None:
        """Delete; silent if it is not there, and never gives the value."""
        self.put(key, None)

    def __delitem__(self, key: str | bytes) -> None:
        self.put(key, None)

    def bget(self, values: dict[Any, Any], value_size: int | None = None) -> None:
        """Fill in the values of keys; None for what is not there."""
        self._use("retrieve KV value")
        for key in values:
            values[key] = self._fetch(key)

    def bput(self, values: dict[Any, Any]) -> None:
        """Put several; with a value that is not valid, the process aborts."""
        self._use("store KV value")
        for key, value in values.items():
            try:
                checked = _checked(value)
            except TypeError:
                os.abort()
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
        for name in os.listdir(self._path):
            if name.startswith("="):
                yield unquote(name[1:])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return any(True for _ in self)

    def _file(self, key: str | bytes) -> str:
        if not isinstance(key, (str, bytes)):
            raise TypeError(f"expected bytes, {type(key).__name__} found")
        raw = key.encode() if isinstance(key, str) else key
        raw = raw.split(b"\0")[0]  # a key is a C string
        if not raw:
            raise PyDError("failed to store KV value", "DER_INVAL")
        return os.path.join(self._path, "=" + quote(raw, safe=""))

    def _store(self, key: str | bytes, value: bytes) -> None:
        path = self._file(key)
        _transfer(len(value))
        if not value:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        new = os.path.join(self._path, secrets.token_hex(8))
        with open(new, "wb") as f:
            f.write(value)
        os.rename(new, path)

    def _fetch(self, key: str | bytes) -> bytes | None:
        try:
            with open(self._file(key), "rb") as f:
                value = f.read()
        except FileNotFoundError:
            return None
        _transfer(len(value))
        return value


def _checked(value: Any) -> bytes:
    """What is stored of a value; an empty one deletes the key."""
    if value is None:
        return b""
    if isinstance(value, str):
        value = value.encode()
    if not isinstance(value, bytes):
        raise TypeError(f"expected bytes, {type(value).__name__} found")
    if len(value) > MAX_VALUE:
        raise PyDError("failed to store KV value", "DER_OVERFLOW")
    return value


def _transfer(nbytes: int) -> None:
    bandwidth = os.environ.get("PYDAOS_DOUBLE_BANDWIDTH")
    if bandwidth:
        end = time.perf_counter() + nbytes / float(bandwidth)
        while (left := end - time.perf_counter()) > 0:
            # Not more than a second: usleep() may refuse that.
            _libc.usleep(int(min(left, 0.5) * 1e6) + 1)
