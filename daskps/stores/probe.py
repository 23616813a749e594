"""What several processes have in common, found by trying. Runs everywhere.

To find the directories that they share, one process makes a private directory with a random
name, and others say whether they see it. What a killed process left is deleted by the next
sweep.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from daskps.dask_private.security import addresses
from daskps.linux import is_linux

if TYPE_CHECKING:
    from distributed import Scheduler


class Sight(NamedTuple):
    """What one process sees of one probe.

    Attributes
    ----------
    host
        Name of its host.
    room
        Bytes that it could write beside it; None: it does not see it.
    """

    host: str
    room: int | None


@contextlib.contextmanager
def probes(directories: list[str]) -> Iterator[list[str]]:
    """Make a probe in each of these directories, for a block; their paths."""
    from daskps.stores.files.directories import NEW_PREFIX

    name = f"{NEW_PREFIX}probe-{secrets.token_urlsafe(12)}"
    paths = [os.path.join(directory, name) for directory in directories]
    for path in paths:
        with contextlib.suppress(OSError):  # then nobody sees it
            os.mkdir(path, 0o700)
    try:
        yield paths
    finally:
        for path in paths:
            with contextlib.suppress(OSError):
                os.rmdir(path)


def look(paths: list[str]) -> list[Sight]:
    """What this process sees of these probes."""
    return [Sight(socket.gethostname(), _room(path)) for path in paths]


def look_from_scheduler(
    paths: list[str], dask_scheduler: Scheduler
) -> tuple[list[Sight], list[str]]:
    """What the scheduler sees of these probes, and at which addresses it is.

    A client behind a gateway knows it by another one.
    """
    return look(paths), addresses(dask_scheduler)


def _room(path: str) -> int | None:
    if not is_linux():
        return None
    from daskps.stores.files.directories import check_private
    from daskps.stores.memory import room

    try:
        check_private(path)
        free = room(path).free
    except OSError:
        return None
    return free if os.access(path, os.W_OK) else None
