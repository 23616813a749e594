"""Scattered values, as workers read them from the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distributed.utils import offload

if TYPE_CHECKING:
    from distributed import Worker

    from daskps.proxy_node import ProxyNode


async def read(worker: Worker, nodes: dict[Any, ProxyNode]) -> dict[str, Any]:
    """Read values and keep them, as ``Worker.update_data`` keeps what it is sent.

    Parameters
    ----------
    worker
        Where.
    nodes
        The values, by key.

    Returns
    -------
    dict
        ``"nbytes"``: their sizes, by key.
    """
    # In a thread: a store may be on another host.
    values = await offload(_read, nodes)
    return worker.update_data(data=values)


def _read(nodes: dict[Any, ProxyNode]) -> dict[Any, Any]:
    return {key: node() for key, node in nodes.items()}
