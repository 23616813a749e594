"""A store as another package may bring it: objects are files in a folder."""

from __future__ import annotations

import os
import secrets
import shutil
import threading

from daskps.exceptions import ConfigError
from daskps.serialize.frames import contiguous_parts
from daskps.stores.connectors.base import StoreConnector


class FolderConnector(StoreConnector):
    def __init__(self, folder, owner=False):
        self.closed = threading.Event()
        self._folder = folder
        self._owner = owner
        os.makedirs(folder, exist_ok=True)

    def config(self):
        return {"folder": self._folder}

    def close(self):
        self.closed.set()
        if self._owner:
            shutil.rmtree(self._folder, ignore_errors=True)

    def put_frames(self, frames, creator=""):
        key = secrets.token_hex(16)
        with open(self._path(key), "wb") as f:
            f.writelines(part for frame in frames for part in contiguous_parts(frame))
        return key

    def get(self, key):
        try:
            with open(self._path(key), "rb") as f:
                return f.read()
        except FileNotFoundError:
            return None

    def exists(self, key):
        return os.path.exists(self._path(key))

    def evict(self, key):
        if self.exists(key):
            os.unlink(self._path(key))

    def _path(self, key):
        return os.path.join(self._folder, key)


def check(key, parts):
    if not parts.path:
        raise ConfigError(f"{key}: folder:// needs a path")


def options(parts):
    return {}


def make(parts, options):
    return FolderConnector(os.path.join(parts.path, secrets.token_hex(4)), owner=True)


def sweep(parts, dry_run):
    return []
