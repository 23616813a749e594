"""Sessions for the graphs that tasks submit. Runs on workers.

A task may submit tasks itself, with ``worker_client`` or ``get_client``. The large values of
these travel by reference too, once a session was opened on the cluster: with the settings of
that session, for as long as the submitting task runs.

Asynchronous methods of actors run in the event loop, where Dask does not say whose code it
is. They share a session, which keeps nothing for later graphs, so that it need not end with
any of them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from distributed import get_worker

from daskps.client.link import ClusterLink
from daskps.client.session import Session
from daskps.dask_private.scheduling import current_task
from daskps.worker.plugin import WorkerStorePlugin

if TYPE_CHECKING:
    from distributed import Client

#: What :func:`current_task` gives where it does not know the task.
_SHARED = None


def task_session(client: Client) -> Session | None:
    """The session of the task that runs here, if one does, and has one.

    Parameters
    ----------
    client
        What the task submits with.
    """
    try:
        worker = get_worker()
    except ValueError:
        return None
    plugin = WorkerStorePlugin.latest.get(worker)
    # A client that is not connected yet may not know where it will be. Read once: another
    # thread may close it meanwhile.
    scheduler = client.scheduler
    if plugin is None or not plugin.tasks_store or scheduler is None:
        return None
    if scheduler.address != worker.scheduler.address:
        return None
    key = current_task(worker)
    session = plugin.sessions.get(key)
    if not isinstance(session, Session):
        settings = plugin.settings
        if key is _SHARED:
            settings = replace(settings, cache_size=0)
        session = plugin.sessions[key] = Session(settings, request=plugin.request)
    ClusterLink.of(client).adopt(plugin.request, plugin.store)
    return session
