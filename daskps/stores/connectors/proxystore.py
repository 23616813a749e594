"""Connectors that daskps does not know, ProxyStore's and users', as it uses its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from daskps.exceptions import ClusterError
from daskps.serialize.frames import Frame, contiguous_parts
from daskps.stores.connectors.base import StoreConnector
from daskps.stores.connectors.config import ConnectorConfig

if TYPE_CHECKING:
    from proxystore.connectors.protocols import Connector


class ProxyStoreConnector(StoreConnector[Any]):
    """What daskps can do with a connector that has ProxyStore's protocol and no more.

    Parameters
    ----------
    connector
        A ProxyStore ``Connector``.

    Notes
    -----
    As thread-safe as the other one.
    """

    def __init__(self, connector: Connector[Any]):
        self._connector = connector
        self.closed = threading.Event()

    def __repr__(self) -> str:
        return repr(self._connector)

    def close(self) -> None:
        """Close the other one."""
        self.closed.set()
        self._connector.close()

    def config(self) -> dict[str, Any]:
        """What the other one says: who makes it need not know of this class."""
        config: dict[str, Any] = self._connector.config()
        return config

    def connector_config(self) -> ConnectorConfig:
        """How another process makes one like the other one."""
        return ConnectorConfig.of(self._connector)

    def put_frames(self, frames: Sequence[Frame], creator: str = "") -> Any:
        """Store one object, in one piece: these connectors take no other."""
        parts = (part for frame in frames for part in contiguous_parts(frame))
        return self._connector.put(b"".join(parts))

    def put_batch(self, objs: Sequence[bytes | bytearray | memoryview]) -> list[Any]:
        """Store several objects."""
        return list(self._connector.put_batch(list(objs)))

    def get(self, key: Any) -> Any:
        """Read an object; None if it is not there."""
        return self._connector.get(key)

    def get_batch(self, keys: Sequence[Any]) -> list[Any]:
        """Read several objects."""
        return list(self._connector.get_batch(list(keys)))

    def exists(self, key: Any) -> bool:
        """Whether the object is there."""
        return bool(self._connector.exists(key))

    def evict(self, key: Any) -> None:
        """Delete the object. Not there: does nothing."""
        self._connector.evict(key)


def make(config: ConnectorConfig) -> StoreConnector[Any]:
    """Make a connector of any kind, in a process where it may not be installed.

    Raises
    ------
    daskps.exceptions.ClusterError
        If it is not.
    """
    try:
        connector = config.make()
    except ImportError as e:
        raise ClusterError(
            f"The store's connector, {config.kind}, cannot be made on host "
            f"{socket.gethostname()}: {e}. Install what it needs there; the client, "
            "the scheduler and every worker need it."
        ) from e
    return adapted(connector)


def adapted(connector: Connector[Any]) -> StoreConnector[Any]:
    """A connector of any kind, as daskps uses it."""
    if isinstance(connector, StoreConnector):
        return connector
    return ProxyStoreConnector(connector)
