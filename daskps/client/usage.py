"""What the stores of a cluster hold."""

from __future__ import annotations

from typing import Any

from dask.utils import format_bytes
from distributed import Client, default_client

from daskps.client.opening import install_plugin
from daskps.client.session import sessions_here
from daskps.messages import USAGE
from daskps.safety_net import PROCESS, count


class Usage(dict[str, dict[str, Any]]):
    """For each store of a cluster, by name, what it holds.

    Each value is a dictionary with ``store`` (URL), ``objects`` (how many), ``bytes``, and
    ``hits`` (how often one of these objects was found stored already).

    Attributes
    ----------
    faults
        How often something could not be treated, here, on the scheduler or on a worker, and
        went as in plain Dask. The log says what.
    """

    faults: int = 0

    @property
    def objects(self) -> int:
        """Objects in all stores."""
        return sum(row["objects"] for row in self.values())

    @property
    def nbytes(self) -> int:
        """Bytes in all stores."""
        return sum(row["bytes"] for row in self.values())

    @property
    def hits(self) -> int:
        """Hits in all stores."""
        return sum(row["hits"] for row in self.values())

    def __repr__(self) -> str:
        lines = [
            f"{row['store']}: {row['objects']} objects, {format_bytes(row['bytes'])}, "
            f"{row['hits']} hits"
            for row in self.values()
        ]
        if self.faults:
            lines.append(f"{self.faults} times as in plain Dask: see the log")
        return "\n".join(lines) or "no store is open"


def usage(client: Client | None = None) -> Any:
    """What the stores of a cluster hold now for tasks and sessions.

    Results that workers have stored are not counted.

    Parameters
    ----------
    client
        Whose cluster. Default: that of the client that the innermost block around this
        call is for, if it names one; otherwise the current client.

    Returns
    -------
    Usage
        Empty if no session was opened on the cluster. For an asynchronous client, a
        coroutine that gives one.

    Raises
    ------
    ValueError
        If there is no client.
    TypeError
        If `client` is none.

    Examples
    --------
    >>> daskps.usage()  # doctest: +SKIP
    shm://: 64 objects, 256.00 MiB, 0 hits
    """
    if client is None:
        here = sessions_here()
        client = (here[-1].client if here else None) or default_client()
    elif not isinstance(client, Client):
        raise TypeError(f"usage() takes a distributed.Client, not {client!r}")
    return client.sync(_usage, client)


async def _usage(client: Client) -> Usage:
    await install_plugin(client)
    reply = await getattr(client.scheduler, USAGE)()
    usage = Usage(reply["stores"])
    usage.faults = sum({**reply["faults"], PROCESS: count()}.values())
    return usage
