"""What processes say to each other, besides Dask's own messages: every name, once.

A cluster's processes speak one protocol (:mod:`daskps.versions`): names may change, with
its number.
"""

from __future__ import annotations

# Operations of the scheduler, which answers (``daskps.scheduler.lifetimes``).
OPEN = "daskps_open"
STORE = "daskps_store"
USAGE = "daskps_usage"
SERVE = "daskps_serve"
SCATTER = "daskps_scatter"
UPLOAD = "daskps_upload"
UPLOADED = "daskps_uploaded"

# Operations of workers (``daskps.worker.scatter``, ``results``, ``calls``,
# ``holdings``).
READ = "daskps_read"
AGAIN = "daskps_again"
RUN = "daskps_run"
CALL = "daskps_call"
HOLDINGS = "daskps_holdings"

#: Status of an answer: the worker cannot read the arguments, and has done nothing.
UNREAD = "daskps-unread"

# From a client to the scheduler, on the connection on which graphs travel: objects that it
# has stored, holds, and holds no longer.
STORED = "daskps-stored"
HOLD = "daskps-hold"
RELEASE = "daskps-release"

#: From a worker to the scheduler: results that it has stored, and those that it has dropped.
RESULTS = "daskps-results"
#: How often one of its processes fell back on plain Dask.
FAULTS = "daskps-faults"
#: From either: what it has put into a store and read from it since it last said so.
TRAFFIC = "daskps-traffic"
#: It cannot use a store for now, or for good, or can again.
ACCESS = "daskps-access"
#: A task that it gives back.
RETURNED = "daskps-returned"

#: From the scheduler to clients, as an event: the address of a worker that has come.
WORKERS = "daskps-workers"

#: The topic of events for people: what :meth:`distributed.Client.get_events` takes.
EVENTS = "daskps"

#: Families of serialisation that are Dask's own.
DASK_FAMILIES = ("dask", "pickle", "msgpack", "error")
#: What Dask would pickle, pickled as daskps does; within the others.
PICKLE_FAMILY = "daskps-pickle"


def family(store_name: str) -> str:
    """The family of serialisation of a store: references to results, for clients."""
    return f"daskps:{store_name}"


def dependency_family(store_name: str) -> str:
    """The same for what workers pass to each other."""
    return f"daskps-dependency:{store_name}"
