"""Values of a store are kept when Dask spills them. Runs on workers.

A value that is mapped takes no memory that spilling could free. So nothing of it is written
to disk: its mapping stays, and with it the object, whoever evicts that meanwhile. Reading
it back makes the value anew around the mapping, as Dask makes it from a file.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

from daskps.dask_private.memory import Kept
from daskps.safety_net import fell_back
from daskps.serialize.frames import Frame, frame_address, frame_nbytes
from daskps.serialize.sent import Sent, from_sent, to_sent
from daskps.stores.files.mapping import is_unwritten, maps_anything

# At most this share of a value may be memory of this process, which stays as well.
OWN_SHARE = 1 / 16


class KeptValue(Kept):
    """A value nearly all of whose memory is mapped.

    As Dask sees it, what was spilled of it is its own memory.

    Parameters
    ----------
    sent
        The value in Dask's form, whose frames refer to the mapping.
    own
        Those of its frames that are memory of this process.
    """

    def __init__(self, sent: Sent, own: list[Frame]):
        self._sent = sent
        self._own = own

    def load(self) -> Any:
        """The value, around the same mapping."""
        return from_sent(self._sent.header, list(self._sent.frames))

    def __len__(self) -> int:
        return sum(map(frame_nbytes, self._own))

    def __iter__(self) -> Iterator[Frame]:
        return iter(self._own)


def keep(value: Any) -> KeptValue | None:
    """What to keep of a value instead of spilling it; None: it is to be spilled.

    That is also so if it was written to: these pages are this process's own.
    """
    if not maps_anything():
        return None
    try:
        sent = to_sent(value, pickle.HIGHEST_PROTOCOL)
        own = [frame for frame in sent.frames if not _is_mapped(frame)]
        kept = KeptValue(sent, own)
        return kept if len(kept) <= OWN_SHARE * sent.nbytes else None
    except TypeError:
        return None  # it cannot be serialised, which Dask says
    except Exception as e:
        fell_back(e, "keep a mapped value of type", value)
        return None


def _is_mapped(frame: Frame) -> bool:
    """Whether the memory of a frame is mapped, and nobody has written to it."""
    if not isinstance(frame, memoryview) or not frame.nbytes or not frame.contiguous:
        return False
    return is_unwritten(frame_address(frame), frame.nbytes)
