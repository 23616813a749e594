"""What a connector is to daskps, and what it can do.

ProxyStore asks of a connector that it puts and gets bytes. Stores of daskps can do more,
each something else: keep objects in memory that readers map, forget what nobody renews, say
who stored what. :class:`StoreConnector` has all of it, with defaults for what a store cannot
do. So nobody has to ask whether a connector has a method.
"""

from __future__ import annotations

import abc
import threading
from collections.abc import Iterable, Sequence
from typing import Any, Generic, Protocol, Self, TypeVar

from daskps.serialize.frames import Frame
from daskps.stores.connectors.config import ConnectorConfig
from daskps.stores.holdings import Holdings
from daskps.stores.interfaces import Address
from daskps.stores.memory import Room
from daskps.stores.remarks import Remark

Key = TypeVar("Key")


class Serving(Protocol):
    """A connector whose objects are read from where they were made."""

    def serves_at(self) -> Address:
        """Where others read what this process stores.

        Raises
        ------
        OSError
            If this process cannot store anything.
        """

    def registries(self) -> list[Address]:
        """To what this process has to connect if it is to store anything."""

    def try_connection(self, address: Address, timeout: float) -> None:
        """Find out whether an address can be reached, and nothing else.

        Raises
        ------
        OSError
            If it cannot be reached.
        """


class StoreConnector(abc.ABC, Generic[Key]):
    """A ProxyStore ``Connector`` as daskps uses it.

    Attributes
    ----------
    maps_its_own
        Whether what this host has stored is in its memory, where it can be read again: a
        put takes no more than a copy.
    shares_memory
        Whether all processes that use the store are on one host, and map the same memory.
    marks_creators
        Whether objects bear the name of who stored them, for :meth:`evict_orphans`.
        Otherwise each object is announced to the scheduler as soon as it is stored.
    has_heartbeat
        Whether the owner has to say that it lives (:meth:`heartbeat`).
    lease
        Seconds after which an object is forgotten that nobody renews; None: never.
    closed
        Set when the connector is closed.

    Notes
    -----
    Thread-safe, and safe across processes, which each make their own from the
    configuration.
    """

    maps_its_own: bool = False
    shares_memory: bool = False
    marks_creators: bool = False
    has_heartbeat: bool = False
    lease: float | None = None
    closed: threading.Event

    @abc.abstractmethod
    def put_frames(self, frames: Sequence[Frame], creator: str = "") -> Key:
        """Store one object that is in several pieces.

        Parameters
        ----------
        frames
            Buffers, and arrays that need not be contiguous, in order.
        creator
            Who stores it, for :meth:`evict_orphans`: letters and digits.

        Raises
        ------
        daskps.exceptions.StoreFullError
            If there is no room.
        OSError
            If the store cannot be reached.
        """

    @abc.abstractmethod
    def get(self, key: Key) -> Any:
        """Read an object, as bytes or a buffer; None if it is not there."""

    @abc.abstractmethod
    def exists(self, key: Key) -> bool:
        """Whether the object is there. Renews its lease."""

    @abc.abstractmethod
    def evict(self, key: Key) -> None:
        """Delete the object. Not there: does nothing."""

    @abc.abstractmethod
    def close(self) -> None:
        """Use the store no longer; its owner deletes what is in it. Again: does nothing."""

    @abc.abstractmethod
    def config(self) -> dict[str, Any]:
        """Arguments that make an equal connector in any process of the cluster."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make a connector from what :meth:`config` returned."""
        return cls(**config)

    def connector_config(self) -> ConnectorConfig:
        """How another process makes an equal connector."""
        return ConnectorConfig.of(self)

    def put(self, obj: bytes | bytearray | memoryview) -> Key:
        """Store the bytes of one object."""
        return self.put_frames([obj])

    def put_batch(self, objs: Sequence[bytes | bytearray | memoryview]) -> list[Key]:
        """Store several objects."""
        return [self.put(obj) for obj in objs]

    def get_batch(self, keys: Sequence[Key]) -> list[Any]:
        """Read several objects."""
        return [self.get(key) for key in keys]

    def capacity(self) -> int | None:
        """Bytes that the store can hold at most; None: nobody knows.

        Raises
        ------
        OSError
            If the store is gone.
        """
        return None

    def room(self) -> Room | None:
        """What this process may still put into the store; None: nobody knows.

        Raises
        ------
        OSError
            If the store is gone.
        """
        return None

    def remark(self) -> Remark | None:
        """What a user should know of how it keeps objects here; None: nothing.

        Raises
        ------
        OSError
            If the store is gone.
        """
        return None

    def holdings(self) -> Holdings | None:
        """What this host holds in memory and files; None: nothing, or nobody knows.

        Raises
        ------
        OSError
            If the store is gone.
        """
        return None

    def rest(self) -> None:
        """This process may store nothing for a while: it need not be ready for that."""

    def map_at_most(self, nbytes: int) -> None:
        """Limit what this process keeps mapped besides what is read."""

    def evict_copy(self, key: Key) -> None:
        """Delete this host's copy of an object, if hosts keep copies."""

    def evict_orphans(self, creator: str, keep: set[Key]) -> bool:
        """Delete what a process stored, or was storing, except what is needed.

        Parameters
        ----------
        creator
            As given to :meth:`put_frames`.
        keep
            What somebody needs.

        Returns
        -------
        bool
            Whether to do so again later: what is being written at this moment stays, since
            the process has lost its connection, and may be alive.
        """
        return False

    def heartbeat(self) -> None:
        """Say that the owner lives, to those whom no kernel tells."""

    def renew(self, keys: Iterable[Key] | None) -> None:
        """Have objects kept for one more lease; None: all of the store."""

    def serving(self) -> Serving | None:
        """Itself, if objects are read from where they were made; otherwise None."""
        return None
