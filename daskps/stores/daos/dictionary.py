"""One dictionary in a DAOS container, without the traps of its Python bindings.

Values are ``bytes``; an empty one deletes its key. Missing keys raise an error or not,
depending on the method. A dictionary that is asked whether it is true lists its keys.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from daskps import progress
from daskps.exceptions import StoreError
from daskps.stores.daos import bindings, containers

T = TypeVar("T")


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
        If DAOS's Python bindings are not installed.
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
    _container: containers.Container

    def __init__(self, pool: str, container: str, name: str):
        self.pool = pool
        self.container = container
        self.name = name
        self._container = containers.acquire(pool, container)
        self._release = weakref.finalize(self, containers.release, self._container)
        try:
            self._container.dictionary(name)
        except BaseException:
            self.close()
            raise

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
        progress.moved(len(value))

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
        self._release()

    def _use(self, doing: str, use: Callable[[Any], T]) -> T:
        for last in (False, True):
            containers.check_process()
            if not self._release.alive:
                raise StoreError(f"{self!r} is closed")
            handle = self._container.dictionary(self.name)
            try:
                return use(handle)
            except bindings.errors() as e:
                error = str(e)
            # Not in the handler: what is raised there has DAOS's error for its context.
            if last or "DER_NO_HDL" not in error:
                break
            self._container.failed(self.name, handle)
        raise bindings.failure(doing, self.pool, self.container, self.name, error)
