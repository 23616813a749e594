"""A store as daskps uses it: a name and a connector. Runs everywhere.

The classes have the names of ProxyStore's, and of what those can do the part that daskps
needs. ProxyStore's own are pydantic models, and import pandas: a scheduler and its workers
do without (:mod:`daskps.lazy`). A :class:`proxystore.store.Store` that a user gives is taken
apart on the client (:mod:`daskps.stores.requests`), and :func:`daskps.open_store` gives one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daskps.stores.connectors.base import StoreConnector
from daskps.stores.connectors.config import ConnectorConfig
from daskps.stores.connectors.proxystore import adapted
from daskps.stores.traffic import Traffic

if TYPE_CHECKING:
    from proxystore.connectors.protocols import Connector


@dataclass(frozen=True)
class StoreConfig:
    """How to open a store in another process. Pickled; compares by content.

    Attributes
    ----------
    name
        Of the store.
    connector
        How to make its connector.
    """

    name: str
    connector: ConnectorConfig


class Store:
    """A store that is open in this process.

    Parameters
    ----------
    name
        As in :mod:`daskps.stores.opened`.
    connector
        A connector, of ProxyStore's too: then it is adapted.

    Attributes
    ----------
    traffic
        What this process does with it.
    """

    name: str
    connector: StoreConnector[Any]
    traffic: Traffic

    __slots__ = ("__weakref__", "connector", "name", "traffic")

    def __init__(self, name: str, connector: Connector[Any]):
        self.name = name
        self.connector = adapted(connector)
        self.traffic = Traffic()

    @classmethod
    def from_config(cls, config: StoreConfig) -> Store:
        """Open a store as another process said.

        Raises
        ------
        ImportError
            If something that it needs is not installed here.
        OSError
            If it cannot be used here.
        """
        return cls(config.name, config.connector.make())

    def config(self) -> StoreConfig:
        """How to open it in another process."""
        return StoreConfig(self.name, self.connector.connector_config())

    def close(self) -> None:
        """Close the connector."""
        self.connector.close()

    def __repr__(self) -> str:
        return f"<Store {self.name}: {self.connector!r}>"
