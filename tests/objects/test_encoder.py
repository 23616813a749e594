"""Values of one graph are stored together, or not at all."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest

from daskps.exceptions import StoreFullError
from daskps.objects.cache import Cache
from daskps.objects.encoder import Encoder
from daskps.references.nodes import ObjectId

MIB = 1 << 20


class Stored:
    """As much of a handle as an encoder looks at."""

    def __init__(self, number, nbytes):
        self.id = ObjectId("store", number)
        self.nbytes = nbytes
        self.mark = b"%d" % number


class FullOnce:
    """The object that comes first has no room, but fails after others were stored."""

    def __init__(self):
        self.handles = []
        self.others = threading.Event()
        self.lock = threading.Lock()
        self.first = True

    def put(self, frames):
        with self.lock:
            first, self.first = self.first, False
        if first:
            assert self.others.wait(60)
            raise StoreFullError("No room")
        stored = Stored(len(self.handles), MIB)
        self.handles.append(weakref.ref(stored))
        self.others.set()
        return stored


def test_an_error_keeps_nothing_that_other_threads_have_stored():
    catalog = FullOnce()
    encoder = Encoder(catalog, Cache(0), MIB, inline_on_error=False)
    values = [np.full(MIB, i, "u1") for i in range(8)]
    with pytest.raises(StoreFullError) as caught:
        encoder.encode_all(values)
    encoder.abandon()
    gc.collect()
    assert catalog.handles
    assert not [handle for handle in catalog.handles if handle() is not None]
    assert caught.value.__traceback__  # which has kept its frames all the time
