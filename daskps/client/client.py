"""A client whose graphs carry large values by reference, for its whole life."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from daskps.client.session import Session
from daskps.dask_private.hooks import HookedClient
from daskps.exceptions import ConfigError
from daskps.settings import Settings

#: Options of ``submit`` and ``map`` of ProxyStore's client, and what to write instead.
WHICH_TO_PROXY = {
    "proxy_args": "To send one call's arguments within its graph, submit it by a plain "
    "distributed.Client; to send more of them so, give this client a larger threshold=.",
    "proxy_result": "To have results come as in plain Dask, fetch them within "
    "'with daskps.proxy_graph(results=False):', or give this client results=False.",
}


class Client(HookedClient):
    """A ``distributed.Client`` that behaves as if always in :func:`daskps.proxy_graph`.

    Parameters
    ----------
    *args, **kwargs
        As for ``distributed.Client``.
    store, threshold, results
        As for :func:`daskps.proxy_graph`.
    ps_store, ps_threshold
        Other names for `store` and `threshold`: those that
        ``proxystore_ex.plugins.distributed.Client`` has.

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
        ps_store: Any = None,
        ps_threshold: Any = None,
        **kwargs: Any,
    ):
        store = _one_of("store", store, ps_store)
        threshold = _one_of("threshold", threshold, ps_threshold)
        self.daskps_session = Session(Settings.resolve(store, threshold, results), self)
        super().__init__(*args, **kwargs)

    def submit(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Submit a function, as ``distributed.Client.submit`` does.

        Raises
        ------
        daskps.exceptions.ConfigError
            If ``proxy_args=False`` or ``proxy_result=False`` is given, which ProxyStore's
            client takes, and the function does not.
        """
        return super().submit(func, *args, **_without_proxy_options(func, kwargs))

    def map(self, func: Callable[..., Any], *iterables: Any, **kwargs: Any) -> Any:
        """Map a function, as ``distributed.Client.map`` does.

        Raises
        ------
        daskps.exceptions.ConfigError
            As :meth:`submit`.
        """
        return super().map(func, *iterables, **_without_proxy_options(func, kwargs))

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


def _one_of(name: str, ours: Any, proxystores: Any) -> Any:
    """A setting that has two names."""
    if ours is not None and proxystores is not None:
        raise ConfigError(
            f"daskps.Client({name}=..., ps_{name}=...): these are two names for the same "
            f"setting. Give {name} alone."
        )
    return proxystores if ours is None else ours


def _without_proxy_options(
    func: Callable[..., Any], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The arguments of a call, without what only ProxyStore's client knows."""
    for name in WHICH_TO_PROXY.keys() & kwargs.keys():
        if _takes(func, name):
            continue
        if kwargs[name] is not True:
            raise ConfigError(
                f"{name}={kwargs[name]!r}: daskps goes by size alone, and functions and "
                "callers get real objects, which live for as long as somebody needs "
                f"them. So this can be left out. {WHICH_TO_PROXY[name]}"
            )
        kwargs = {key: value for key, value in kwargs.items() if key != name}
    return kwargs


def _takes(func: Callable[..., Any], name: str) -> bool:
    """Whether a function has such an argument of its own."""
    try:
        parameters = inspect.signature(func).parameters.values()
    except (TypeError, ValueError):  # some written in C do not say
        return False
    return any(p.name == name or p.kind is p.VAR_KEYWORD for p in parameters)
