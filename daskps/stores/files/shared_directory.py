"""A private directory that lives as long as any process of this host uses it.

Each user holds a shared lock (``flock``) on the file that
:mod:`daskps.stores.files.directories` has the owner of a directory lock. Whoever closes the
directory as the last one gets the exclusive lock and deletes it, and so does ``sweep`` when
all of them were killed.

Uses the standard library and BLAKE3 alone: the server of a ``peer://`` store imports it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import weakref
from typing import Any

from blake3 import blake3

from daskps.stores.files.directories import (
    LOCK,
    NEW_PREFIX,
    PREFIX,
    check_private,
    delete,
    this_host,
)
from daskps.stores.files.locks import is_at, try_lock

# Locked (shared) by users, but not by the server of a peer:// store, which keeps the
# directory for others.
USERS = "users.lock"
# How often others may delete the directory while it is being opened.
OPEN_ATTEMPTS = 1000


class SharedDirectory:
    """A directory that the processes of one host share.

    Parameters
    ----------
    parent
        Where it is, or is to be made.
    token
        What its name is made of: random, and known only to those who are to share it.
    is_user
        Whether this process uses what is in it, rather than keep it for others. Only a
        user makes the directory.

    Attributes
    ----------
    path
        The directory, mode 0700.

    Raises
    ------
    PermissionError
        If somebody else has put something else there.
    FileNotFoundError
        If it does not exist and this is no user, or its parent does not exist.

    Notes
    -----
    Given up also when this object is collected, and when the process ends in an orderly
    way. A forked process has the locks of its parent, and gives up nothing.
    """

    path: str
    _process: int
    _close: weakref.finalize[Any, Any]

    def __init__(self, parent: str, token: str, is_user: bool = True):
        self.path = self.path_of(parent, token)
        owners = _lock_directory(self.path, make=is_user)
        users = None
        if is_user:
            try:
                # Whoever has the exclusive lock only looks whether there are users.
                users = _open_shared(os.path.join(self.path, USERS))
            except BaseException:
                os.close(owners)
                raise
        self._process = os.getpid()
        self._close = weakref.finalize(
            self, _close, self.path, owners, users, self._process
        )

    @staticmethod
    def path_of(parent: str, token: str) -> str:
        """Where it is."""
        # Hosts may share the parent, and not see each other's locks.
        host = blake3(this_host()).hexdigest(length=4)
        return os.path.join(parent, f"{PREFIX}{token}-{host}")

    def touch(self) -> None:
        """Say that it is in use, to other hosts that share its parent."""
        os.utime(os.path.join(self.path, LOCK))

    def close(self) -> None:
        """Give it up; the last one deletes it. Again: does nothing."""
        self._close()

    def remove(self) -> None:
        """Delete it whoever uses it, and give it up: the store is closed."""
        if self._close.alive and os.getpid() == self._process:
            delete(self.path)
        self._close()

    def has_users(self) -> bool:
        """Whether any process uses it."""
        fd = _open(os.path.join(self.path, USERS))
        try:
            return not try_lock(fd, fcntl.LOCK_EX)
        finally:
            os.close(fd)


def _lock_directory(path: str, make: bool) -> int:
    """Have a share in a directory, which is made if need be; the descriptor of the lock."""
    lock = os.path.join(path, LOCK)
    for _ in range(OPEN_ATTEMPTS):
        try:
            check_private(path)
            owners = _open_shared(lock, create=False)
        except FileNotFoundError:
            if not make:
                raise
            _make(path)
            continue
        if is_at(owners, lock):
            return owners
        os.close(owners)  # the last one has deleted it meanwhile
    raise FileNotFoundError(
        errno.ENOENT, "Something else deletes the files of this directory", lock
    )


def _make(path: str) -> None:
    parent = os.path.dirname(path)
    # Never seen under its name without its lock, nor deleted before it has that name.
    new = os.path.join(parent, f"{NEW_PREFIX}{secrets.token_urlsafe(12)}")
    os.mkdir(new, 0o700)
    try:
        for file, content in ((LOCK, this_host()), (USERS, b"")):
            with open(_open(os.path.join(new, file)), "wb") as f:
                f.write(content)
        os.rename(new, path)
    except OSError as e:
        shutil.rmtree(new)
        if e.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        # Somebody else was faster.


def _open(path: str, create: bool = True) -> int:
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags | (os.O_CREAT if create else 0), 0o600)


def _open_shared(path: str, create: bool = True) -> int:
    fd = _open(path, create)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
    except BaseException:  # a file system that has no locks
        os.close(fd)
        raise
    return fd


def _close(path: str, owners: int, users: int | None, process: int) -> None:
    if os.getpid() != process:
        return
    if users is not None:
        # Not only by closing: a process forked meanwhile has the descriptor, too.
        fcntl.flock(users, fcntl.LOCK_UN)
        os.close(users)
    try:
        # Gives up the shared lock in any case. The directory may have been removed, and
        # made again by others.
        if try_lock(owners, fcntl.LOCK_EX) and is_at(owners, os.path.join(path, LOCK)):
            delete(path)
    finally:
        fcntl.flock(owners, fcntl.LOCK_UN)
        os.close(owners)
