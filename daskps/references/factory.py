"""What reads the object of a proxy made by hand. Runs everywhere.

Imports ProxyStore's stores, and is imported where there is such a proxy only
(:mod:`daskps.lazy`): by :func:`daskps.proxy`, and by whoever unpickles one.
"""

from __future__ import annotations

from typing import Any

from proxystore.store.config import ConnectorConfig, StoreConfig
from proxystore.store.factory import StoreFactory

from daskps.references.nodes import ObjectId
from daskps.serialize.values import from_bytes
from daskps.stores import opened


class ClusterFactory(StoreFactory[Any, Any]):
    """Reads the object of a proxy from a cluster's store, which is open in its processes.

    ProxyStore's own factories have in them what opens the store, credentials included, and
    a proxy travels in graphs.

    Parameters
    ----------
    id
        The object.
    """

    def __init__(self, id: ObjectId):
        unused = ConnectorConfig(kind="the cluster's")
        super().__init__(id.key, StoreConfig(name=id.store, connector=unused))

    def resolve(self) -> Any:
        return from_bytes(opened.read(self.store_config.name, self.key))

    def __call__(self) -> Any:
        return self.resolve()
