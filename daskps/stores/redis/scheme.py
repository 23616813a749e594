"""``redis://`` and ``rediss://``: objects in a Redis server, by TLS if need be."""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote

import dask

from daskps.config import lease
from daskps.exceptions import ConfigError
from daskps.stores.connectors.sealed import SealedConnector
from daskps.stores.redis import connector as redis_connector
from daskps.stores.redis.connector import RedisConnector
from daskps.stores.redis.server import RedisAddress
from daskps.stores.secret import Secret

VALID = "redis://[[username]:password@]host[:port][/database]"
#: Options of a ``rediss://`` URL, which redis-py takes under the same names: files of the
#: process that connects, and whether the server's certificate is checked.
TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs")
SHORTEST_LEASE_SECONDS = 1.0


def check(key: str, parts: SplitResult) -> None:
    """Refuse a URL that redis-py would not take, or take otherwise."""
    try:
        _address(parts)
    except ValueError as e:
        # Without the URL, and with nothing of its text: a password with a character that
        # is not quoted may be in any part of it.
        raise ConfigError(
            f"{key}={parts.scheme}://...: {e}. Give {VALID}, with special characters of "
            "a password percent-encoded, or the password by daskps.redis.password"
        ) from None


def _address(parts: SplitResult) -> dict[str, Any]:
    """What the URL says about the server, but credentials."""
    if not parts.hostname:
        raise ValueError("there is no host")
    try:
        port = parts.port or 6379
    except ValueError:
        raise ValueError("the port is not a number") from None
    database = parts.path.strip("/") or "0"
    if not database.isdecimal():
        raise ValueError("the database is not a number")
    if parts.fragment:
        raise ValueError("there is a '#' in it")
    return {
        "host": parts.hostname,
        "port": port,
        "database": int(database),
        "tls": _tls(parts),
    }


def _tls(parts: SplitResult) -> dict[str, str] | None:
    """Options for TLS; None without it."""
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.scheme != "rediss":
        if given:
            raise ValueError("redis:// takes no options")
        return None
    for name in given:
        if name not in TLS_OPTIONS:
            raise ValueError(f"an option is none of {', '.join(TLS_OPTIONS)}")
    if given.get("ssl_cert_reqs", "required") not in ("required", "none"):
        raise ValueError("ssl_cert_reqs is neither 'required' nor 'none'")
    return given


def options(parts: SplitResult) -> dict[str, Any]:
    """Credentials, of the URL or else of the configuration, and the lease."""
    return {**_credentials(parts), "lease": lease(SHORTEST_LEASE_SECONDS)}


def _credentials(parts: SplitResult) -> dict[str, Any]:
    found = {}
    for name, given in ("username", parts.username), ("password", parts.password):
        value = unquote(given) if given else dask.config.get(f"daskps.redis.{name}")
        # Dask reads a password of digits from the environment as a number.
        found[name] = None if value is None else Secret(str(value))
    return found


def make(parts: SplitResult, options: dict[str, Any]) -> SealedConnector:
    """A connector of which this process is the owner, sealed with a new key."""
    credentials = {name: options[name] for name in ("username", "password")}
    address = RedisAddress(**_address(parts), **credentials)
    # Nobody can guess the names of its keys.
    namespace = secrets.token_urlsafe(16)
    try:
        connector = RedisConnector(address, namespace, options["lease"], owner=True)
    except OSError as e:
        raise ConfigError(
            f"cannot keep objects in a Redis server: {e}. Check that it runs, that it "
            "can be reached from the scheduler, and the credentials, which are in the "
            "URL or else in daskps.redis.username and daskps.redis.password"
        ) from e
    return SealedConnector(connector)


def sweep(parts: SplitResult, dry_run: bool) -> list[str]:
    """Delete the objects of stores whose owners have been silent for a minute."""
    address = RedisAddress(**_address(parts), **_credentials(parts))
    try:
        return redis_connector.sweep(address, dry_run=dry_run)
    except OSError as e:
        raise ConfigError(str(e)) from e
