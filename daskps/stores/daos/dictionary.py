"""One dictionary in a DAOS container, without the traps of its Python bindings.

ProxyStore's ``DAOSConnector`` opens it. ``pydaos``, which that uses, was tried on DAOS 2.4:

- Processes that open a new dictionary at the same time get ``DER_EXIST``: it is there by
  then, so it is opened again.
- When the node's agent was restarted, a handle fails for good (``DER_NO_HDL``); a new one
  works.
- Handles that are open when the interpreter ends can abort the process. Dropping the
  dictionary's, then the container's, prevents that.
- A forked process that uses DAOS hangs, and its parent with it; so it is refused.
- ``DObjNotFound`` is its own argument: its ``repr``, and pickle, follow it for ever, and
  only the garbage collector frees it. No error from here has it as its cause or context.
- Values are ``bytes``; an empty one deletes its key. Missing keys raise an error or not,
  depending on the method.
"""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from daskps.exceptions import ConfigError, StoreError, StoreFullError

T = TypeVar("T")

# Whoever made the dictionary between our looking for it and our making it may have failed.
OPEN_ATTEMPTS = 10


class Dictionary:
    """A dictionary from strings to bytes, shared by the processes that open it.

    Parameters
    ----------
    pool, container
        Labels or UUIDs of what is there already.
    name
        The dictionary's; made if it is not there.

    Raises
    ------
    daskps.exceptions.ConfigError
        If DAOS's Python bindings, or ProxyStore's extensions, are not installed.
    daskps.exceptions.StoreError
        From the constructor and from every method, with DAOS's error as text.
        ``StoreFullError`` if the pool is full.

    Notes
    -----
    Thread-safe. DAOS keeps the interpreter's lock during each call, so no thread of the
    process runs meanwhile: keep values small.
    """

    pool: str
    container: str
    name: str
    _lock: threading.RLock
    _process: int
    #: ProxyStore's connector, while this is open.
    _opened: list[Any]

    def __init__(self, pool: str, container: str, name: str):
        self.pool = pool
        self.container = container
        self.name = name
        # Reentrant: the garbage collector may close another connector meanwhile.
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._opened = [self._open()]
        self._drop = weakref.finalize(self, _drop, self._opened, self._process)

    def __repr__(self) -> str:
        return f"daos://{self.pool}/{self.container}/{self.name}"

    def get(self, key: str) -> bytes | None:
        """The value; None if there is none."""
        return self.get_batch([key])[key]

    def get_batch(self, keys: Iterable[str]) -> dict[str, bytes | None]:
        """Several values, at once."""
        values: dict[str, bytes | None] = dict.fromkeys(keys)
        # Of all methods, this one does not raise for a missing key.
        self._use("read", lambda dictionary: dictionary.bget(values))
        return values

    def put(self, key: str, value: bytes) -> None:
        """Set a value: exactly ``bytes``, and not empty."""
        if type(value) is not bytes or not value:
            raise ValueError(f"{self!r} takes bytes, not empty ones, for {key!r}")
        self._use("write", lambda dictionary: dictionary.put(key, value))

    def delete(self, keys: Iterable[str]) -> None:
        """Delete keys, at once. Not there: does nothing."""
        values = dict.fromkeys(keys)
        if values:
            self._use("delete", lambda dictionary: dictionary.bput(values))

    def list_keys(self) -> list[str]:
        """All keys: reads through the whole dictionary."""
        return self._use("list", list)

    def close(self) -> None:
        """Let go of DAOS. Again: does nothing."""
        self._drop()

    def _use(self, doing: str, use: Callable[[Any], T]) -> T:
        for last in (False, True):
            connector = self._connector()
            try:
                return use(connector._dict)
            except _errors() as e:
                error = str(e)
            # Not in the handler: what is raised there has DAOS's error for its context.
            if last or "DER_NO_HDL" not in error:
                break
            self._open_again(connector)
        raise self._failed(doing, error)

    def _connector(self) -> Any:
        if os.getpid() != self._process:
            raise StoreError(
                f"{self!r} was opened by process {self._process}, and DAOS cannot be used "
                "in a process that was forked from it: both would hang. Start processes "
                'with multiprocessing.get_context("spawn").'
            )
        try:
            return self._opened[0]
        except IndexError:
            raise StoreError(f"{self!r} is closed") from None

    def _open_again(self, failed: Any) -> None:
        with self._lock:
            if self._opened == [failed]:  # no other thread has done it, or has closed
                self._opened[0] = self._open()
                _drop([failed], self._process)

    def _open(self) -> Any:
        connector_type = _connector_type()
        for _ in range(OPEN_ATTEMPTS):
            connector = None
            try:
                connector = connector_type(self.pool, self.container, self.name)
            except _errors() as e:
                error = str(e)
            # If the dictionary was new, there was a DObjNotFound. It holds itself, and by
            # its traceback the container's handle, until it is collected.
            gc.collect(1)
            if connector is not None:
                return connector
            if "DER_EXIST" not in error:
                break
        raise self._failed("open", error)

    def _failed(self, doing: str, error: str) -> StoreError:
        if "DER_NOSPACE" in error:
            return StoreFullError(
                f"Pool {self.pool!r} of DAOS has no room left ({error}). DAOS gives the "
                "room of what was deleted back after some 40 s. Free some, or compute in "
                "smaller parts."
            )
        return StoreError(
            f"Could not {doing} {self!r}: {error}. Check that this host's daos_agent runs, "
            "and that the container is there and may be used: "
            f"daos cont create {self.pool} {self.container} --type=PYTHON"
        )


def _drop(opened: list[Any], process: int) -> None:
    if os.getpid() != process:
        return  # closing hangs in a forked process as well
    while opened:
        connector = opened.pop()
        connector._dict = None
        connector._container = None


def _connector_type() -> Any:
    try:
        from proxystore_ex.connectors.daos import DAOSConnector
    except ImportError as e:
        if "pydaos" in str(e):
            raise ConfigError(
                "daos:// needs pydaos, which comes with DAOS and is not on PyPI: install "
                "DAOS's client package (daos-client) on the client, the scheduler and "
                "every worker, and make its Python package importable there"
            ) from None
        raise ConfigError(
            "daos:// needs ProxyStore's extensions: pip install 'daskps[daos]', on the "
            "client, the scheduler and every worker"
        ) from None
    return DAOSConnector


def _errors() -> tuple[type[Exception], ...]:
    import pydaos

    return (pydaos.PyDError, pydaos.DObjNotFound)


def check_installed() -> None:
    """Say what is missing for ``daos://``.

    Raises
    ------
    daskps.exceptions.ConfigError
        If something is.
    """
    _connector_type()
