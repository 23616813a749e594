"""What ProxyStore asks of a connector, of one that stores an object in several pieces."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, Generic, Self, TypeVar

from daskps.serialize.frames import Frame

Key = TypeVar("Key")


class FrameConnector(abc.ABC, Generic[Key]):
    """Puts an object in one piece, or several objects, one after the other."""

    @abc.abstractmethod
    def put_frames(self, frames: Sequence[Frame], creator: str = "") -> Key:
        """Store one object that is in several pieces, without joining them first."""

    @abc.abstractmethod
    def get(self, key: Key) -> memoryview | None:
        """Read an object; None if it is not there."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make a connector from what ``config()`` returned."""
        return cls(**config)

    def put(self, obj: bytes | bytearray | memoryview) -> Key:
        """Store the bytes of one object."""
        return self.put_frames([obj])

    def put_batch(self, objs: Sequence[bytes | bytearray | memoryview]) -> list[Key]:
        """Store several objects."""
        return [self.put(obj) for obj in objs]

    def get_batch(self, keys: Sequence[Key]) -> list[memoryview | None]:
        """Read several objects."""
        return [self.get(key) for key in keys]
