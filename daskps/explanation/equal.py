"""Which values are equal, so that a store keeps one of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from daskps.explanation.uses import Use
from daskps.objects.content import content_hash, fingerprint
from daskps.objects.pickles import Pickles
from daskps.serialize.frames import Frame
from daskps.serialize.values import serialize

#: What has to be pickled to be compared is, up to so many bytes in all: that is slow.
PICKLED_NBYTES_AT_MOST = 256 << 20


def equal_uses(uses: Iterable[Use], pickles: Pickles) -> list[list[Use]]:
    """Uses of equal values, together; in the order in which the first were found.

    Parameters
    ----------
    uses
        One for each value.
    pickles
        What was pickled already.
    """
    alike: dict[Any, list[Use]] = {}
    for use in uses:
        alike.setdefault(_looks(use), []).append(use)
    contents = _Contents(pickles)
    groups: dict[Any, list[Use]] = {}
    for looks, several in alike.items():
        for use, content in zip(several, contents.of(several), strict=True):
            groups.setdefault((looks, content), []).append(use)
    return list(groups.values())


def _looks(use: Use) -> tuple[Any, ...]:
    """What is the same for equal values, and costs nothing."""
    value = use.value
    if isinstance(value, np.ndarray):
        return type(value), use.nbytes, value.shape, value.dtype.str
    return type(value), use.nbytes


class _Contents:
    """Tells values apart by their content."""

    def __init__(self, pickles: Pickles):
        self._pickles = pickles
        self._left = PICKLED_NBYTES_AT_MOST

    def of(self, uses: list[Use]) -> list[Any]:
        """For each something that is the same for equal ones."""
        if len(uses) == 1:
            return [None]
        frames = [self._frames(use) for use in uses]
        glances = [
            id(use) if of is None else fingerprint(of)
            for use, of in zip(uses, frames, strict=True)
        ]
        counts = Counter(glances)  # most are told apart by a glance at them
        return [
            content_hash(of) if of is not None and counts[glance] > 1 else glance
            for of, glance in zip(frames, glances, strict=True)
        ]

    def _frames(self, use: Use) -> list[Frame] | None:
        value = use.value
        if isinstance(value, (bytes, bytearray)):
            return [memoryview(value)]
        if type(value) is str:
            return [memoryview(value.encode("utf-8", "surrogatepass"))]
        if type(value) is np.ndarray and not value.dtype.hasobject:
            return [value]
        serialized = self._pickles.get(value)
        if serialized is None:
            self._left -= use.nbytes
            if self._left < 0:
                return None
            try:
                serialized = serialize(value)
            except Exception:
                return None  # Dask says why, if it is to be sent
        return [memoryview(serialized.stream), *serialized.buffers]
