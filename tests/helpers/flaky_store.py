"""A ProxyStore connector that fails on demand, for tests."""

from __future__ import annotations

import json
import os
import secrets
import time
from typing import Any, NamedTuple


class FlakyKey(NamedTuple):
    """Names an object."""

    name: str


class FlakyConnector:
    """Keeps objects as files in a directory.

    What it is to do wrong is in the file ``faults`` in that directory: a dictionary of
    methods' names, and for each how many seconds it is to take, or ``"raise"``.
    """

    def __init__(self, directory: str):
        self.directory = directory

    def _fault(self, method: str) -> None:
        try:
            with open(os.path.join(self.directory, "faults")) as f:
                text = f.read()
        except FileNotFoundError:
            return
        # It is empty while it is written anew.
        fault = json.loads(text or "{}").get(method)
        if fault == "raise":
            raise RuntimeError(f"no route to the store ({method})")
        if fault:
            time.sleep(fault)

    def _path(self, key: FlakyKey) -> str:
        return os.path.join(self.directory, key.name)

    def put(self, obj: bytes) -> FlakyKey:
        self._fault("put")
        key = FlakyKey("object-" + secrets.token_hex(8))
        with open(self._path(key) + ".part", "wb") as f:
            f.write(obj)
        os.rename(self._path(key) + ".part", self._path(key))
        return key

    def put_batch(self, objs: list[bytes]) -> list[FlakyKey]:
        return [self.put(obj) for obj in objs]

    def get(self, key: FlakyKey) -> bytes | None:
        self._fault("get")
        try:
            with open(self._path(key), "rb") as f:
                return f.read()
        except FileNotFoundError:
            return None

    def get_batch(self, keys: list[FlakyKey]) -> list[bytes | None]:
        return [self.get(key) for key in keys]

    def exists(self, key: FlakyKey) -> bool:
        self._fault("exists")
        return os.path.exists(self._path(key))

    def evict(self, key: FlakyKey) -> None:
        self._fault("evict")
        if os.path.exists(self._path(key)):
            os.unlink(self._path(key))

    def close(self) -> None:
        self._fault("close")

    def config(self) -> dict[str, Any]:
        return {"directory": self.directory}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FlakyConnector:
        return cls(**config)
