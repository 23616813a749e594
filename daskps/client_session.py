"""Sessions: what is switched on, where, and with which settings. Runs on the client."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import inspect
import logging
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from dask.utils import format_bytes
from distributed import default_client

from daskps.client_catalog import Cache, Catalog
from daskps.client_link import ClusterLink, open_now
from daskps.client_values import Encoder
from daskps.config import Settings
from daskps.stores.urls import StoreRequest, describe

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

#: Sessions of the blocks around the running code, the innermost last. A context variable,
#: so that threads and asyncio tasks have their own.
_active: contextvars.ContextVar[tuple[Session, ...]] = contextvars.ContextVar(
    "daskps_sessions", default=()
)


class Session:
    """Large values of graphs submitted meanwhile travel by reference.

    Made by :func:`proxy_graph`, which describes the parameters.

    Attributes
    ----------
    settings
        What was asked for.
    request
        The store, as the scheduler is asked for it.
    cache
        Keeps what was stored for the graphs that follow.
    """

    settings: Settings
    request: StoreRequest
    cache: Cache
    _client: Client | None
    _opened: weakref.WeakSet[Client]
    _reading: weakref.WeakSet[Client]

    def __init__(
        self,
        settings: Settings,
        client: Client | None = None,
        request: StoreRequest | None = None,
    ):
        self.settings = settings
        self.request = request or StoreRequest.of(settings.store)
        self.cache = Cache(settings.cache_size)
        self._client = client
        self._opened = weakref.WeakSet()
        self._reading = weakref.WeakSet()

    def covers(self, client: Client) -> bool:
        """Whether graphs of this client are in the session."""
        return self._client is None or self._client is client

    @property
    def forced(self) -> bool:
        """Whether values are to be stored for local schedulers too."""
        return self.settings.store is not None

    def open(self) -> None:
        """Open the store now, if there is a client, so that errors come early."""
        client = self._client or _default_client()
        if client is not None and client.status in ("running", "connecting"):
            self.catalog(client)

    async def open_async(self) -> None:
        """Open the store now, if there is a client."""
        client = self._client or _default_client()
        if client is not None and client.status in ("running", "connecting"):
            await ClusterLink.of(client).open(self.request, self.settings)
            self._opened.add(client)
            self._read_references(client)

    def catalog(self, client: Client) -> Catalog | None:
        """The catalog of the session's store for a client, opened if need be.

        None if that cannot be waited for: see :func:`daskps.client_link.open_now`.
        """
        catalog = open_now(client, self.request, self.settings)
        if catalog is not None:
            self._opened.add(client)
            self._read_references(client)
        return catalog

    def encoder(
        self, catalog: Catalog, threshold: int | None = None, pack: bool = False
    ) -> Encoder:
        """What stores the values of one graph, and keeps them for later ones.

        Parameters
        ----------
        catalog
            Where to.
        threshold
            Bytes; None: the session's.
        pack
            Whether smaller values are to be packed together.
        """
        self.cache.limit = catalog.may_keep(self.settings.cache_size)
        inline = self.settings.on_store_error == "inline"
        at_least = self.settings.threshold if threshold is None else threshold
        return Encoder(catalog, self.cache, at_least, pack, inline)

    def covers_results(self, client: Client) -> bool:
        """Whether results come back to this client in the way that the session wants."""
        return self.settings.results is False or client in self._reading

    def client_closed(self) -> None:
        """Hold nothing any more for graphs that could follow from a client."""
        self.cache.clear()

    def close(self) -> None:
        """Hold nothing any more for graphs that could follow."""
        self.cache.clear()
        for client in list(self._reading):
            ClusterLink.of(client).stop_reading(self)
        self._reading.clear()

    def _read_references(self, client: Client) -> None:
        if not self.covers_results(client):
            self._reading.add(client)
            ClusterLink.of(client).read_references(self)

    @property
    def _store(self) -> str:
        """Which store it is, for people, and why, if daskps chose it."""
        if self.settings.store is not None:
            return describe(self.settings.store)
        for client in self._opened:
            choice = ClusterLink.of(client).choice(self.request)
            if choice is not None:
                return f"chosen by daskps: {choice}"
        return "chosen by daskps when a client uses it"

    def __str__(self) -> str:
        threshold = format_bytes(self.settings.threshold)
        return f"store: {self._store}, threshold: {threshold}"

    def __repr__(self) -> str:
        return f"<daskps session, {self}>"

    def _repr_html_(self) -> str:
        from html import escape

        rows = {
            "Store": self._store,
            "Threshold": format_bytes(self.settings.threshold),
            "Kept for later graphs": f"{len(self.cache)} objects, at most "
            f"{format_bytes(self.settings.cache_size)}",
        }
        cells = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th>"
            f"<td style='text-align:left'>{escape(value)}</td></tr>"
            for name, value in rows.items()
        )
        return f"<table><caption>daskps session</caption>{cells}</table>"


class proxy_graph:  # noqa: N801 - used like a function, as contextlib.suppress is
    """Let the large values of Dask graphs travel by reference, for a block.

    Whatever is submitted in the block (``compute``, ``persist``, ``submit``, ``map``, ...)
    is searched for large values. Each is put into a store once, and a small node with its
    key takes its place in the graph. Workers read it from the store when a task runs; the
    scheduler never sees it. Results, keys and annotations are what they are without.

    Can also be used as a decorator, of functions and of coroutine functions, and with
    ``async with``. Blocks nest; the innermost one counts.

    Parameters
    ----------
    store
        Where values are kept: a URL such as ``"shm://"`` or ``"file:///directory"``, a
        ProxyStore ``Store``, or a ``Connector``. Default: ``daskps.store`` in Dask's
        configuration; if that is null, daskps chooses one that
        suits the cluster, and the session says which and why.
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
        If daskps is missing on the scheduler or a worker, has another version there, or
        the store cannot be used by all of them.

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

    def __init__(
        self,
        store: Any = None,
        *,
        threshold: Any = None,
        results: bool | None = None,
        client: Client | None = None,
    ):
        self._arguments = {
            "store": store,
            "threshold": threshold,
            "results": results,
        }
        self._client = client
        self._entered: list[Session] = []
        Settings.resolve(**self._arguments)  # a bad argument fails here

    def __enter__(self) -> Session:
        session = Session(Settings.resolve(**self._arguments), self._client)
        session.open()
        return self._enter(session)

    async def __aenter__(self) -> Session:
        session = Session(Settings.resolve(**self._arguments), self._client)
        await session.open_async()
        return self._enter(session)

    def _enter(self, session: Session) -> Session:
        _active.set((*_active.get(), session))
        self._entered.append(session)
        return session

    def __exit__(self, *exc: object) -> None:
        active = _active.get()
        # Other threads and tasks may have entered this very instance.
        mine = (s for s in reversed(active) if s in self._entered)
        session = next(mine, None) or self._entered[-1]
        self._entered.remove(session)
        _active.set(tuple(s for s in active if s is not session))
        session.close()

    async def __aexit__(self, *exc: object) -> None:
        self.__exit__(*exc)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def coroutine(*args: Any, **kwargs: Any) -> Any:
                async with proxy_graph(client=self._client, **self._arguments):
                    return await function(*args, **kwargs)

            return coroutine

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with proxy_graph(client=self._client, **self._arguments):
                return function(*args, **kwargs)

        return wrapper


@contextlib.contextmanager
def activated(session: Session) -> Iterator[None]:
    """Switch a session on for a block, without opening or closing it."""
    token = _active.set((*_active.get(), session))
    try:
        yield
    finally:
        _active.reset(token)


def current_session(client: Client | None) -> Session | None:
    """The session that graphs belong to which this client submits now.

    A block comes before a :class:`daskps.Client`'s own session.

    Parameters
    ----------
    client
        None for a local scheduler.
    """
    for session in reversed(_active.get()):
        if client is None or session.covers(client):
            return session
    return getattr(client, "daskps_session", None)


def _default_client() -> Client | None:
    try:
        return default_client()
    except ValueError:
        return None
