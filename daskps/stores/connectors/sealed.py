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
import socket
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from blake3 import blake3

from daskps.exceptions import ClusterError
from daskps.serialize.frames import Frame, contiguous_parts, frame_nbytes
from daskps.stores.reach import SERVING
from daskps.stores.secret import Secret, new_key
from daskps.stores.store import ConnectorConfig, StoreConfig

SEAL_NBYTES = 16


class DamagedError(Exception):
    """What a store gave back is not what was stored."""


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


class SealedConnector:
    """A ProxyStore ``Connector`` that checks what another one gives back.

    What only some connectors can do (``capacity``, ``evict_orphans``, ``renew``, ...) this
    one can do if the other one can.

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
        connector: Any,
        secret: Secret[bytes] | None = None,
    ):
        if isinstance(connector, ConnectorConfig):
            connector = _make(connector)
        self._connector: Any = connector
        self._secret = secret or new_key()
        for name in ("capacity", "closed", "heartbeat", "lease", *SERVING):
            if hasattr(connector, name):
                setattr(self, name, getattr(connector, name))
        for name in ("evict_orphans", "renew"):
            if hasattr(connector, name):
                setattr(self, name, getattr(self, f"_{name}"))

    def __repr__(self) -> str:
        return repr(self._connector)

    def close(self) -> None:
        self._connector.close()

    def config(self) -> dict[str, Any]:
        """Arguments that make an equal connector."""
        return {
            "connector": ConnectorConfig.of(self._connector),
            "secret": self._secret,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SealedConnector:
        """Make a connector from what :meth:`config` returned."""
        return cls(**config)

    def put(self, obj: bytes | bytearray | memoryview) -> SealedKey:
        """Store the bytes of one object."""
        return self.put_frames([obj])

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
        if hasattr(self._connector, "put_frames"):
            key = self._connector.put_frames(frames, creator)
        else:
            # ProxyStore's connectors take one piece of bytes.
            key = self._connector.put(b"".join(_parts(frames)))
        return SealedKey(key, nbytes, seal)

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

    def exists(self, key: SealedKey) -> bool:
        """Whether something is there; it is not read."""
        return bool(self._connector.exists(key.key))

    def evict(self, key: SealedKey) -> None:
        """Delete the object. Not there: does nothing."""
        self._connector.evict(key.key)

    def _evict_orphans(self, creator: str, keep: set[SealedKey]) -> None:
        self._connector.evict_orphans(creator, {key.key for key in keep})

    def _renew(self, keys: Iterable[SealedKey] | None) -> None:
        self._connector.renew(keys and [key.key for key in keys])

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


def _make(config: ConnectorConfig) -> Any:
    """A connector, in a process where it may not be installed."""
    try:
        return config.make()
    except ImportError as e:
        raise ClusterError(
            f"The store's connector, {config.kind}, cannot be made on host "
            f"{socket.gethostname()}: {e}. Install what it needs there; the client, "
            "the scheduler and every worker need it."
        ) from e


def sealed(config: StoreConfig) -> StoreConfig:
    """The configuration of a store that checks what it reads."""
    return StoreConfig(
        name=config.name,
        connector=ConnectorConfig(
            kind=f"{__name__}.{SealedConnector.__qualname__}",
            options={"connector": config.connector, "secret": new_key()},
        ),
    )
