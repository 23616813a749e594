"""Switch daskps on for every client, without touching the program.

Name this module in Dask's configuration::

    distributed:
      client:
        preload: [daskps.preload]

or in the environment: ``DASK_DISTRIBUTED__CLIENT__PRELOAD='["daskps.preload"]'``. Every
``distributed.Client`` that is then created behaves as a :class:`daskps.Client`, with the
settings of Dask's configuration. If the cluster cannot take part, Dask logs why, and the
client works as in plain Dask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daskps.client.session import Session
from daskps.settings import Settings

if TYPE_CHECKING:
    from distributed import Client


async def dask_setup(client: Client) -> None:
    """Called by Dask when a client has connected."""
    if getattr(client, "daskps_session", None) is not None:
        return
    session = Session(Settings.resolve(), client)
    await session.open_async()
    client.daskps_session = session


async def dask_teardown(client: Client) -> None:
    """Called by Dask when a client closes."""
    session = getattr(client, "daskps_session", None)
    if session is not None:
        session.close()
