"""A store as daskps uses it: a name and a connector. Runs everywhere.

The classes have the names of ProxyStore's, and of what those can do the part that daskps
needs. ProxyStore's own are pydantic models, and import pandas: a scheduler and its workers
do without (:mod:`daskps.lazy`). A :class:`proxystore.store.Store` that a user gives is taken
apart on the client (:meth:`daskps.stores.urls.StoreRequest.of`), and
:func:`daskps.open_store` gives one.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ConnectorConfig:
    """How to make a connector. Pickled; compares by content.

    Attributes
    ----------
    kind
        Its class, as ``module.Class``: not the class itself, since who unpickles this may
        not have it.
    options
        What its ``from_config`` takes. Not shown: there may be credentials in it.
    """

    kind: str
    options: dict[str, Any] = field(hash=False, repr=False)

    @classmethod
    def of(cls, connector: Any) -> ConnectorConfig:
        """How to make an equal one of a connector."""
        type_ = type(connector)
        return cls(f"{type_.__module__}.{type_.__qualname__}", connector.config())

    def make(self) -> Any:
        """Make the connector.

        Raises
        ------
        ImportError
            If its class, or something that this needs, is not installed here.
        """
        module, _, name = self.kind.rpartition(".")
        try:
            type_ = getattr(importlib.import_module(module), name)
        except AttributeError as e:
            raise ImportError(f"there is no {name} in {module}") from e
        # Not a call with these options: for ProxyStore's MultiConnector (1.1), that is
        # something else.
        return type_.from_config(self.options)


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
        A ProxyStore ``Connector``.
    """

    name: str
    connector: Any

    __slots__ = ("__weakref__", "connector", "name")

    def __init__(self, name: str, connector: Any):
        self.name = name
        self.connector = connector

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
        return StoreConfig(self.name, ConnectorConfig.of(self.connector))

    def close(self) -> None:
        """Close the connector."""
        self.connector.close()

    def __repr__(self) -> str:
        return f"<Store {self.name}: {self.connector!r}>"
