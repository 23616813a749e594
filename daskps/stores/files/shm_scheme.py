"""``shm://``: objects in shared memory, on one host."""

from __future__ import annotations

from typing import Any
from urllib.parse import SplitResult

import dask

from daskps.config import size
from daskps.exceptions import ConfigError
from daskps.stores.files.connector import SegmentConnector
from daskps.stores.files.file_scheme import in_directories
from daskps.stores.files.places import HostPlaces, reserve


def check(key: str, parts: SplitResult) -> None:
    """Refuse a URL that names anything."""
    if parts.netloc or parts.path.strip("/"):
        # geturl() would drop the slashes of a scheme that it does not know.
        url = f"shm://{parts.netloc}{parts.path}"
        raise ConfigError(
            f"{key}={url!r}: shm:// takes no path; its directory is set by "
            "daskps.shm.directory in Dask's configuration"
        )


def options(parts: SplitResult) -> dict[str, Any]:
    """The settings ``daskps.shm``."""
    return {
        "directory": dask.config.get("daskps.shm.directory"),
        "reserve": reserve(),
        "keep": size("daskps.shm.keep-warm", dask.config.get("daskps.shm.keep-warm")),
    }


def make(parts: SplitResult, options: dict[str, Any]) -> SegmentConnector:
    """A connector over new directories there and, if it can be, in the temporary one."""
    places = HostPlaces.around(
        options["directory"], options["reserve"], options["keep"]
    )
    try:
        return in_directories(places)
    except ConfigError:
        # Full to the last page, perhaps.
        if places.missing is not None or len(places.parents) == 1:
            raise
        memory, disk = places.parents
        return in_directories(HostPlaces([disk], 0, 0, missing=memory))


def sweep(parts: SplitResult, dry_run: bool) -> list[str]:
    """Delete the directories in both whose owners are dead."""
    return HostPlaces.configured().sweep(dry_run)
