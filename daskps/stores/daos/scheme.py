"""``daos://pool/container/namespace``: objects in a DAOS container."""

from __future__ import annotations

import logging
import re
import secrets
from typing import Any
from urllib.parse import SplitResult

from daskps.config import lease
from daskps.exceptions import ConfigError
from daskps.stores.connectors.sealed import SealedConnector
from daskps.stores.daos import bindings
from daskps.stores.daos.connector import DaosConnector
from daskps.stores.daos.namespace import Namespace

logger = logging.getLogger(__name__)

# A label of DAOS, as in its daos_prop.h; a UUID is one, too.
LABEL = re.compile(r"[A-Za-z0-9_:.][A-Za-z0-9_:.-]{0,126}")

# Seconds.
SHORTEST_LEASE_SECONDS = 60.0


def check(key: str, parts: SplitResult) -> None:
    """Refuse a URL that does not name three things, or that cannot be opened here."""
    names = [parts.netloc, *parts.path.split("/")[1:]]
    if len(names) != 3 or not all(map(LABEL.fullmatch, names)):
        url = f"daos://{parts.netloc}{parts.path}"
        raise ConfigError(
            f"{key}={url!r} is not valid: give daos://pool/container/namespace: the labels "
            "or UUIDs of a pool and of a container of type PYTHON that are there already, "
            "and a name of your own, each of letters, digits and _ : . -"
        )
    bindings.load()


def options(parts: SplitResult) -> dict[str, Any]:
    """The lease. There are no credentials: DAOS knows its users by their agent."""
    why = " for daos://, where clocks of hosts are compared"
    return {"lease": lease(SHORTEST_LEASE_SECONDS, why)}


def make(parts: SplitResult, options: dict[str, Any]) -> SealedConnector:
    """A connector for a new cluster, which it owns. What dead ones left is deleted."""
    cluster = secrets.token_hex(8)
    connector = DaosConnector(*_names(parts), cluster, options["lease"])
    try:
        sweep(parts, dry_run=False)  # second: it uses what the connector has opened
    except BaseException:
        connector.close()
        raise
    return SealedConnector(connector)


def sweep(parts: SplitResult, dry_run: bool) -> list[str]:
    """Delete the objects of clusters whose schedulers are gone.

    Safe to run at any time, by several processes at once.

    Parameters
    ----------
    parts
        The URL.
    dry_run
        Only say what would be deleted.

    Returns
    -------
    list of str
        The URL, and the mark of the cluster, for each.
    """
    objects = Namespace(*_names(parts))
    try:
        dead = objects.dead_clusters()
        for cluster in dead if not dry_run else ():
            logger.info("Deleting what a dead cluster left: %r %s", objects, cluster)
            objects.delete_cluster(cluster)
    finally:
        objects.close()
    return [f"{objects!r} {cluster}" for cluster in dead]


def _names(parts: SplitResult) -> tuple[str, str, str]:
    pool, container, namespace = parts.netloc, *parts.path.split("/")[1:]
    return pool, container, namespace
