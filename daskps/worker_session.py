"""Sessions for the graphs that tasks submit. Runs on workers.

A task may submit tasks itself, with ``worker_client`` or ``get_client``. The large values of
these travel by reference too, once a session was opened on the cluster: with the settings of
that session, for as long as the submitting task runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distributed import get_worker

from daskps.client_link import ClusterLink
from daskps.client_session import Session
from daskps.worker_stores import WorkerStorePlugin

if TYPE_CHECKING:
    from distributed import Client


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
    if plugin is None or not plugin.tasks_store:
        return None
    if client.scheduler.address != worker.scheduler.address:
        return None
    try:
        key = worker.get_current_task()
    except (AttributeError, ValueError):
        return None  # on the worker, but not in a task
    if key not in plugin.sessions:
        plugin.sessions[key] = Session(plugin.settings, request=plugin.request)
    ClusterLink.of(client).adopt(plugin.request, plugin.store)
    return plugin.sessions[key]
