"""``peer://``: objects stay on the host that made them, and other hosts pull them."""

from __future__ import annotations

from typing import Any
from urllib.parse import SplitResult

from daskps.config import lease
from daskps.exceptions import ConfigError
from daskps.stores.files.places import HostPlaces
from daskps.stores.peer.connector import PeerConnector
from daskps.tls import source_at_hand


def check(key: str, parts: SplitResult) -> None:
    """Refuse a URL that names anything."""
    if parts.netloc or parts.path.strip("/"):
        # geturl() would drop the slashes of a scheme that it does not know.
        url = f"peer://{parts.netloc}{parts.path}"
        raise ConfigError(
            f"{key}={url!r}: peer:// takes no address; every host serves what it has "
            "stored. On which of its addresses is set by daskps.peer.host in its own "
            "configuration of Dask"
        )


def options(parts: SplitResult) -> dict[str, Any]:
    """The settings of the store as a whole; those of a host are read there."""
    return {"lease": lease()}


def sweep(parts: SplitResult, dry_run: bool) -> list[str]:
    """Delete the directories on this host whose owners are dead."""
    return HostPlaces.configured().sweep(dry_run)


def make(parts: SplitResult, options: dict[str, Any]) -> PeerConnector:
    """A store whose owner is this process, with TLS if its certificates are at hand."""
    tls = source_at_hand()
    try:
        return PeerConnector.new(
            options["host"],
            options["lease"],
            options["host_cache"],
            tls() if tls is not None else None,
        )
    except OSError as e:
        raise ConfigError(
            f"peer:// cannot take connections at {options['host']}: {e}. Give the "
            "scheduler an address of this host (dask scheduler --host), or another store."
        ) from e
