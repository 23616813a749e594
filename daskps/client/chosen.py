"""The store that daskps chose for a client, or only examined. Runs on the client.

A store that was not asked for never costs an error. If none works, or some host cannot read
from this one, values travel as in plain Dask, and one warning says why. The choice is made
again when it was made without workers, or a worker has come that cannot use the store, as
soon as the client holds nothing in it.

A store that the user named, and that leaves objects where they were made, is examined in the
same way: it may be that some host cannot read from another one. There is no other store to
choose, and if it cannot be opened, that is an error.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Protocol

from daskps.client.choice import Choice, Choices, choose
from daskps.client.events import log_event
from daskps.client.reach import Reach
from daskps.dask_private.connections import connection
from daskps.exceptions import DaskpsError
from daskps.objects.catalog import Catalog
from daskps.safety_net import fell_back
from daskps.settings import Settings
from daskps.stores.remarks import Remark, warn
from daskps.stores.requests import ChoiceRequest, NamedRequest, UrlRequest
from daskps.versions import VersionError

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

# A session that begins so long (seconds) after the last attempt tries again.
CHOOSE_AGAIN_SECONDS = 60.0


class Link(Protocol):
    """What a choice has to do with what a client has opened."""

    #: What can travel by stores that were examined.
    reaches: dict[NamedRequest, Reach]

    async def open_named(self, request: NamedRequest, settings: Settings) -> Catalog:
        """Open a store."""

    def remark(self, request: NamedRequest) -> Remark | None:
        """What a user should know of a store that was opened."""

    def forget(self, request: NamedRequest) -> None:
        """Use a store no longer of which nothing is held."""

    def let_go(self) -> None:
        """Hold nothing for graphs that could follow."""

    def update_results(self) -> None:
        """Ask for references to results again: what can be read has changed."""


class ChosenStore:
    """What was chosen over one connection.

    Not thread-safe: everything but :meth:`reconsider` runs on the client's event loop.

    Parameters
    ----------
    link
        Opens what was chosen.
    request
        What there is to choose from.
    settings
        Those of the session that came first.
    """

    #: The store; None: there is none.
    _choice: Choice | None
    _catalog: Catalog | None
    #: Why no store works.
    _against: str
    #: Whether there were no workers to ask.
    _is_provisional: bool
    #: Whether to choose again as soon as nothing is held.
    _is_stale: bool
    #: When it was chosen (``time.monotonic``).
    _since: float

    def __init__(
        self,
        link: Link,
        request: ChoiceRequest,
        settings: Settings,
    ):
        self._link = link
        self._asked = request
        self._settings = settings
        self._lock = asyncio.Lock()
        self._joined: set[str] = set()
        self._examining: asyncio.Task[None] | None = None
        self._said: set[tuple[str, bool]] = set()
        self._choice = self._catalog = None
        self._against = "it is not open yet"
        self._is_provisional = self._is_stale = True
        self._since = 0.0

    @property
    def catalog(self) -> Catalog | None:
        """Where this client's values go; None: inside graphs."""
        return self._catalog if self.against_arguments is None else None

    @property
    def against_arguments(self) -> str | None:
        """Why values are sent inside graphs; None: they are not."""
        return self._against if self._reach is None else self._reach.against_arguments

    @property
    def without_results(self) -> Catalog | None:
        """The catalog, if results do not come back by way of its store."""
        limited = self._reach is not None and self._reach.against_results is not None
        return self._catalog if limited else None

    @property
    def request(self) -> UrlRequest | None:
        """The store that was chosen."""
        return None if self._choice is None else self._choice.request

    @property
    def _reach(self) -> Reach | None:
        """What can travel by it, as whoever examined it last has found."""
        return None if self.request is None else self._link.reaches.get(self.request)

    @property
    def _by_scheduler(self) -> str | None:
        """Why values are stored on the scheduler's host; None: they are not."""
        return None if self._reach is None else self._reach.by_scheduler

    @property
    def is_made(self) -> bool:
        """Whether it was chosen, not only begun to."""
        return self._since > 0

    @property
    def is_final(self) -> bool:
        """Whether it need not be chosen again now."""
        if not (self._is_provisional or self._is_stale):
            return True
        return self._catalog is not None and bool(self._catalog.held())

    def __str__(self) -> str:
        if self._choice is None:
            return f"none, values are sent inside graphs, since {self._against}"
        return "; ".join([str(self._choice), *self.remarks()])

    def remarks(self) -> list[str]:
        """What a user should know of the store, and of what does not travel by it."""
        remarks = [] if self._remark is None else [self._remark.text]
        if self._by_scheduler is not None:
            remarks.append(f"values go by the scheduler, since {self._by_scheduler}")
        return [*remarks, *self._limits().values()]

    @property
    def _remark(self) -> Remark | None:
        """What a user should know of the store."""
        if self._choice is None:
            return None
        return self._link.remark(self._choice.request) or self._choice.remark

    def _limits(self) -> dict[str, str]:
        """What does not travel by the store, and why."""
        whys = {
            "values are sent inside graphs": self.against_arguments,
            "results come as in plain Dask": self._reach
            and self._reach.against_results,
            "what tasks submit is sent inside graphs": self._reach
            and self._reach.against_tasks,
        }
        return {what: f"{what}, since {why}" for what, why in whys.items() if why}

    def reconsider(self) -> None:
        """Have what did not work tried again once nothing is held, if that is long ago."""
        is_long_ago = time.monotonic() > self._since + CHOOSE_AGAIN_SECONDS
        if is_long_ago and (self._by_scheduler or self._limits()):
            self._is_stale = True

    async def settle(self, client: Client) -> None:
        """Choose, open and examine a store, unless that was done for good.

        Raises
        ------
        ClusterError
            If daskps is missing on the cluster or speaks another protocol there, the
            connection to the scheduler is lost, or a store that was named cannot be opened.
        """
        async with self._lock:
            if self.is_final:
                return
            # Without workers the answer would be the same.
            if self._is_stale or await client.scheduler.ncores(workers=None):
                await self._choose(client)

    def worker_joined(self, client: Client, worker: str) -> None:
        """Find out about a worker that has come, in the background."""
        self._joined.add(worker)
        if self._examining is None or self._examining.done():
            self._examining = asyncio.ensure_future(self._examine_joined(client))

    async def _examine_joined(self, client: Client) -> None:
        over = connection(client)
        try:
            while self._joined:
                async with self._lock:
                    workers, self._joined = list(self._joined), set()
                    if self._reach is not None and self.is_final:
                        fit = await self._reach.examine(client, workers)
                        await self._reach.apply(client)
                        self._is_stale |= not fit
                        if self.against_arguments is not None:
                            # What is kept for graphs that follow is of no more use.
                            self._link.let_go()
                    if self.is_final:
                        self._limits_changed(client)
                    else:
                        await self._choose(client)
        except (DaskpsError, OSError) as e:
            if connection(client) is over and client.status == "running":
                logger.warning("Could not find out what new workers can read: %s", e)

    async def _choose(self, client: Client) -> None:
        before, over = self._choice, connection(client)
        choices = await self._choices(client)
        self._choice = self._catalog = None
        self._against = choices.against
        for choice in choices.stores:
            catalog = None
            try:
                catalog = await self._link.open_named(choice.request, self._settings)
                reach = Reach(catalog.store)
                await reach.examine(client)
                catalog.send_by(await reach.go_by_scheduler(client))
                await reach.apply(client)
            except VersionError:
                raise
            except Exception as e:
                if connection(client) is not over or client.status != "running":
                    raise
                why = str(e).rstrip(".")
                self._against = f"{choice.request.url} cannot be used: {why}"
                if not isinstance(e, (DaskpsError, OSError)):
                    fell_back(e, f"open {choice.request.url}")
                elif self._asked.is_named and catalog is None:
                    raise
                continue
            self._choice, self._catalog = choice, catalog
            self._link.reaches[choice.request] = reach
            break
        if before is not None and before.request != self.request:
            self._link.forget(before.request)
        self._is_provisional, self._is_stale = not choices.workers, False
        self._since = time.monotonic()
        logger.info("Store: %s", self)
        warn(self._remark)
        self._limits_changed(client)

    async def _choices(self, client: Client) -> Choices:
        if not self._asked.is_named:
            return await choose(client, self._asked.candidates)
        workers = await client.scheduler.ncores(workers=None)
        choices = [
            Choice(request, "it was named") for request in self._asked.candidates
        ]
        return Choices(choices, "", len(workers))

    def _limits_changed(self, client: Client) -> None:
        self._link.update_results()
        for what, text in self._limits().items():
            if (what, self._is_provisional) not in self._said:
                self._said.add((what, self._is_provisional))
                log_event(client, "limited", text)
                lead = "" if self._asked.is_named else "No store was named, and "
                said = f"{lead}{text.rstrip('.')}"
                logger.warning(
                    "%s. The answers are the same.", said[0].upper() + said[1:]
                )
