"""How the scheduler deletes objects."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from proxystore.connectors.local import LocalConnector
from tornado.ioloop import IOLoop

from daskps.references.nodes import ObjectId
from daskps.scheduler import evictor as scheduler_evictor
from daskps.scheduler.ledger import Ledger
from daskps.scheduler.lifetimes import LifetimePlugin
from daskps.stores import opened
from daskps.stores.connectors.proxystore import ProxyStoreConnector
from daskps.stores.keys import creator_name
from daskps.stores.store import Store

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
        evictor.add_store(Store("s", LocalConnector()))
        evictor.evict(ids)
        for _ in range(100):
            await asyncio.sleep(0.02)
            if evicted.count("0") == 3:
                break
        await evictor.close([])

    asyncio.run(evict())
    assert evicted == ["0", "1", "2", "3", "0", "0"]


class MarkingConnector(ProxyStoreConnector):
    """Knows who stored what."""

    marks_creators = True

    def __init__(self, evict_orphans):
        super().__init__(LocalConnector())
        self.evict_orphans = evict_orphans


def test_a_store_whose_orphans_cannot_be_evicted_keeps_no_other(caplog):
    evicted = []

    def fail(creator, keep):
        raise FileNotFoundError("the directory is gone")

    stores = [
        Store("broken", MarkingConnector(fail)),
        Store("whole", MarkingConnector(lambda *orphans: evicted.append(orphans))),
    ]

    async def evict():
        plugin = LifetimePlugin("")
        plugin._scheduler = SimpleNamespace(clients={})
        plugin._objects = Ledger()
        plugin._stores = {store.name: store for store in stores}
        plugin._evictor = scheduler_evictor.Evictor(IOLoop.current())
        for store in stores:
            plugin._evictor.add_store(store)
        await plugin._evict_orphans("client-1")
        await plugin._evictor.close([])

    asyncio.run(evict())
    assert evicted == [(creator_name("client-1"), set())]
    assert "the directory is gone" in caplog.text
