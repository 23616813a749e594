"""The pieces of an object, as a value's serialisation gives them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np

#: Bytes, or an array that need not be contiguous.
Frame: TypeAlias = "bytes | bytearray | memoryview | np.ndarray"

# Large enough that the cost of a call does not matter, small enough that a part of a
# non-contiguous array stays in the processor's cache between its two copies.
PART_NBYTES = 1 << 20


def frame_nbytes(frame: Frame) -> int:
    """Bytes in a frame."""
    return frame.nbytes if isinstance(frame, (memoryview, np.ndarray)) else len(frame)


def frame_address(frame: Frame) -> int:
    """Where the memory of a frame begins."""
    array = frame if isinstance(frame, np.ndarray) else np.asarray(memoryview(frame))
    return int(array.__array_interface__["data"][0])


def of_its_owner(flat: memoryview) -> memoryview:
    """The same bytes, not by way of another memoryview.

    CPython before 3.12.7 ends the process if its garbage collector finds a memoryview of
    which something else still has the buffer (gh-77894), as :class:`pickle.PickleBuffer`
    leaves it. It gets there with an error that keeps itself: libraries that connect again
    and again raise such ones, and the frames of their callers hold what was to be sent.

    Parameters
    ----------
    flat
        Contiguous, one-dimensional, of bytes.
    """
    if not isinstance(flat.obj, memoryview) or not flat.nbytes:
        return flat
    # In whichever order the axes are: it is contiguous, so this is no copy.
    return np.asarray(flat.obj).ravel(order="K").view(np.uint8).data


def contiguous_parts(frame: Frame) -> Iterator[memoryview]:
    """The bytes of a frame, in C order, in one part or in several.

    A non-contiguous array comes in parts that are copied one by one, so that it is never
    held twice.
    """
    if not isinstance(frame, np.ndarray):
        yield memoryview(frame).cast("B")
    elif frame.nbytes == 0:
        return
    elif frame.flags.c_contiguous:
        yield frame.reshape(-1).view(np.uint8).data
    else:
        rows = max(1, PART_NBYTES // max(1, frame.nbytes // frame.shape[0]))
        for start in range(0, frame.shape[0], rows):
            part = frame[start : start + rows]
            if len(part) == 1 and part.nbytes > PART_NBYTES and part.ndim > 1:
                yield from contiguous_parts(part[0])
            else:
                yield from contiguous_parts(np.ascontiguousarray(part))
