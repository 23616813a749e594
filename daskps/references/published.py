"""What is published on a scheduler by reference. Runs on clients and the scheduler.

The scheduler keeps of a data set what the reader needs to make it again: what Dask's own
serialisers wrote, its large parts in a store. It never makes it itself, and can send the
parts to somebody who cannot read the store.
"""

from __future__ import annotations

import pickle
from typing import Any

from distributed.protocol.serialize import Serialized

from daskps.messages import family
from daskps.references.nodes import ObjectId, StoredBytes
from daskps.stores import opened

# Says so in the header of a message.
PUBLISHED = "daskps-published"


class Published:
    """A data set in Dask's form.

    Parameters
    ----------
    header
        What Dask needs to read it.
    parts
        For each frame its bytes, or where they are.
    """

    header: dict[str, Any]
    parts: list[bytes | StoredBytes]

    __slots__ = ("header", "parts")

    def __init__(self, header: dict[str, Any], parts: list[bytes | StoredBytes]):
        self.header = header
        self.parts = parts

    def __reduce__(self) -> tuple[Any, ...]:
        return Published, (self.header, self.parts)

    def objects(self) -> dict[ObjectId, int]:
        """The objects that it needs, with their sizes (bytes)."""
        return {
            part.id: part.nbytes for part in self.parts if isinstance(part, StoredBytes)
        }

    def read(self) -> list[Any]:
        """The frames, which whoever deserialises them may keep and write to.

        Raises
        ------
        ObjectMissingError
            If one cannot be read.
        """
        return [
            opened.read(part.id.store, part.id.key)
            if isinstance(part, StoredBytes)
            else bytearray(part)
            for part in self.parts
        ]

    def to_message(self, store_name: str) -> Serialized:
        """What the scheduler keeps, and sends to who can read the store."""
        header = {"serializer": family(store_name), PUBLISHED: True}
        return Serialized(header, [pickle.dumps(self)])


def family_of(message: Any) -> str | None:
    """The family in which something is published by reference; None: it is not."""
    header = getattr(message, "header", None)
    if not isinstance(header, dict) or PUBLISHED not in header:
        return None
    family: str = header["serializer"]
    return family


def published_in(message: Any) -> Published:
    """The data set of a message that has such a family."""
    published: Published = pickle.loads(b"".join(message.frames))
    return published
