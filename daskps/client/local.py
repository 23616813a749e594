"""Stores for Dask's local schedulers: this process is client, scheduler and worker.

With ``scheduler="processes"``, or an executor, tasks run in child processes, which open the
store before their first task. They may live longer than the store, or shorter.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from daskps.client.session import Session
from daskps.dask_private.hooks import loads_in_processes, runs_in_threads
from daskps.objects.catalog import Catalog
from daskps.references.nodes import ObjectId
from daskps.stores import leases, opened
from daskps.stores.opening import make
from daskps.stores.store import StoreConfig

_catalogs: weakref.WeakKeyDictionary[Session, Catalog] = weakref.WeakKeyDictionary()


class _LocalKeeper:
    """Evicts an object as soon as this process no longer holds it.

    A local scheduler returns when its tasks are done, and nobody asks for them again.
    """

    def stored(self, objects: list[tuple[ObjectId, int]]) -> None:
        pass

    def hold(self, objects: list[tuple[ObjectId, int]]) -> None:
        pass

    def release(self, objects: list[ObjectId]) -> None:
        for id in objects:
            opened.evict(id.store, id.key)


def local_catalog(session: Session) -> Catalog:
    """The catalog of a store that lives as long as the session."""
    catalog = _catalogs.get(session)
    if catalog is None:
        store = make(session.request)
        opened.add(store)
        leases.say_alive(store.connector)
        close = weakref.finalize(session, opened.close, store.name)
        # When the process ends, open stores close by themselves; in a forked one, none.
        close.atexit = False
        catalog = _catalogs[session] = Catalog(store, _LocalKeeper())
    return catalog


def can_read(get: Callable[..., Any]) -> bool:
    """Whether tasks can read from a store when this scheduler runs them.

    A scheduler that is not known may run them anywhere, and gets graphs as they are.
    """
    return runs_in_threads(get) or loads_in_processes(get, {}) is not None


def reading_options(
    get: Callable[..., Any], options: dict[str, Any], catalog: Catalog
) -> dict[str, Any]:
    """The options for a scheduler with which its tasks can read from a store."""
    if runs_in_threads(get):
        return options
    name, loads = loads_in_processes(get, options)
    return {**options, name: _OpeningLoads(catalog.store.config(), loads)}


class _OpeningLoads:
    """Opens a store in the process that it is called in, then loads a task. Pickled.

    Parameters
    ----------
    config
        How to open the store.
    loads
        What loads the task.
    """

    def __init__(self, config: StoreConfig, loads: Callable[[Any], Any]):
        self._config = config
        self._loads = loads

    def __call__(self, task: Any) -> Any:
        if opened.get(self._config.name) is None:
            opened.acquire(self._config)
        return self._loads(task)
