"""Large values in Dask graphs travel by reference, through a ProxyStore store.

::

    import daskps

    with daskps.proxy_graph():
        dask.array.from_array(big).sum().compute()
"""

from __future__ import annotations

from daskps.config import load_defaults

load_defaults()

from daskps.client.block import proxy_graph
from daskps.client.client import Client
from daskps.client.proxy import proxy
from daskps.client.submission import install, optimize
from daskps.client.usage import usage
from daskps.exceptions import (
    ClusterError,
    ConfigError,
    DaskpsError,
    ObjectMissingError,
    StoreError,
    StoreFullError,
)
from daskps.explanation.explaining import explain
from daskps.stores.opening import open_store
from daskps.versions import __version__

install()

__all__ = [
    "Client",
    "ClusterError",
    "ConfigError",
    "DaskpsError",
    "ObjectMissingError",
    "StoreError",
    "StoreFullError",
    "__version__",
    "explain",
    "open_store",
    "optimize",
    "proxy",
    "proxy_graph",
    "usage",
]
