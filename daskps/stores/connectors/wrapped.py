"""A connector around another one, which does all that is not said to be done otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from daskps.serialize.frames import Frame
from daskps.stores.connectors.base import Serving, StoreConnector
from daskps.stores.holdings import Holdings
from daskps.stores.memory import Room
from daskps.stores.remarks import Remark

Key = TypeVar("Key")


class WrappedConnector(StoreConnector[Key]):
    """A connector that can do what another one can do.

    Keys are the other one's, unless a derived class says what they are in
    :meth:`inner_key`.

    Parameters
    ----------
    connector
        The other one.

    Notes
    -----
    As thread-safe as the other one.
    """

    def __init__(self, connector: StoreConnector[Any]):
        self._connector = connector
        self.maps_its_own = connector.maps_its_own
        self.shares_memory = connector.shares_memory
        self.marks_creators = connector.marks_creators
        self.has_heartbeat = connector.has_heartbeat
        self.lease = connector.lease
        self.closed = connector.closed

    def __repr__(self) -> str:
        return repr(self._connector)

    def inner_key(self, key: Key) -> Any:
        """The other one's key of an object."""
        return key

    def close(self) -> None:
        """Close the other one."""
        self._connector.close()

    def put_frames(self, frames: Sequence[Frame], creator: str = "") -> Key:
        """Store one object that is in several pieces."""
        key: Key = self._connector.put_frames(frames, creator)
        return key

    def put_batch(self, objs: Sequence[bytes | bytearray | memoryview]) -> list[Key]:
        """Store several objects."""
        keys: list[Key] = self._connector.put_batch(objs)
        return keys

    def get(self, key: Key) -> Any:
        """Read an object; None if it is not there."""
        return self._connector.get(self.inner_key(key))

    def exists(self, key: Key) -> bool:
        """Whether something is there; it is not read."""
        return self._connector.exists(self.inner_key(key))

    def evict(self, key: Key) -> None:
        """Delete the object. Not there: does nothing."""
        self._connector.evict(self.inner_key(key))

    def evict_copy(self, key: Key) -> None:
        """Delete this host's copy."""
        self._connector.evict_copy(self.inner_key(key))

    def evict_orphans(self, creator: str, keep: set[Key]) -> bool:
        """Delete what a process stored, except what is needed."""
        return self._connector.evict_orphans(creator, set(map(self.inner_key, keep)))

    def renew(self, keys: Iterable[Key] | None) -> None:
        """Have objects kept for one more lease; None: all of the store."""
        self._connector.renew(None if keys is None else [*map(self.inner_key, keys)])

    def capacity(self) -> int | None:
        """Bytes that the store can hold at most; None: nobody knows."""
        return self._connector.capacity()

    def room(self) -> Room | None:
        """What this process may still put into the store; None: nobody knows."""
        return self._connector.room()

    def holdings(self) -> Holdings | None:
        """What this host holds in memory and files."""
        return self._connector.holdings()

    def rest(self) -> None:
        """This process may store nothing for a while."""
        self._connector.rest()

    def remark(self) -> Remark | None:
        """What a user should know of how the other one keeps objects here."""
        return self._connector.remark()

    def map_at_most(self, nbytes: int) -> None:
        """Limit what this process keeps mapped besides what is read."""
        self._connector.map_at_most(nbytes)

    def heartbeat(self) -> None:
        """Say that the owner lives."""
        self._connector.heartbeat()

    def serving(self) -> Serving | None:
        """The other one, if its objects are read from where they were made."""
        return self._connector.serving()
