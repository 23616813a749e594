"""Settings: from a call's arguments, or else from ``dask.config``.

Read and checked on the client, before anything is stored or sent.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import dask
import yaml
from dask.utils import parse_bytes, parse_timedelta

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
