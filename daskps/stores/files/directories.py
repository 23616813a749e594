"""A private directory that belongs to one process, and what is left of dead ones.

The owner holds a lock (``flock``) on a file in the directory for as long as it lives. The
kernel releases that lock however the process ends, so whoever can take it knows that the
owner is dead; unlike a process id it cannot be reused, and it holds across containers
that share the directory.

On another host the lock may not be seen. NFS passes it on (Linux, since 2.6.12) unless
mounted with ``nolock`` or ``local_lock``, Lustre only if mounted with ``flock``, BeeGFS only
if told to. So the file says which host the owner is on, and the owner touches it from time
to time (:mod:`daskps.stores.leases`): a directory from another host counts as dead only if,
besides, that was long ago.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import shutil
import stat
import tempfile
import weakref
from collections.abc import Iterator
from itertools import chain
from typing import Any

logger = logging.getLogger(__name__)

PREFIX = "daskps-"
LOCK = "owner.lock"
# A directory gets its final name once its lock is held. One that still has its first name
# after this time (seconds) was left by a process that died in between.
NEW_PREFIX = "daskps.new-"
NEW_GRACE_SECONDS = 60.0
# What copies of other hosts' objects are called.
CACHED = "cached."
# For how long (seconds) the owner of a directory, on another host, counts as alive after it
# touched its lock. NFS may show the time of a file one minute late.
FOREIGN_LEASE_SECONDS = 600.0


class OwnedDirectory:
    """A directory that lives no longer than the process that made it.

    Parameters
    ----------
    parent
        Where to make it. The name is unguessable; only this user can enter (0700).
    prefix
        What its name begins with: says who may delete it when its owner is dead.

    Attributes
    ----------
    path
        The directory.

    Notes
    -----
    Also deleted when this object is collected, and when the process ends in an orderly
    way. A process forked from the owner deletes nothing.
    """

    path: str
    _remove: weakref.finalize[Any, Any]

    def __init__(self, parent: str, prefix: str = PREFIX):
        token = secrets.token_urlsafe(12)
        new = os.path.join(parent, NEW_PREFIX + token)
        # mkdir fails on whatever is there already, a symbolic link included.
        os.mkdir(new, 0o700)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        lock = os.open(os.path.join(new, LOCK), flags, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.write(lock, this_host())
        self.path = os.path.join(parent, prefix + token)
        os.rename(new, self.path)
        self._remove = weakref.finalize(self, _remove, self.path, lock, os.getpid())

    def touch(self) -> None:
        """Say that the owner is alive."""
        if self._remove.alive:
            os.utime(os.path.join(self.path, LOCK))

    def remove(self) -> None:
        """Delete the directory and all in it. Again: does nothing."""
        self._remove()

    def leave(self) -> None:
        """Do not delete it, but leave it to who finds it when this process has ended."""
        self._remove.detach()


def _remove(path: str, lock: int, owner: int) -> None:
    if os.getpid() != owner:
        return
    delete(path)
    os.close(lock)


def delete(path: str) -> None:
    """Delete a directory and all in it. Not there: does nothing."""
    # Under another name first, so that nobody can add a file meanwhile. One that nobody
    # else uses: a shared directory may be made again, and deleted again, by then.
    parent, name = os.path.split(path)
    gone = os.path.join(parent, f"{NEW_PREFIX}{name}-{secrets.token_urlsafe(6)}")
    try:
        os.rename(path, gone)
    except FileNotFoundError:
        return  # somebody else does it
    shutil.rmtree(gone, ignore_errors=True)


def check_private(path: str) -> None:
    """Refuse a directory that another user could have put there.

    Raises
    ------
    PermissionError
        If it is a symbolic link, belongs to someone else, or others may enter.
    FileNotFoundError
        If it does not exist.
    """
    info = os.lstat(path)
    if not stat.S_ISDIR(info.st_mode):
        raise PermissionError(f"{path} is not a directory (a symbolic link?)")
    if info.st_uid != os.geteuid():
        raise PermissionError(
            f"{path} belongs to user {info.st_uid}, not to user {os.geteuid()}"
        )
    if info.st_mode & 0o077:
        raise PermissionError(f"{path} is open to other users; it must be mode 0700")


def sweep(parent: str, *, dry_run: bool = False) -> list[str]:
    """Delete the directories whose owners are dead.

    Only directories of this user are touched. Safe to run at any time, by several
    processes at once.

    Parameters
    ----------
    parent
        Where the directories are.
    dry_run
        Only say what would be deleted.

    Returns
    -------
    list of str
        The directories.
    """
    swept = []
    # One by one: a directory that is given out is locked only until the next one is.
    for path in chain(dead_directories(parent), _unfinished(parent)):
        with contextlib.suppress(FileNotFoundError, PermissionError):
            if not dry_run:
                logger.info("Removing %s, left by a dead process", path)
                delete(path)
            swept.append(path)
    return swept


def dead_directories(parent: str, prefix: str = PREFIX) -> Iterator[str]:
    """The directories of this user whose names begin so and whose owners are dead.

    Nobody can take a directory while it is given out.
    """
    for name in _names(parent, prefix):
        path = os.path.join(parent, name)
        try:
            with _claimed(path) as dead:
                if dead:
                    yield path
        except OSError as e:
            # Gone meanwhile, or not ours, or the file system has no locks.
            logger.debug("Leaving %s alone: %s", path, e)


def _unfinished(parent: str) -> Iterator[str]:
    for name in _names(parent, NEW_PREFIX):
        with contextlib.suppress(FileNotFoundError, PermissionError):
            path = os.path.join(parent, name)
            check_private(path)
            if _age(path) > NEW_GRACE_SECONDS:
                yield path


def _names(parent: str, prefix: str) -> list[str]:
    try:
        return [name for name in os.listdir(parent) if name.startswith(prefix)]
    except FileNotFoundError:
        return []


@contextlib.contextmanager
def _claimed(path: str) -> Iterator[bool]:
    """Whether a directory is nobody's; meanwhile, nobody can take it."""
    check_private(path)
    # Without a lock file it is not ours, whatever its name: that raises FileNotFoundError.
    fd = os.open(os.path.join(path, LOCK), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        here = os.read(fd, 100) == this_host()
        yield here or _age(os.path.join(path, LOCK)) > FOREIGN_LEASE_SECONDS
    finally:
        os.close(fd)


def this_host() -> bytes:
    """This host since it was started, all containers on it included."""
    with open("/proc/sys/kernel/random/boot_id", "rb") as f:
        return f.read().strip()


def _age(path: str) -> float:
    """Seconds since a file was changed, by the clock of its file system."""
    modified = os.lstat(path).st_mtime
    # That of this host may go differently. On a network, the server sets the times.
    parent = os.path.dirname(path)
    with tempfile.TemporaryFile(dir=parent) as now:
        return os.fstat(now.fileno()).st_mtime - modified
