"""Control groups with a limit of memory, v1 and v2, to run programs in."""

from __future__ import annotations

import os
import secrets
import signal
import time
from pathlib import Path
from typing import Self

V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
# How long (seconds) killed processes may take to leave their group.
PATIENCE = 30.0


class NoGroupsError(Exception):
    """This process may not make control groups here; the text says why."""


class ControlGroup:
    """A control group for some processes, removed at the end of a block.

    Parameters
    ----------
    limit
        Bytes of memory.

    Raises
    ------
    NoGroupsError
        If this process may not make one.
    """

    def __init__(self, limit: int):
        self._first = (V1 / "memory.limit_in_bytes").exists()
        parent = V1 if self._first else V2
        if not self._first:
            _check_second(parent)
        self._path = parent / f"daskps-{secrets.token_hex(4)}"
        try:
            self._path.mkdir()
        except OSError as e:
            raise NoGroupsError(f"no control group can be made in {parent}: {e}") from e
        try:
            self._write("memory.limit_in_bytes" if self._first else "memory.max", limit)
        except OSError as e:
            self._path.rmdir()
            raise NoGroupsError(f"no limit can be set in {parent}: {e}") from e

    def command(self, command: list[str]) -> list[str]:
        """A command that runs another one in the group."""
        join = 'echo $$ > "$0" && exec "$@"'
        return ["sh", "-c", join, str(self._path / "cgroup.procs"), *command]

    @property
    def peak(self) -> int:
        """The most bytes that the group held, reclaimable page cache included.

        0 if the kernel does not say it (v2 before Linux 5.19).
        """
        name = "memory.max_usage_in_bytes" if self._first else "memory.peak"
        path = self._path / name
        return int(path.read_text()) if path.exists() else 0

    @property
    def kills(self) -> int:
        """How many of its processes the kernel has killed."""
        name = "memory.oom_control" if self._first else "memory.events"
        fields = dict(line.split() for line in self._read(name).splitlines())
        return int(fields.get("oom_kill", 0))

    def close(self) -> None:
        """Kill what is left in it, and remove it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            for pid in self._read("cgroup.procs").split():
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    pass
            try:
                self._path.rmdir()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def _read(self, name: str) -> str:
        return (self._path / name).read_text()

    def _write(self, name: str, value: int) -> None:
        (self._path / name).write_text(str(value))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _check_second(parent: Path) -> None:
    try:
        passed_on = (parent / "cgroup.subtree_control").read_text().split()
    except OSError as e:
        raise NoGroupsError(f"there are no control groups: {e}") from e
    if "memory" not in passed_on:
        raise NoGroupsError(f"{parent} does not let its groups limit memory")
