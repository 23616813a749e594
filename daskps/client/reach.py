"""Which hosts of a cluster can read from which, found by trying. Runs on the client.

Where a store leaves objects where they were made, as ``peer://`` does, readers connect to
the host that has them:

- workers to the client's host, for the arguments of tasks;
- the client to the workers' hosts, for results;
- the workers' hosts to each other, for what tasks submit;
- and each host that stores something to the registry, which has it deleted.

Each of the first three can be done without, since values can travel as in plain Dask.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Container
from typing import TYPE_CHECKING, Any, NamedTuple

from distributed.utils import offload

from daskps.client.uplink import Uplink
from daskps.dask_private.connections import is_asynchronous
from daskps.messages import SERVE
from daskps.stores.interfaces import Address, pair
from daskps.stores.reach import failures
from daskps.worker.reach import keep_inline, take_part, try_from_scheduler, try_hosts

if TYPE_CHECKING:
    from distributed import Client

    from daskps.stores.store import Store

logger = logging.getLogger(__name__)


class Reach:
    """What can travel by one store.

    Parameters
    ----------
    store
        Open on this client, the scheduler and all workers.

    Attributes
    ----------
    address
        Where the client's objects can be read; None: somewhere else, or nowhere.
    by_scheduler
        Why objects of this client are stored on the scheduler's host; None: on its own.
    against_arguments, against_results, against_tasks
        Why what this client submits, what it fetches, and what tasks submit, cannot
        travel by this store; None: it can.
    """

    address: Address | None
    against_arguments: str | None
    against_results: str | None
    against_tasks: str | None
    by_scheduler: str | None

    def __init__(self, store: Store):
        self._store = store
        self._connector = store.connector.serving()
        #: Workers' hosts, by where what they store can be read.
        self._hosts: dict[Address, _Host] = {}
        self.address = None
        self.against_arguments = self.against_results = self.against_tasks = None
        self.by_scheduler = None
        #: Whether some worker does not use the store at all.
        self._refused = False

    async def examine(self, client: Client, workers: list[str] | None = None) -> bool:
        """Find out about workers that there are now, or about these, which have come.

        Takes about two seconds if a host does not answer.

        Returns
        -------
        bool
            Whether all of them have opened the store.
        """
        answers = await client.run(
            take_part, self._store.name, workers=workers, on_error="return"
        )
        self._forget_all_but(await client.scheduler.ncores(workers=None))
        known = list(self._hosts)
        taken = [self._take(worker, answer) for worker, answer in answers.items()]
        if self._connector is not None:
            if self.address is None:
                await self._serve()
            new = [address for address in self._hosts if address not in known]
            # At once: who does not answer costs time.
            await asyncio.gather(
                self._try_from_here(new),
                self._try_from_workers(client, new, [*new, *known]),
                self._try_from_workers(client, known, new),
                self._try_from_scheduler(client),
            )
        self._refused |= not all(taken)
        return all(taken)

    def _take(self, worker: str, answer: Any) -> bool:
        if isinstance(answer, OSError):
            return True  # the worker was lost meanwhile
        if isinstance(answer, Exception):
            answer = {"refusal": f"Worker {worker} cannot take part: {answer}"}
        if answer["refusal"] is not None:
            self._no_arguments(answer["refusal"])
            return False
        if answer["address"] is not None:
            address = pair(answer["address"])
            host = self._hosts.setdefault(address, _Host(answer["host"], []))
            host.workers.append(worker)
        return True

    def _forget_all_but(self, workers: Container[str]) -> None:
        for address, host in list(self._hosts.items()):
            host.workers[:] = [worker for worker in host.workers if worker in workers]
            if not host.workers:
                del self._hosts[address]

    async def _serve(self) -> None:
        assert self._connector is not None
        try:
            self.address = await offload(self._connector.serves_at)
        except OSError as e:
            self._no_arguments(f"nothing can be stored on this client's host: {e}")

    async def _try_from_here(self, addresses: list[Address]) -> None:
        connector = self._connector
        assert connector is not None
        # It can read what its own host has stored.
        others = [address for address in addresses if address != self.address]
        wanted = [*connector.registries(), *others]
        for address, why in (await offload(failures, connector, wanted)).items():
            if address in self._hosts:
                there = f"{self._hosts[address].name} ({address[0]})"
                self._no_results(
                    f"this client, on {socket.gethostname()}, cannot connect to port "
                    f"{address[1]} of the workers' host {there}: {why}"
                )
            # Its own host then stores nothing.
            elif self.by_scheduler is None:
                self._no_arguments(
                    f"this client, on {socket.gethostname()}, cannot connect to port "
                    f"{address[1]} of the scheduler's host, {address[0]}: {why}"
                )

    async def _try_from_workers(
        self,
        client: Client,
        hosts: list[Address],
        targets: list[Address],
    ) -> None:
        """Have one worker of each of these hosts connect to us, and to these."""
        if not hosts or not targets:
            return
        mine = self.address or targets[0]
        names = {
            self._hosts[address].workers[-1]: self._hosts[address].name
            for address in hosts
        }
        answers = await client.run(
            *(try_hosts, self._store.name, [mine, *targets]),
            workers=list(names),
            on_error="return",
        )
        for worker, failed in answers.items():
            # Others were lost meanwhile.
            if not isinstance(failed, Exception):
                for address, why in failed:
                    self._worker_failed(names[worker], pair(address), why)

    def _worker_failed(self, host: str, address: Address, why: str) -> None:
        name, port = address
        if address == self.address:
            self._no_arguments(
                f"the workers' host {host} cannot connect to this client's, "
                f"{socket.gethostname()} ({name}, port {port}): {why}"
            )
        elif address in self._hosts:
            there = self._hosts[address].name
            self._no_tasks(
                f"the workers' host {host} cannot connect to the host {there} ({name}, "
                f"port {port}): {why}"
            )
        else:
            reason = (
                f"the workers' host {host} cannot connect to the scheduler's host "
                f"({name}, port {port}): {why}"
            )
            self._no_results(reason)
            self._no_tasks(reason)

    async def _try_from_scheduler(self, client: Client) -> None:
        """Without workers: they will be near the scheduler, if not on its host."""
        if self._hosts or self.address is None:
            return
        failed = await client.run_on_scheduler(
            try_from_scheduler, self._store.name, self.address
        )
        for address, why in failed:
            self._no_arguments(
                "there is no worker yet, and the scheduler's host cannot connect to this "
                f"client's, {socket.gethostname()} ({address[0]}, port {address[1]}): {why}"
            )

    async def go_by_scheduler(self, client: Client) -> Uplink | None:
        """Have this client's objects stored on the scheduler's host, if it cannot be else.

        Returns
        -------
        Uplink
            What stores them there; None: they need not, or cannot, go by the scheduler.
        """
        why, address = self.against_arguments, self.address
        if why is None or self._connector is None or self._refused:
            return None
        if is_asynchronous(client):
            return None  # what submits runs on its event loop, and cannot wait
        uplink = Uplink(client, self._store.name)
        try:
            self.address = await uplink.address()
        except Exception as e:
            logger.info("Nothing can be stored on the scheduler's host: %s", e)
            return None
        self.against_arguments = None
        hosts = list(self._hosts)
        await self._try_from_workers(client, hosts, [self.address])
        if self.against_arguments is not None:
            logger.info("Nor from the scheduler's host: %s", self.against_arguments)
            self.against_arguments, self.address = why, address
            return None
        self.by_scheduler = why
        return uplink

    async def apply(self, client: Client) -> None:
        """Tell the cluster what is not to be done.

        Workers that come later are then open for tasks once they can read from here.
        """
        serves = self.address if self.against_arguments is None else None
        await getattr(client.scheduler, SERVE)(
            store=self._store.name,
            client=client.id,
            address=serves,
            tasks=self.against_tasks is None,
        )
        if self.against_tasks is not None:
            await client.run(keep_inline, self._store.name, on_error="ignore")

    def _no_arguments(self, why: str) -> None:
        self.against_arguments = self.against_arguments or why

    def _no_results(self, why: str) -> None:
        self.against_results = self.against_results or why

    def _no_tasks(self, why: str) -> None:
        self.against_tasks = self.against_tasks or why


class _Host(NamedTuple):
    """A host, and the workers on it."""

    name: str
    workers: list[str]
