"""Which objects a function could tell from equal ones."""

from __future__ import annotations

import enum

import pytest

from daskps.graph.sharing import _counts

pytestmark = pytest.mark.core


class Colour(enum.Enum):
    RED = 1


def test_a_member_of_an_enumeration_is_itself_everywhere():
    """It has no length, although its class has one."""
    assert not _counts(Colour.RED)


def test_what_is_long_and_what_can_change_counts():
    assert _counts("x" * 1000)
    assert _counts([])
    assert not _counts("x")
    assert not _counts(1)
