"""A store in shared memory, as daskps itself uses it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import daskps
from daskps.stores.store import Store


@contextlib.contextmanager
def shared_store() -> Iterator[Store]:
    """Open one; what :func:`daskps.open_store` gives is for users of ProxyStore."""
    with daskps.open_store("shm://") as opened:
        yield Store(opened.name, opened.connector)
