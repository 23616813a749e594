"""Containers of DAOS that are open in this process: one handle each, whoever uses it.

To open one takes some 0.2 s, and the first one in a process 0.8 s, for which DAOS's Python
bindings keep the interpreter's lock. They were tried on DAOS 2.4:

- Processes that open a new dictionary at the same time get ``DER_EXIST``: it is there by
  then, so it is opened again.
- When the node's agent was restarted, all handles fail for good (``DER_NO_HDL``); new ones
  work.
- Handles that are open when the interpreter ends can abort the process. Dropping those of
  dictionaries, then the container's, prevents that.
- A forked process that uses DAOS may hang, so it is refused. If it closes a handle, if only
  by ending, it aborts, and its parent hangs: so it keeps them all.
"""

from __future__ import annotations

import ctypes
import gc
import os
import threading
from typing import Any

from daskps.exceptions import StoreError
from daskps.stores.daos import bindings

# Whoever made the dictionary between our looking for it and our making it may have failed.
OPEN_ATTEMPTS = 10

# Reentrant: the garbage collector may close something else meanwhile.
_lock = threading.RLock()
_containers: dict[tuple[str, str], Container] = {}
# The process that uses DAOS, if any does: this one, or one from which it was forked.
_process: int | None = None


class Container:
    """A container, and the dictionaries in it that were asked for.

    Made by :func:`acquire`.

    Attributes
    ----------
    pool, name
        Labels or UUIDs of what is there already.
    users
        How many have it open here.

    Notes
    -----
    Thread-safe.
    """

    pool: str
    name: str
    users: int

    def __init__(self, pool: str, name: str):
        self.pool = pool
        self.name = name
        self.users = 0
        self._lock = threading.RLock()
        self._closed = False
        self._handle: Any = None
        self._dictionaries: dict[str, Any] = {}

    def dictionary(self, name: str) -> Any:
        """The handle of a dictionary, which is made if it is not there.

        Raises
        ------
        daskps.exceptions.StoreError
            If DAOS fails, or nobody has the container open any more.
        """
        check_process()
        with self._lock:
            if self._closed:
                raise StoreError(f"daos://{self.pool}/{self.name}/{name} is closed")
            if name not in self._dictionaries:
                self._dictionaries[name] = self._open(name)
            return self._dictionaries[name]

    def failed(self, name: str, handle: Any) -> None:
        """Open all handles anew, since one failed for good, unless that was done."""
        with self._lock:
            if self._dictionaries.get(name) is handle:
                self._drop()

    def close(self) -> None:
        """Let go of all handles. Those in use meanwhile are closed after that."""
        with self._lock:
            self._closed = True
            self._drop()

    def keep_for_ever(self) -> None:
        """Close no handle, not even when the interpreter ends: this process was forked."""
        for handle in (self._handle, *self._dictionaries.values()):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(handle))

    def _drop(self) -> None:
        self._dictionaries.clear()
        self._handle = None

    def _open(self, name: str) -> Any:
        for _ in range(OPEN_ATTEMPTS):
            try:
                return self._get_or_make(name)
            except bindings.errors() as e:
                error = str(e)
            # Not in the handler: what is raised there has DAOS's error for its context.
            if "DER_NO_HDL" in error:
                self._drop()
            elif "DER_EXIST" not in error:
                break
        raise bindings.failure("open", self.pool, self.name, name, error)

    def _get_or_make(self, name: str) -> Any:
        pydaos = bindings.load()
        if self._handle is None:
            self._handle = pydaos.DCont(self.pool, self.name)
        try:
            return self._handle.get(name)
        except pydaos.DObjNotFound:
            pass
        # That error holds itself, and by its traceback the handle, until it is collected.
        gc.collect(1)
        return self._handle.dict(name)


def acquire(pool: str, name: str) -> Container:
    """A container for one more user, who releases it."""
    global _process
    check_process()
    with _lock:
        _process = os.getpid()
        container = _containers.setdefault((pool, name), Container(pool, name))
        container.users += 1
        return container


def release(container: Container) -> None:
    """Count one user less; the last one closes it."""
    if _process != os.getpid():
        return
    with _lock:
        container.users -= 1
        last = not container.users
        if last:
            del _containers[container.pool, container.name]
    if last:
        # Without our lock: who holds the container's may be in the garbage collector, which
        # releases another one.
        container.close()


def check_process() -> None:
    """Refuse to use DAOS where it would hang.

    Raises
    ------
    daskps.exceptions.StoreError
        If this process was forked from one that has used DAOS.
    """
    if _process not in (None, os.getpid()):
        raise StoreError(
            f"Process {_process} has used DAOS, which cannot be used in this process, "
            "since it was forked from that one: both would hang. Start processes with "
            'multiprocessing.get_context("spawn").'
        )


def _forked() -> None:
    global _lock
    _lock = threading.RLock()  # a thread that is not here may have held it
    for container in _containers.values():
        container.keep_for_ever()


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(after_in_child=_forked)
