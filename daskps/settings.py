"""What one session does: from a call's arguments, or else from ``dask.config``.

Read and checked on the client, before anything is stored or sent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import dask
from dask.utils import format_bytes

from daskps.config import flag, seconds, size
from daskps.exceptions import ConfigError
from daskps.stores.urls import check_store, describe


def _on_store_error(key: str, value: Any) -> str:
    if value not in ("inline", "raise"):
        raise ConfigError(f'{key}={value!r} is not valid: give "inline" or "raise"')
    return str(value)


@dataclass(frozen=True, repr=False)
class Settings:
    """What one session does, every value checked.

    Attributes
    ----------
    store
        URL, ProxyStore ``Store`` or ``Connector``; None: chosen from what the
        scheduler and the workers report.
    threshold
        Bytes; values of at least this size leave the graph.
    results
        Whether large results come back through the store; None: daskps chooses.
    cache_size
        Bytes that a session keeps stored although no task needs them any more.
    on_store_error
        ``"inline"``: a value that cannot be stored is sent inside the graph;
        ``"raise"``: it is an error.
    read_timeout
        Seconds for which a task tries to read from a store that cannot be reached.
    """

    store: Any
    threshold: int
    results: bool | None
    cache_size: int
    on_store_error: str
    read_timeout: float

    @classmethod
    def resolve(
        cls, store: Any = None, threshold: Any = None, results: Any = None
    ) -> Settings:
        """Settings from arguments; what is None comes from ``dask.config``.

        Raises
        ------
        ConfigError
            Naming the key, its value and what is valid.
        """

        def setting(name: str, value: Any, check: Callable[[str, Any], Any]) -> Any:
            if value is not None:
                return check(name, value)
            return check(f"daskps.{name}", dask.config.get(f"daskps.{name}"))

        # Read when something is shown; an error then would come too late.
        setting("progress", None, flag)
        return cls(
            store=setting("store", store, check_store),
            threshold=setting("threshold", threshold, size),
            results=setting("results", results, flag),
            cache_size=setting("cache-size", None, size),
            on_store_error=setting("on-store-error", None, _on_store_error),
            read_timeout=setting("read-timeout", None, seconds),
        )

    def portable(self) -> Settings:
        """The same, for another process, which knows the store by other means."""
        return replace(self, store=None)

    def __repr__(self) -> str:
        # The URL may have a password in it.
        return f"<settings: {self}>"

    def __str__(self) -> str:
        store = "chosen by daskps" if self.store is None else describe(self.store)
        return f"store: {store}, threshold: {format_bytes(self.threshold)}"
