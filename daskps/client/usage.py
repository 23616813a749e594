"""What the stores of a cluster hold now, for users who ask."""

from __future__ import annotations

from typing import Any

from distributed import Client, default_client

from daskps.client.inventory import Usage, ask
from daskps.client.session import kept_in, sessions_here


def usage(client: Client | None = None) -> Any:
    """What the stores of a cluster hold now, and how much room they have left.

    Workers are asked what they hold; one that does not answer for two seconds is left out.

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
    shm://: 64 objects, 256.00 MiB, 0 hits; room for 11.42 GiB (the machine's memory);
    64 puts, 256.00 MiB in 51.20 ms; 256.00 MiB kept off the scheduler
    """
    if client is None:
        here = sessions_here()
        client = (here[-1].client if here else None) or default_client()
    elif not isinstance(client, Client):
        raise TypeError(f"usage() takes a distributed.Client, not {client!r}")
    return client.sync(_usage, client)


async def _usage(client: Client) -> Usage:
    usage = await ask(client)
    for name, row in usage.items():
        row["kept"], row["kept_at_most"] = kept_in(client, name)
    return usage
