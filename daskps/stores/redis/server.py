"""A Redis server: how to reach it, and how its errors are told."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from daskps.exceptions import ConfigError, StoreFullError
from daskps.stores.secret import Secret

logger = logging.getLogger(__name__)
T = TypeVar("T")

# Seconds. The second one is for each piece that is sent or received.
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 20.0
# OSError: from a socket that is read without redis-py.
LOST = (redis.ConnectionError, redis.TimeoutError, OSError)
# What a server says of a number that is too large, and of any but 0 if it is a cluster.
NO_DATABASE = ("DB index", "SELECT is not allowed")
# How many keys one command names, or one round trip asks for.
NAMES_AT_ONCE = 1000


@dataclass(frozen=True)
class RedisAddress:
    """What is needed to reach a server. Pickled; shows no password.

    Attributes
    ----------
    host, port, database
        Where.
    username, password
        Credentials, if need be.
    tls
        Options for TLS, as redis-py takes them; None: no TLS.
    """

    host: str
    port: int
    database: int
    username: Secret[str] | None = None
    password: Secret[str] | None = None
    tls: dict[str, str] | None = field(default=None, hash=False)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}/{self.database}"


class RedisServer:
    """Connections to one server.

    Parameters
    ----------
    address
        Which one.

    Notes
    -----
    Thread-safe; a forked process makes connections of its own. Every method connects
    again if the connection was lost, and raises ``OSError`` if the server cannot be
    reached, :class:`daskps.StoreFullError` if it has no room, and
    :class:`daskps.ConfigError` if it does not have the database.
    """

    client: redis.Redis

    def __init__(self, address: RedisAddress):
        self._address = address
        options: dict[str, Any] = dict(address.tls or {})
        # Only where it is given: a server may have no users.
        for name in ("username", "password"):
            secret: Secret[str] | None = getattr(address, name)
            if secret:
                options[name] = secret.value
        self._pool = self._new_pool(address.database, options)
        self._options = options
        self.client = redis.Redis(connection_pool=self._pool)

    def _new_pool(self, database: int, options: dict[str, Any]) -> redis.ConnectionPool:
        address = self._address
        return redis.ConnectionPool(
            connection_class=redis.Connection
            if address.tls is None
            else redis.SSLConnection,
            host=address.host,
            port=address.port,
            db=database,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=ANSWER_SECONDS,
            # With protocol 3 the server may send what was not asked for.
            protocol=2,
            client_name="daskps",
            **options,
        )

    def call(self, function: Callable[[], T], attempts: int = 4) -> T:
        """Call what may be called again, and do so if the connection was lost."""
        retry = Retry(ExponentialBackoff(cap=0.5, base=0.05), attempts - 1, LOST)
        try:
            return retry.call_with_retry(function, _log)
        except LOST as e:
            raise ConnectionError(f"Redis at {self._address}: {e}") from e
        except redis.OutOfMemoryError as e:
            raise StoreFullError(
                f"No room in Redis at {self._address}: it has reached its maxmemory. "
                "Free some, compute in smaller parts, or use another store "
                "(daskps.proxy_graph(store=...))."
            ) from e
        except redis.ResponseError as e:
            if self._address.database and any(word in str(e) for word in NO_DATABASE):
                raise self._no_database() from e
            raise

    def _no_database(self) -> ConfigError:
        """The error of a database that the server does not have."""
        valid = "0, which every server has"
        pool = self._new_pool(0, self._options)
        # A user may not be allowed to ask.
        with contextlib.suppress(*LOST, redis.ResponseError, KeyError, ValueError):
            found = redis.Redis(connection_pool=pool).config_get("databases")
            valid = f"0 to {int(found['databases'] or '') - 1}"
        pool.disconnect()
        return ConfigError(
            f"Redis at {self._address.host}:{self._address.port} has no database "
            f"{self._address.database}: end the store's URL with one of {valid}"
        )

    @contextlib.contextmanager
    def connection(self) -> Iterator[Any]:
        """A connection of redis-py that nobody else uses, for one block.

        It is closed after an error: more may be on its way, and a server that has no room
        keeps what it has received until then.
        """
        connection = self._pool.get_connection()
        try:
            yield connection
        except BaseException:
            connection.disconnect()
            raise
        finally:
            self._pool.release(connection)

    def keys(self, prefix: str) -> list[str]:
        """The names of all keys that begin so; `prefix` has none of ``*?[``."""
        match = f"{prefix}*"
        found = self.call(
            lambda: set(self.client.scan_iter(match=match, count=NAMES_AT_ONCE))
        )
        return [name.decode() for name in found]

    def delete(self, names: Iterable[str]) -> None:
        """Delete keys. Not there: does nothing."""
        for batch in _batches(names):
            # Unlike DEL it frees the memory in a thread of the server.
            self.call(lambda batch=batch: self.client.unlink(*batch))  # type: ignore[misc]

    def expire(self, names: Iterable[str], milliseconds: int) -> None:
        """Have keys forgotten after some time. Not there: does nothing."""
        for batch in _batches(names):
            self.call(lambda batch=batch: self._expire(batch, milliseconds))  # type: ignore[misc]

    def _expire(self, names: list[str], milliseconds: int) -> None:
        with self.client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.pexpire(name, milliseconds)
            pipe.execute()

    def close(self) -> None:
        """Close the connections that nobody uses at this moment."""
        self._pool.disconnect(inuse_connections=False)


def _log(error: Exception) -> None:
    logger.info("Connecting to Redis again: %s", error)


def _batches(names: Iterable[str]) -> Iterator[list[str]]:
    every = list(names)
    for start in range(0, len(every), NAMES_AT_ONCE):
        yield every[start : start + NAMES_AT_ONCE]
