"""How to make a connector in another process."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxystore.connectors.protocols import Connector


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
    def of(cls, connector: Connector[Any]) -> ConnectorConfig:
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
