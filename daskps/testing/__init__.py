"""For the tests of programs that use daskps, and of stores that people write for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daskps.testing.graphs import assert_proxied

if TYPE_CHECKING:
    from daskps.testing.stores import StoreTests

__all__ = ["StoreTests", "assert_proxied"]


def __getattr__(name: str) -> Any:
    # It needs pytest, which a program that calls assert_proxied may not have.
    if name == "StoreTests":
        from daskps.testing.stores import StoreTests

        return StoreTests
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
