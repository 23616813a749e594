"""``daskps.proxy_graph``: a session for a block, or for a function. Runs on the client."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from distributed import Client

from daskps.client.decorator import decorated
from daskps.client.session import Session, enter, leave, sessions_here
from daskps.exceptions import ConfigError
from daskps.settings import Settings

if TYPE_CHECKING:
    from proxystore.connectors.protocols import Connector
    from proxystore.store import Store

    F = TypeVar("F", bound=Callable[..., Any])


class Block:
    """A ``with`` or ``async with`` block, or a decorator: see :func:`proxy_graph`.

    Parameters
    ----------
    arguments
        What :meth:`daskps.config.Settings.resolve` takes.
    client
        The only client that it is for; None: for all.
    """

    def __init__(self, arguments: dict[str, Any], client: Client | None):
        self._arguments = arguments
        self._client = client
        self._entered: list[Session] = []
        Settings.resolve(**arguments)  # a bad argument fails here

    def session(self) -> Session:
        """A new session, not open yet."""
        return Session(Settings.resolve(**self._arguments), self._client)

    def __enter__(self) -> Session:
        session = self.session()
        session.open()
        return self._enter(session)

    async def __aenter__(self) -> Session:
        session = self.session()
        await session.open_async()
        return self._enter(session)

    def _enter(self, session: Session) -> Session:
        enter(session)
        self._entered.append(session)
        return session

    def __exit__(self, *exc: object) -> None:
        # Other threads and tasks may have entered this very instance.
        mine = (s for s in reversed(sessions_here()) if s in self._entered)
        session = next(mine, None) or self._entered[-1]
        self._entered.remove(session)
        leave(session)

    async def __aexit__(self, *exc: object) -> None:
        self.__exit__(*exc)

    def __call__(self, function: F) -> F:
        ours: F = decorated(function, lambda: Block(self._arguments, self._client))
        return ours


@overload
def proxy_graph(function: F, /) -> F: ...


@overload
def proxy_graph(
    store: str | Store[Any] | Connector[Any] | None = None,
    *,
    threshold: Any = None,
    results: bool | None = None,
    client: Client | None = None,
) -> Block: ...


def proxy_graph(
    store: Any = None,
    *,
    threshold: Any = None,
    results: bool | None = None,
    client: Client | None = None,
) -> Any:
    """Let the large values of Dask graphs travel by reference, for a block.

    Whatever is submitted in the block (``compute``, ``persist``, ``submit``, ``map``, ...)
    is searched for large values. Each is put into a store once, and a small node with its
    key takes its place in the graph. Workers read it from the store when a task runs; the
    scheduler never sees it. Results, keys and annotations are what they are without.

    Can also be used with ``async with``, and as a decorator, with or without parentheses,
    of functions, coroutine functions, and generator functions of both kinds: each call has
    a block of its own. That of a generator is switched on while the generator's own code
    runs, and off for whoever takes its values; it ends with the generator. Blocks nest;
    the innermost one counts.

    Parameters
    ----------
    store
        Where values are kept: a URL such as ``"shm://"`` or ``"file:///directory"``, a
        ProxyStore ``Store``, or a ``Connector``. Default: ``daskps.store`` in Dask's
        configuration; if that is null, daskps chooses one that
        suits the cluster, and the session says which and why. A function that stands here
        alone is decorated.
    threshold
        Values of at least this size leave the graph: bytes, or a string such as
        ``"1 MiB"``. Default: ``daskps.threshold``.
    results
        Whether large results come back through the store. Default: ``daskps.results``.
    client
        Only for graphs of this client. Default: for every client used in the block.

    Yields
    ------
    Session
        Shows its settings.

    Raises
    ------
    daskps.exceptions.ConfigError
        If a setting is not valid.
    daskps.exceptions.ClusterError
        If daskps is missing on the scheduler or a worker, speaks another protocol there, or
        a store that was named cannot be used by all of them.
    TypeError
        If a class is decorated, or something that cannot be called.

    Notes
    -----
    Thread-safe. The block is local to the thread or asyncio task that entered it.

    With a local scheduler (threads, or none) values do not travel, and daskps does
    nothing, unless a store is given here or in the configuration.

    Examples
    --------
    >>> with daskps.proxy_graph():  # doctest: +SKIP
    ...     da.from_array(big_array).sum().compute()
    """
    settings = {"threshold": threshold, "results": results}
    if inspect.isroutine(store):
        given = {**settings, "client": client}
        _check_alone(store, [name for name, x in given.items() if x is not None])
        return Block(settings, None)(store)
    if client is not None and not isinstance(client, Client):
        raise ConfigError(
            f"client={client!r} is not a client: give a distributed.Client that is "
            "connected, or None for every client used in the block"
        )
    return Block({"store": store, **settings}, client)


def _check_alone(function: Callable[..., Any], settings: list[str]) -> None:
    if settings:
        name = getattr(function, "__qualname__", repr(function))
        example = ", ".join(f"{setting}=..." for setting in settings)
        raise ConfigError(
            f"store={name} is a function, not a store: give a URL, a ProxyStore Store or "
            f"Connector; or, to decorate the function, write @daskps.proxy_graph({example})"
        )
