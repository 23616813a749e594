"""The scheduler plugin by itself: when it lets an object go."""

from __future__ import annotations

import contextlib
import pickle

import dask
import pytest
from faults_everywhere import failing, functions

from daskps import messages, safety_net
from daskps.references.nodes import ObjectId, ProxyNode, StoredBytes, StoredValue
from daskps.scheduler import evictor, lifetimes
from daskps.scheduler.lifetimes import LifetimePlugin
from daskps.versions import VERSION

pytestmark = pytest.mark.core

MODULES = lifetimes.__name__, evictor.__name__


class Loop:
    def __init__(self):
        self.callbacks = []

    def add_callback(self, callback, *args):
        self.callbacks.append(callback)


class FakeScheduler:
    """As much of a scheduler as the plugin's bookkeeping needs."""

    address = "here"

    def __init__(self):
        self.handlers, self.stream_handlers = {}, {}
        self.workers = {}
        self.loop = Loop()
        self.asked = []
        self.tasks = self

    def __getitem__(self, key):
        self.asked.append(key)
        return self

    run_spec = None


@pytest.fixture
def plugin():
    import asyncio

    plugin = LifetimePlugin(VERSION)
    asyncio.run(plugin.start(FakeScheduler()))
    return plugin


class TestLifetimePlugin:
    def test_looks_at_no_task_when_no_client_holds_anything(self, plugin):
        scheduler = plugin._scheduler
        plugin.update_graph(scheduler, client="c", tasks=["a", "b"])
        assert scheduler.asked == []
        plugin.hold("other", [(ObjectId("s", "1"), 10)])
        plugin.update_graph(scheduler, client="c", tasks=["a", "b"])
        assert scheduler.asked == []
        plugin.update_graph(scheduler, client="other", tasks=["a", "b"])
        assert scheduler.asked == ["a", "b"]

    def test_looks_at_no_task_when_all_that_is_held_was_found(self, plugin):
        scheduler = plugin._scheduler
        id = ObjectId("s", "1")
        node = ProxyNode("a", StoredValue(StoredBytes(id, 0, 10), [], []))
        plugin.hold("c", [(id, 10)])
        scheduler.run_spec = node
        plugin.update_graph(scheduler, client="c", tasks=["a"])
        scheduler.asked.clear()
        plugin.update_graph(scheduler, client="c", tasks=["b"])
        assert scheduler.asked == []

    def test_evicts_after_the_last_of_tasks_and_clients(self, plugin):
        scheduler = plugin._scheduler
        id = ObjectId("s", "1")
        scheduler.run_spec = ProxyNode("a", StoredValue(StoredBytes(id, 0, 10), [], []))
        plugin.hold("c", [(id, 10)])
        plugin.hold("d", [(id, 10)])
        plugin.update_graph(scheduler, client="c", tasks=["a", "b"])
        plugin.release("c", [id])
        plugin.transition("a", "released", "forgotten")
        plugin.remove_client(scheduler, "d")
        assert plugin._evictor.waiting == []
        plugin.transition("b", "memory", "released")
        assert plugin._evictor.waiting == []
        plugin.transition("b", "released", "forgotten")
        assert plugin._evictor.waiting == [id]
        assert plugin._evictor._evict in scheduler.loop.callbacks

    @pytest.mark.parametrize("name", sorted(functions(*MODULES)))
    def test_what_a_graph_needs_stays_whatever_function_fails(
        self, plugin, monkeypatch, name
    ):
        monkeypatch.setattr(safety_net, "_said", set())
        monkeypatch.setattr(safety_net, "_count", safety_net.count())
        scheduler, handlers = plugin._scheduler, plugin._handlers()
        ids = [ObjectId("s", "1"), ObjectId("s", "2")]
        stored = [StoredBytes(id, 0, 10) for id in ids]
        scheduler.run_spec = ProxyNode("a", StoredValue(stored[0], stored[1:], []))
        broken = failing(functions(*MODULES)[name])
        with broken, dask.config.set({safety_net.SETTING: True}):
            handlers[messages.HOLD]("c", [(id, 10) for id in ids])
            plugin.update_graph(scheduler, client="c", tasks=["a"])
            handlers[messages.RELEASE]("c", ids)
        with contextlib.suppress(Exception):
            plugin.remove_client(scheduler, "c")
        assert plugin._evictor.waiting == []

    def test_releasing_twice_or_what_was_never_held_is_no_error(self, plugin):
        id = ObjectId("s", "1")
        plugin.release("c", [id])
        plugin.hold("c", [(id, 10)])
        plugin.hold("d", [(id, 10)])
        plugin._evictor.waiting.clear()
        plugin.release("c", [id])
        plugin.release("c", [id])
        plugin.transition("unknown", "released", "forgotten")
        plugin.remove_client(plugin._scheduler, "unknown")
        assert plugin._evictor.waiting == [], "another client holds it"
        plugin.release("d", [id])
        assert plugin._evictor.waiting == [id]

    def test_can_be_pickled_with_its_version(self):
        plugin = pickle.loads(pickle.dumps(LifetimePlugin("1.2.3")))
        assert (plugin.version, plugin.name, plugin.idempotent) == (
            "1.2.3",
            "daskps",
            True,
        )
