"""Layers of stored blocks, in a form that Dask fuses with what uses them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from daskps.dask_private.graphs import (
    Blockwise,
    DataNode,
    MaterializedLayer,
    symbolic_blocks,
)
from daskps.references.nodes import ProxyNode


class Layers:
    """The layers of a graph, and who uses each.

    Dask finds the users of all layers anew each time that it is asked for those of one, by
    going through the whole graph; which may have a layer for each delayed value.
    """

    def __init__(self, graph: Any):
        self._graph = graph

    @cached_property
    def _users(self) -> Mapping[str, set[str]]:
        users: Mapping[str, set[str]] = self._graph.dependents
        return users

    def only_user(self, name: str) -> Any:
        """The one layer that uses this one; None if there is none, or several."""
        users = self.users(name)
        return self._graph.layers[users[0]] if len(users) == 1 else None

    def users(self, name: str) -> list[str]:
        """The names of the layers that use this one, in order."""
        return sorted(self._users.get(name, ()))


def as_symbolic(layers: Layers, name: str, layer: Any) -> Any:
    """A layer of stored blocks in a form that Dask fuses with what uses them, if it can.

    Dask fuses materialised tasks too, on the scheduler, but leaves a task behind for each
    that only gives the result another name.
    """
    if type(layer) is not MaterializedLayer:
        return layer
    if not isinstance(layers.only_user(name), Blockwise):
        return layer
    numblocks = _numblocks(name, layer.mapping)
    return layer if numblocks is None else symbolic_blocks(layer, name, numblocks)


def _numblocks(name: str, mapping: Mapping[Any, Any]) -> tuple[int, ...] | None:
    """Blocks along each axis, if a layer is data and nothing else."""
    if not all(isinstance(node, (ProxyNode, DataNode)) for node in mapping.values()):
        return None
    for key in mapping:
        if type(key) is not tuple or key[0] != name:
            return None
    blocks = [key[1:] for key in mapping]
    if len(set(map(len, blocks))) != 1 or not all(
        type(index) is int for block in blocks for index in block
    ):
        return None
    numblocks = tuple(max(indices) + 1 for indices in zip(*blocks, strict=True))
    return numblocks if math.prod(numblocks) == len(blocks) else None
