"""The kinds of stores that the conformance suite tries. To add one, add a line to KINDS."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import dask
from certificates import Authority, environment
from daos_pool import REAL, daos_pool
from proxystore.connectors.file import FileConnector
from proxystore.connectors.local import LocalConnector
from proxystore.connectors.multi import MultiConnector, Policy
from proxystore.connectors.redis import RedisConnector
from proxystore.store import Store
from redis_server import RedisServer, redis_server

from daskps.dask_private.security import configured_tls
from daskps.stores.daos.namespace import SMALL
from daskps.stores.files import directories as directory
from daskps.stores.opening import make
from daskps.stores.requests import request_for
from daskps.tls import Source


@dataclass
class Kind:
    """One kind of store, ready to be opened.

    Attributes
    ----------
    store
        What a user gives as ``store``: a URL, or a ProxyStore connector.
    overwrite
        Replaces the bytes of an object, given the connector and the key of the object, as
        others do who can write to the store; for the kinds in SEALED.
    left
        What is left of objects after the store was closed; None: ProxyStore's own
        connectors leave everything.
    tls
        Gives the certificates of this process; None: without TLS.
    restart
        Restarts the server, which keeps its objects; for the kinds in SERVERS.
    """

    store: Any
    overwrite: Callable[[Any, Any, bytes], None] | None = None
    left: Callable[[], Any] | None = None
    restart: Callable[[], None] | None = None
    tls: Source | None = None

    def open(self) -> Store[Any]:
        """A store of which this process is the owner."""
        return make(request_for(self.store), tls=self.tls)


Maker = Callable[[Path], contextlib.AbstractContextManager[Kind]]


@contextlib.contextmanager
def shm(place: Path) -> Iterator[Kind]:
    # A directory of its own: clusters of other tests have theirs beside it.
    parent = tempfile.mkdtemp(dir=os.environ["DASK_DASKPS__SHM__DIRECTORY"])
    with dask.config.set({"daskps.shm.directory": parent}):
        yield Kind("shm://", left=lambda: _objects(parent))
    os.rmdir(parent)


@contextlib.contextmanager
def file(place: Path) -> Iterator[Kind]:
    yield Kind(place.as_uri(), left=lambda: _objects(place))


@contextlib.contextmanager
def checked_file(place: Path) -> Iterator[Kind]:
    def overwrite(connector: Any, key: Any, data: bytes) -> None:
        segments = connector._connector._connector
        Path(segments._path(key.key)).write_bytes(data)

    with dask.config.set({"daskps.file.check": True}):
        yield Kind(place.as_uri(), overwrite, left=lambda: _objects(place))


@contextlib.contextmanager
def peer(place: Path) -> Iterator[Kind]:
    # Where other processes have theirs: those with another directory are another host.
    parent = os.environ["DASK_DASKPS__SHM__DIRECTORY"]
    before = set(os.listdir(parent))
    yield Kind("peer://", left=lambda: set(os.listdir(parent)) - before)


@contextlib.contextmanager
def peer_tls(place: Path) -> Iterator[Kind]:
    """The certificates of every process are those of Dask's configuration."""
    settings = Authority().settings(place)
    with (
        mock.patch.dict(os.environ, environment(settings)),
        dask.config.set(settings),
        peer(place) as kind,
    ):
        yield dataclasses.replace(kind, tls=configured_tls)


def _objects(parent: str | Path) -> list[str]:
    return [
        name
        for d in os.listdir(parent)
        if d.startswith(directory.PREFIX)
        for name in os.listdir(os.path.join(parent, d))
        if name != directory.LOCK
    ]


@contextlib.contextmanager
def proxystore_local(place: Path) -> Iterator[Kind]:
    def overwrite(connector: Any, key: Any, data: bytes) -> None:
        connector._connector._connector._connector._store[key.key] = data

    yield Kind(LocalConnector(), overwrite=overwrite)


@contextlib.contextmanager
def proxystore_file(place: Path) -> Iterator[Kind]:
    def overwrite(connector: Any, key: Any, data: bytes) -> None:
        (place / key.key.filename).write_bytes(data)

    with FileConnector(str(place)) as connector:
        yield Kind(connector, overwrite=overwrite)


@contextlib.contextmanager
def proxystore_multi(place: Path) -> Iterator[Kind]:
    """Small objects in one directory, large ones in another."""
    limit = 10_000
    places = {"small": place / "small", "large": place / "large"}
    connector = MultiConnector(
        {
            "small": (
                FileConnector(str(places["small"])),
                Policy(max_size_bytes=limit),
            ),
            "large": (
                FileConnector(str(places["large"])),
                Policy(min_size_bytes=limit),
            ),
        }
    )

    def overwrite(_: Any, key: Any, data: bytes) -> None:
        multi = key.key
        path = places[multi.connector_name] / multi.connector_key.filename
        path.write_bytes(data)

    with connector:
        yield Kind(connector, overwrite=overwrite)


@contextlib.contextmanager
def daos(place: Path) -> Iterator[Kind]:
    """Over the double of pydaos, or a real pool."""

    def overwrite(connector: Any, key: Any, data: bytes) -> None:
        objects = connector._connector._connector._objects
        if key.key.is_small:
            objects._index.put(key.key.entry, SMALL + data)
        for name, start, stop in key.key.chunks():
            last = stop == key.nbytes
            chunk = data[start:] if last else data[start:stop]
            objects._data.delete([name])
            if chunk:
                objects._data.put(name, chunk)

    with daos_pool(place) as pool:
        import pydaos

        yield Kind(
            pool.url,
            overwrite=overwrite,
            left=pool.everything,
            # A real agent is restarted by hand.
            restart=lambda: None if REAL else pydaos.restart_agent(),
        )


@contextlib.contextmanager
def redis(place: Path) -> Iterator[Kind]:
    with redis_server() as server:
        yield _in_redis(server)


@contextlib.contextmanager
def rediss(place: Path) -> Iterator[Kind]:
    with redis_server(tls=True) as server:
        yield _in_redis(server)


def _in_redis(server: RedisServer) -> Kind:
    def overwrite(connector: Any, key: Any, data: bytes) -> None:
        (name,) = server.admin.keys(f"*{key.key.name}:0")
        server.admin.set(name, data)

    return Kind(
        server.url,
        overwrite=overwrite,
        left=lambda: server.admin.keys("*"),
        restart=server.restart,
    )


@contextlib.contextmanager
def proxystore_redis(place: Path) -> Iterator[Kind]:
    def overwrite(_: Any, key: Any, data: bytes) -> None:
        server.admin.set(key.key.redis_key, data)

    with redis_server() as server:
        # ProxyStore knows no passwords.
        server.admin.config_set("requirepass", "")
        with RedisConnector("127.0.0.1", server.port) as connector:
            yield Kind(connector, overwrite=overwrite)


KINDS: dict[str, Maker] = {
    "shm": shm,
    "file": file,
    "file-checked": checked_file,
    "peer": peer,
    "peer-tls": peer_tls,
    "daos": daos,
    "redis": redis,
    "rediss": rediss,
    "proxystore-local": proxystore_local,
    "proxystore-file": proxystore_file,
    "proxystore-multi": proxystore_multi,
    "proxystore-redis": proxystore_redis,
}

#: Of these, other processes see the objects.
SHARED = [name for name in KINDS if name != "proxystore-local"]
#: To these, others could write.
SEALED = [name for name in KINDS if name not in ("shm", "file", "peer", "peer-tls")]
#: These have a server, which may go away and come back.
SERVERS = ["redis", "rediss", "daos"]
#: ProxyStore puts an object into one value of Redis, which has room for 512 MB.
LARGE = [name for name in KINDS if name != "proxystore-redis"]
#: With these, a forked process cannot use what its parent has opened.
SPAWN_ONLY = ["daos"]
