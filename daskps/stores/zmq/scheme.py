"""``zmq://``: objects stay in the process that stored them, and others pull them."""

from __future__ import annotations

from typing import Any
from urllib.parse import SplitResult

import zmq

from daskps.exceptions import ConfigError
from daskps.stores.connectors.sealed import SealedConnector
from daskps.stores.secret import new_key
from daskps.stores.zmq.connector import ZmqConnector


def check(key: str, parts: SplitResult) -> None:
    """Refuse a URL that names anything."""
    if parts.netloc or parts.path.strip("/"):
        # geturl() would drop the slashes of a scheme that it does not know.
        url = f"zmq://{parts.netloc}{parts.path}"
        raise ConfigError(
            f"{key}={url!r}: zmq:// takes no address: each process serves what it has "
            "stored, on the interface that leads to the scheduler and on a free port"
        )
    if not zmq.has("curve"):
        raise ConfigError(
            f"{key}: zmq:// needs a ZeroMQ with CURVE security, and this one has none: "
            "install pyzmq's wheel from PyPI, or use peer://"
        )


def options(parts: SplitResult) -> dict[str, Any]:
    """None."""
    return {}


def make(parts: SplitResult, options: dict[str, Any]) -> SealedConnector:
    """A connector for a new cluster, with keys of its own."""
    host = options.get("host", "127.0.0.1")
    return SealedConnector(ZmqConnector(new_key(), towards=host))


def sweep(parts: SplitResult, dry_run: bool) -> list[str]:
    """Nothing: objects do not outlive the processes that have stored them."""
    return []
