"""A client whose graphs carry large values by reference, for its whole life."""

from __future__ import annotations

from typing import Any

from daskps.client.session import Session
from daskps.dask_private.hooks import HookedClient
from daskps.settings import Settings


class Client(HookedClient):
    """A ``distributed.Client`` that behaves as if always in :func:`daskps.proxy_graph`.

    Parameters
    ----------
    *args, **kwargs
        As for ``distributed.Client``.
    store, threshold, results
        As for :func:`daskps.proxy_graph`.

    Attributes
    ----------
    daskps_session
        The session; a ``proxy_graph`` block takes precedence over it.

    Raises
    ------
    daskps.exceptions.ConfigError
        If a setting is not valid, before anything is started.
    daskps.exceptions.ClusterError
        If the cluster cannot take part; the client is closed then.
    """

    daskps_session: Session

    def __init__(
        self,
        *args: Any,
        store: Any = None,
        threshold: Any = None,
        results: bool | None = None,
        **kwargs: Any,
    ):
        self.daskps_session = Session(Settings.resolve(store, threshold, results), self)
        super().__init__(*args, **kwargs)

    async def connected(self) -> None:
        """Open the store on the cluster."""
        await self.daskps_session.open_async()

    def closing(self) -> None:
        """Give up what the session keeps."""
        self.daskps_session.close()

    def __repr__(self) -> str:
        return f"<daskps.{super().__repr__()[1:-1]}, {self.daskps_session}>"

    def _repr_html_(self) -> str:
        return f"{super()._repr_html_()}{self.daskps_session._repr_html_()}"
