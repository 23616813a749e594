"""A keeper of objects without a cluster."""

from __future__ import annotations

from typing import Any


class Nobody:
    """Is told of objects, and does nothing."""

    def stored(self, objects: Any) -> None:
        pass

    hold = release = stored
