"""What opens a store and must not be seen."""

from __future__ import annotations

import secrets
from typing import Any, Generic, TypeVar

T = TypeVar("T", str, bytes)


class Secret(Generic[T]):
    """A password or a key. Pickled, for Dask's connections; never shown.

    Compares by content.

    Parameters
    ----------
    value
        What is kept.
    """

    value: T

    __slots__ = ("value",)

    def __init__(self, value: T):
        self.value = value

    def __reduce__(self) -> tuple[Any, ...]:
        return Secret, (self.value,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.value == other.value

    def __hash__(self) -> int:
        return hash((Secret, self.value))

    def __repr__(self) -> str:
        return "Secret(***)"


def new_key() -> Secret[bytes]:
    """A key of 32 bytes that nobody has."""
    return Secret(secrets.token_bytes(32))
