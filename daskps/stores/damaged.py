"""What readers find of an object that is not whole. Uses the standard library alone."""

from __future__ import annotations


class DamagedError(Exception):
    """What a store gave back is not what was stored."""
