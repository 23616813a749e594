"""Settings: from a call's arguments, or else from ``dask.config``.

Read and checked on the client, before anything is stored or sent.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import dask
import yaml
from dask.utils import format_bytes, parse_bytes, parse_timedelta

from daskps.exceptions import ConfigError

_DEFAULTS = os.path.join(os.path.dirname(__file__), "daskps.yaml")


def load_defaults() -> None:
    """Add ``daskps.yaml`` to Dask's configuration, below what the user set."""
    with open(_DEFAULTS) as f:
        # In C if there is such: seven times as fast, when every process imports daskps.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        dask.config.update_defaults(yaml.load(f, loader))


# Some settings are looked up at each submission.
_parsed_bytes = lru_cache(maxsize=100)(parse_bytes)


def size(key: str, value: Any) -> int:
    """Check a setting that is a number of bytes.

    Parameters
    ----------
    key
        The setting's name, for the error.
    value
        A number of bytes, or a string such as ``"256 KiB"``.

    Returns
    -------
    int
        Bytes, zero or more.

    Raises
    ------
    ConfigError
        If the value is not a size, or negative.
    """
    valid = 'a number of bytes or a size such as 1048576, "256 KiB" or "1 MB"'
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ConfigError(f"{key}={value!r} is not a size: give {valid}")
    try:
        nbytes = int(_parsed_bytes(value))
    except (ValueError, TypeError, OverflowError):
        raise ConfigError(f"{key}={value!r} is not a size: give {valid}") from None
    if nbytes < 0:
        raise ConfigError(f"{key}={value!r} is negative: give {valid}")
    return nbytes


def flag(key: str, value: Any) -> bool | None:
    """Check a setting that is true, false, or left to daskps (None)."""
    if value is None or isinstance(value, bool):
        return value
    raise ConfigError(f"{key}={value!r} is not valid: give True, False or None")


def seconds(key: str, value: Any) -> float:
    """Check a setting that is a time; gives seconds, zero or more."""
    valid = 'a number of seconds or a time such as 10, "500ms" or "2 minutes"'
    try:
        result = parse_timedelta(value)
    except (ValueError, TypeError, KeyError):
        raise ConfigError(f"{key}={value!r} is not a time: give {valid}") from None
    if result is None or result < 0:
        raise ConfigError(f"{key}={value!r} is not a time: give {valid}")
    return float(result)


def large_graph() -> int:
    """From which size on Dask warns of a large graph, in bytes."""
    key = "distributed.admin.large-graph-warning-threshold"
    return size(key, dask.config.get(key))


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
        from daskps.stores.urls import check_store

        def setting(name: str, value: Any, check: Callable[[str, Any], Any]) -> Any:
            if value is not None:
                return check(name, value)
            return check(f"daskps.{name}", dask.config.get(f"daskps.{name}"))

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
        from daskps.stores.urls import describe

        store = "chosen by daskps" if self.store is None else describe(self.store)
        return f"store: {store}, threshold: {format_bytes(self.threshold)}"


def lease(at_least: float = 0.0, too_short: str = "") -> float:
    """The setting ``daskps.lease``, in seconds.

    Parameters
    ----------
    at_least
        Seconds.
    too_short
        What the error says after that a lease is too short.

    Raises
    ------
    daskps.exceptions.ConfigError
        If it is shorter than that, or no time.
    """
    given = dask.config.get("daskps.lease")
    found = seconds("daskps.lease", given)
    if found < at_least:
        raise ConfigError(
            f"daskps.lease={given!r} is too short{too_short}: give at least {at_least:g} s"
        )
    return found
