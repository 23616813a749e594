"""How the scheduler deletes objects."""

from __future__ import annotations

import asyncio

import pytest
from proxystore.connectors.local import LocalConnector
from proxystore.store import Store
from tornado.ioloop import IOLoop

from daskps.references.nodes import ObjectId
from daskps.scheduler import evictor as scheduler_evictor
from daskps.stores import opened

pytestmark = pytest.mark.core


def test_one_object_out_of_reach_keeps_no_other(monkeypatch):
    """In a store whose objects are in several processes, one of which is stopped."""
    ids = [ObjectId("s", str(i)) for i in range(4)]
    evicted = []

    def evict_now(store, key):
        evicted.append(key)
        return key != "0"

    async def evict():
        monkeypatch.setattr(opened, "try_to_evict", evict_now)
        monkeypatch.setattr(scheduler_evictor, "RETRY_SECONDS", 0.01)
        monkeypatch.setattr(scheduler_evictor, "EVICT_ATTEMPTS", 3)
        evictor = scheduler_evictor.Evictor(IOLoop.current())
        evictor.add_store(Store("s", LocalConnector(), register=False))
        evictor.evict(ids)
        for _ in range(100):
            await asyncio.sleep(0.02)
            if evicted.count("0") == 3:
                break
        await evictor.close([])

    asyncio.run(evict())
    assert evicted == ["0", "1", "2", "3", "0", "0"]
