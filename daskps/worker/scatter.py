"""Scattered values, as workers read them from the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distributed.protocol.pickle import loads
from distributed.utils import offload

from daskps.dask_private.connections import keep
from daskps.stores import opened
from daskps.stores.keys import SegmentKey

if TYPE_CHECKING:
    from distributed import Worker

    from daskps.references.nodes import ProxyNode

# So much (bytes) is mapped sooner than a thread has begun.
AT_ONCE_NBYTES = 4 << 20


async def read(worker: Worker, nodes: dict[Any, bytes]) -> dict[str, Any]:
    """Read values and keep them, as ``Worker.update_data`` keeps what it is sent.

    Parameters
    ----------
    worker
        Where.
    nodes
        The values, by key: pickled :class:`~daskps.references.nodes.ProxyNode`.

    Returns
    -------
    dict
        ``"nbytes"``: their sizes, by key.
    """
    values = {key: loads(node) for key, node in nodes.items()}
    # In a thread if it may take longer than it takes a thread to begin.
    read = _read(values) if _at_hand(values) else await offload(_read, values)
    return keep(worker, read)


def _at_hand(nodes: dict[Any, ProxyNode]) -> bool:
    """Whether it is little, and in this host's memory."""
    ids = {id for node in nodes.values() for id in node.value.objects()}
    stores = [opened.get(id.store) for id in ids]
    return (
        all(isinstance(id.key, SegmentKey) for id in ids)
        and sum(id.key.nbytes for id in ids) <= AT_ONCE_NBYTES
        and all(store is not None and store.connector.maps_its_own for store in stores)
    )


def _read(nodes: dict[Any, ProxyNode]) -> dict[Any, Any]:
    return {key: node() for key, node in nodes.items()}
