"""Objects in stores that others can reach: sealed when stored, checked when read.

A store behind a network, or a connector that we do not know, keeps objects where others may
write. So that no damaged or forged byte is ever unpickled, each object gets a seal: a
keyed BLAKE3 hash (128 bits of it) of all its bytes. The seal is part of the reference, which
travels over Dask's connections, and the cluster's key reaches each process in the same way.
An object that was cut short, changed, or put in the place of another does not fit the seal.

BLAKE3 hashes several GB/s on one core with AVX2 (https://github.com/BLAKE3-team/BLAKE3),
HMAC-SHA256 and BLAKE2 about one.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from blake3 import blake3

from daskps.serialize.frames import Frame, contiguous_parts, frame_nbytes
from daskps.stores.connectors.base import StoreConnector
from daskps.stores.connectors.config import ConnectorConfig
from daskps.stores.connectors.proxystore import make
from daskps.stores.connectors.wrapped import WrappedConnector
from daskps.stores.damaged import DamagedError
from daskps.stores.secret import Secret, new_key

SEAL_NBYTES = 16


class SealedKey(NamedTuple):
    """Names one object, and tells it from all others.

    Attributes
    ----------
    key
        The connector's own.
    nbytes
        Exact size.
    seal
        Keyed hash of the bytes.
    """

    key: Any
    nbytes: int
    seal: bytes

    def __repr__(self) -> str:
        # The seal says nothing to a reader.
        return repr(self.key)


class SealedConnector(WrappedConnector[SealedKey]):
    """A connector that checks what another one gives back.

    Parameters
    ----------
    connector
        The other one, or how to make it.
    secret
        The cluster's key. Default: a new one.

    Notes
    -----
    As thread-safe as the other one.
    """

    def __init__(
        self,
        connector: StoreConnector[Any] | ConnectorConfig,
        secret: Secret[bytes] | None = None,
    ):
        if isinstance(connector, ConnectorConfig):
            connector = make(connector)
        super().__init__(connector)
        self._secret = secret or new_key()

    def inner_key(self, key: SealedKey) -> Any:
        """The other one's key of an object."""
        return key.key

    def config(self) -> dict[str, Any]:
        """Arguments that make an equal connector."""
        return {
            "connector": self._connector.connector_config(),
            "secret": self._secret,
        }

    def put_batch(
        self, objs: Sequence[bytes | bytearray | memoryview]
    ) -> list[SealedKey]:
        """Store several objects."""
        keys = self._connector.put_batch(list(objs))
        return [
            SealedKey(key, memoryview(obj).nbytes, self._seal([obj]))
            for key, obj in zip(keys, objs, strict=True)
        ]

    def put_frames(self, frames: Sequence[Frame], creator: str = "") -> SealedKey:
        """Store one object that is in several pieces."""
        nbytes = sum(map(frame_nbytes, frames))
        seal = self._seal(_parts(frames))
        return SealedKey(self._connector.put_frames(frames, creator), nbytes, seal)

    def get(self, key: SealedKey) -> Any:
        """Read an object; None if it is not there.

        Raises
        ------
        DamagedError
            If the bytes are not those that were stored.
        """
        return self._checked(key, self._connector.get(key.key))

    def get_batch(self, keys: Sequence[SealedKey]) -> list[Any]:
        """Read several objects."""
        found = self._connector.get_batch([key.key for key in keys])
        return [self._checked(*pair) for pair in zip(keys, found, strict=True)]

    def _seal(self, parts: Iterable[Any]) -> bytes:
        digest = blake3(key=self._secret.value)
        for part in parts:
            digest.update(part)
        return digest.digest(SEAL_NBYTES)

    def _checked(self, key: SealedKey, data: Any) -> Any:
        if data is None:
            return None
        found = memoryview(data).nbytes
        if found != key.nbytes:
            raise DamagedError(f"it has {found} bytes where {key.nbytes} were stored")
        if not hmac.compare_digest(self._seal([data]), key.seal):
            raise DamagedError("its bytes are not those that were stored")
        return data


def _parts(frames: Sequence[Frame]) -> Iterable[memoryview]:
    return (part for frame in frames for part in contiguous_parts(frame))
