"""Sessions: what is switched on, where, and with which settings. Runs on the client."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dask.utils import format_bytes
from distributed import default_client

from daskps.client.inventory import (
    ask,
    done_in_rows,
    done_in_words,
    held_here_in_words,
    in_rows,
)
from daskps.client.link import ClusterLink, open_now
from daskps.client.shown import table
from daskps.exceptions import DaskpsError
from daskps.linux import is_linux, system
from daskps.objects.cache import Cache
from daskps.objects.catalog import Catalog
from daskps.objects.encoder import Encoder
from daskps.settings import Settings
from daskps.stores.requests import ChoiceRequest, StoreRequest, request_of_session
from daskps.stores.traffic import Counts, total
from daskps.stores.urls import describe

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

# For how long (seconds) a notebook waits for what the cluster has to say of a session.
ANSWER_SECONDS = 3.0

#: Sessions of the blocks around the running code, the innermost last. A context variable,
#: so that threads and asyncio tasks have their own.
_active: contextvars.ContextVar[tuple[Session, ...]] = contextvars.ContextVar(
    "daskps_sessions", default=()
)


#: All that exist.
_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


class Session:
    """Large values of graphs submitted meanwhile travel by reference.

    Made by :func:`daskps.proxy_graph`, which describes the parameters.

    Attributes
    ----------
    settings
        What was asked for.
    request
        The store, as the scheduler is asked for it.
    cache
        Keeps what was stored for the graphs that follow.
    is_off
        Whether values travel as in plain Dask, since this is not Linux.
    """

    is_off: bool
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
        self.is_off = not is_linux()
        if self.is_off:
            request = ChoiceRequest(())
            _say_off_once()
        self.request = request or request_of_session(settings.store)
        self.cache = Cache(settings.cache_size)
        self._client = client
        self._opened = weakref.WeakSet()
        self._reading = weakref.WeakSet()
        _sessions.add(self)

    def covers(self, client: Client | None) -> bool:
        """Whether graphs of this client, or of a local scheduler, are in the session."""
        in_session = client is None or self._client in (None, client)
        return in_session and not self.is_off

    @property
    def client(self) -> Client | None:
        """The only client that it is for; None: for all."""
        return self._client

    @property
    def forced(self) -> bool:
        """Whether values are to be stored for local schedulers too."""
        return self.settings.store is not None and not self.is_off

    def open(self) -> None:
        """Open the store now, if there is a client, so that errors come early."""
        client = self._usable_client()
        if client is not None:
            self._reconsider(client)
            self.catalog(client)

    async def open_async(self) -> None:
        """Open the store now, if there is a client."""
        client = self._usable_client()
        if client is not None:
            self._reconsider(client)
            await ClusterLink.of(client).open(self.request, self.settings)
            self._was_opened(client)

    def _usable_client(self) -> Client | None:
        client = None if self.is_off else self._client or _default_client()
        if client is not None and client.status in ("running", "connecting"):
            return client
        return None

    def catalog(self, client: Client) -> Catalog | None:
        """The catalog of the session's store for a client, opened if need be.

        None if values go inside the graph: the session is off, or see
        :func:`daskps.client.link.open_now`.
        """
        if self.is_off:
            return None
        catalog = open_now(client, self.request, self.settings)
        if ClusterLink.of(client).has(self.request):
            self._was_opened(client)
        return catalog

    def sends_inline(self, client: Client) -> bool:
        """Whether values go inside graphs, since no store that was chosen works."""
        chosen = ClusterLink.of(client).choice(self.request)
        return chosen is not None and chosen.catalog is None

    def _reconsider(self, client: Client) -> None:
        """What did not work for the last session may work for this one."""
        chosen = ClusterLink.of(client).choice(self.request)
        if chosen is not None:
            chosen.reconsider()

    @property
    def threshold(self) -> int:
        """Bytes from which on a value is large."""
        return self.settings.threshold

    @property
    def inline_on_error(self) -> bool:
        """Whether what cannot be stored is sent as in plain Dask."""
        return self.settings.on_store_error == "inline"

    def is_current(self, client: Client) -> bool:
        """Whether what the running code sends by a client belongs to this session."""
        return current_session(client) is self

    def open_catalog(self, client: Client) -> Catalog | None:
        """The catalog of the session's store for a client, if it is open."""
        return ClusterLink.of(client).catalog(self.request)

    def _was_opened(self, client: Client) -> None:
        if client not in self._opened:
            self._opened.add(client)
            ClusterLink.of(client).sending.start(self)
        self._read_references(client)

    def encoder(
        self,
        catalog: Catalog,
        threshold: int | None = None,
        pack_from: int | None = None,
    ) -> Encoder:
        """What stores the values of one graph, and keeps them for later ones.

        Parameters
        ----------
        catalog
            Where to.
        threshold
            Bytes; None: the session's.
        pack_from
            Bytes from which on smaller values are packed together; None: they are not.
        """
        self.cache.in_memory = catalog.maps_its_own
        self.cache.limit = catalog.may_keep(
            self.settings.cache_size, self.cache.spare_nbytes()
        )
        at_least = self.settings.threshold if threshold is None else threshold
        return Encoder(catalog, self.cache, at_least, pack_from, self.inline_on_error)

    def covers_results(self, client: Client) -> bool:
        """Whether results come back to this client in the way that the session wants."""
        return self.settings.results is False or client in self._reading

    def keeps(self, client: Client, store: str) -> bool:
        """Whether it keeps objects of this client in a store, given its name."""
        if client not in self._opened:
            return False
        catalog = ClusterLink.of(client).catalog(self.request)
        return catalog is not None and catalog.name == store

    def client_closed(self) -> None:
        """Hold nothing any more for graphs that could follow from a client."""
        self.cache.clear()

    def close(self) -> None:
        """Hold nothing any more for graphs that could follow."""
        self.cache.clear()
        self.cache.limit = 0
        for client in list(self._reading):
            ClusterLink.of(client).fetching.stop(self)
        self._reading.clear()
        for client in list(self._opened):
            link = ClusterLink.of(client)
            link.sending.stop(self)
            catalog = link.catalog(self.request)
            if catalog is not None:
                catalog.rest()

    def _read_references(self, client: Client) -> None:
        if not self.covers_results(client):
            self._reading.add(client)
            ClusterLink.of(client).fetching.start(self)

    @property
    def _store(self) -> str:
        """Which store it is, for people, and why, if daskps chose it."""
        if self.is_off:
            return f"none, since this is {system()}, and daskps's stores need Linux"
        if self.settings.store is not None:
            return "; ".join([describe(self.settings.store), *self._remarks()])
        for client in self._opened:
            choice = ClusterLink.of(client).choice(self.request)
            if choice is not None:
                return f"chosen by daskps: {choice}"
        return "chosen by daskps when a client uses it"

    def _remarks(self) -> list[str]:
        """What a user should know of the store that was named."""
        found: dict[str, None] = {}
        for link in map(ClusterLink.of, self._opened):
            remark, choice = link.remark(self.request), link.choice(self.request)
            found |= {} if remark is None else {remark.text: None}
            found |= {} if choice is None else dict.fromkeys(choice.remarks())
        return list(found)

    def _catalogs(self) -> set[Catalog]:
        links = [ClusterLink.of(client) for client in self._opened]
        return {c for link in links if (c := link.catalog(self.request)) is not None}

    def _done(self) -> Counts:
        """What this process has done with the session's stores since they were opened."""
        return total(catalog.store.traffic.counts for catalog in self._catalogs())

    def __str__(self) -> str:
        threshold = format_bytes(self.settings.threshold)
        parts = [f"store: {self._store}, threshold: {threshold}"]
        if len(self.cache):
            kept = format_bytes(self.cache.spare_nbytes())
            parts.append(f"{len(self.cache)} objects kept, {kept}")
        parts += held_here_in_words({catalog.name for catalog in self._catalogs()})
        return "; ".join([*parts, *done_in_words(self._done())])

    def __repr__(self) -> str:
        return f"<daskps session, {self}>"

    def _repr_html_(self) -> str:
        kept = f"{len(self.cache)} objects, {format_bytes(self.cache.spare_nbytes())}"
        rows = {
            "Store": self._store,
            "Threshold": format_bytes(self.settings.threshold),
            "Kept for later graphs": f"{kept} of at most "
            f"{format_bytes(self.settings.cache_size)}",
        }
        whole, remarks = self._usage_for_people(), []
        if whole is None:
            rows |= done_in_rows(self._done())
            remarks = ["As this process knows it. daskps.usage() asks the cluster."]
        else:
            rows |= in_rows(whole)
        return table("daskps session", {"": rows}, remarks)

    def _usage_for_people(self) -> dict[str, Any] | None:
        """What the cluster says of the session's store, if it says so at once."""
        for client in self._opened:
            catalog = ClusterLink.of(client).catalog(self.request)
            if catalog is None or client.asynchronous or client.status != "running":
                continue
            try:
                usage = client.sync(ask, client, callback_timeout=ANSWER_SECONDS)
            except (OSError, TimeoutError, DaskpsError):
                return None  # a cell that shows something does not fail
            return dict(usage).get(catalog.name)
        return None


def enter(session: Session) -> None:
    """Switch an open session on for what follows in this thread or asyncio task."""
    _active.set((*_active.get(), session))


def leave(session: Session) -> None:
    """Switch it off, and close it."""
    _active.set(tuple(s for s in _active.get() if s is not session))
    session.close()


def sessions_here() -> tuple[Session, ...]:
    """Sessions of the blocks around the running code, the innermost last."""
    return _active.get()


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
        if session.covers(client):
            return session
    own: Session | None = getattr(client, "daskps_session", None)
    return own if own is not None and own.covers(client) else None


def kept_in(client: Client, store: str) -> tuple[int, int]:
    """What all sessions of this process keep in a store for graphs that could follow.

    Returns
    -------
    tuple of int
        Bytes, and how many they may be at most.
    """
    caches = [
        session.cache for session in list(_sessions) if session.keeps(client, store)
    ]
    return sum(c.spare_nbytes() for c in caches), sum(c.limit for c in caches)


_said_off = False


def _say_off_once() -> None:
    global _said_off
    if not _said_off:
        _said_off = True
        logger.warning(
            "daskps is off: its stores need Linux, and this process runs on %s. Values "
            "travel as in plain Dask.",
            system(),
        )


def _default_client() -> Client | None:
    try:
        return default_client()
    except ValueError:
        return None
