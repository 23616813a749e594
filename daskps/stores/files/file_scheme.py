"""``file:///directory``: objects as files that processes share."""

from __future__ import annotations

from typing import Any
from urllib.parse import SplitResult

import dask

from daskps.config import flag
from daskps.exceptions import ConfigError
from daskps.stores.connectors.base import StoreConnector
from daskps.stores.connectors.sealed import SealedConnector
from daskps.stores.files import directories as directory
from daskps.stores.files.connector import SegmentConnector
from daskps.stores.files.directories import OwnedDirectory
from daskps.stores.files.places import HostPlaces
from daskps.stores.remarks import warn


def check(key: str, parts: SplitResult) -> None:
    """Refuse a URL that names no directory."""
    if parts.netloc or not parts.path.startswith("/"):
        raise ConfigError(
            f"{key}={parts.geturl()!r} does not name a directory: give an absolute path, "
            "file:///like/this (three slashes)"
        )


def options(parts: SplitResult) -> dict[str, Any]:
    """The settings ``daskps.file``."""
    key = "daskps.file.check"
    return {"check": bool(flag(key, dask.config.get(key)))}


def make(parts: SplitResult, options: dict[str, Any]) -> StoreConnector[Any]:
    """A connector over a new directory there, whose objects are sealed if that is set."""
    connector = in_directories(HostPlaces([parts.path], 0, None))
    return SealedConnector(connector) if options["check"] else connector


def sweep(parts: SplitResult, dry_run: bool) -> list[str]:
    """Delete the directories there whose owners are dead."""
    return directory.sweep(parts.path, dry_run=dry_run)


def in_directories(places: HostPlaces) -> SegmentConnector:
    """A connector over a new directory in each of these, which it owns.

    Raises
    ------
    daskps.exceptions.ConfigError
        If one cannot be made.
    """
    owned: list[OwnedDirectory] = []
    try:
        for parent in places.parents:
            directory.sweep(parent)
            owned.append(OwnedDirectory(parent))
    except OSError as e:
        for made in owned:
            made.remove()
        raise ConfigError(
            f"cannot keep objects in {parent}: {e}. Give a directory that exists and "
            "may be written to, or another store."
        ) from e
    warn(places.remark())
    return SegmentConnector(
        [made.path for made in owned],
        places.reserve,
        places.keep,
        owned,
        missing=places.missing,
    )
