"""Why a process cannot use a store, and whether that may change. Used on all processes."""

from __future__ import annotations

from daskps.exceptions import ClusterError, ConfigError, DaskpsError
from daskps.stores import reach
from daskps.versions import VersionError


def is_final(error: Exception) -> bool:
    """Whether what is wrong with opening a store will not change while the worker lives.

    Something is not installed, speaks another protocol, or is on another host, which may be
    cut off from others; or the scheduler does not have the store any more.
    """
    elsewhere = (
        FileNotFoundError,
        NotADirectoryError,
        PermissionError,
        reach.CutOffError,
    )
    return isinstance(error, (ImportError, DaskpsError, *elsewhere))


def refusal(who: str, error: Exception) -> DaskpsError:
    """The error for a process that will never be able to use a store."""
    # These say where, and what to do.
    if isinstance(error, (ConfigError, VersionError)):
        return error
    return ClusterError(unreachable(who, error))


def unreachable(who: str, error: Exception) -> str:
    """The message for a process that cannot use a store."""
    if isinstance(error, DaskpsError):
        return f"{who} cannot use the cluster's store: {error}"
    if isinstance(error, ImportError):
        remedy = (
            "Install what is missing there; what daskps needs for a kind of store is an "
            "extra, as in pip install 'daskps[redis]'."
        )
    elif isinstance(error, reach.CutOffError):
        remedy = (
            "The store needs hosts that can connect to each other. Others run the tasks "
            "that read what is stored; what is submitted from now on is sent inside the "
            "graph."
        )
    elif isinstance(error, ConnectionError):
        remedy = (
            "The address in the store's URL must lead to the server from the client, the "
            "scheduler and all workers."
        )
    else:
        remedy = (
            "shm:// needs the client, the scheduler and all workers on one host, as one "
            "user, with one /dev/shm (containers: --ipc=host). Across hosts, use "
            'daskps.proxy_graph(store="peer://"), a directory that all of them share, '
            'store="file:///shared/directory", or a server, store="redis://host".'
        )
    return f"{who} cannot use the cluster's store: {error}. {remedy}"
