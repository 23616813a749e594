"""What a client sends to its cluster besides graphs, by reference. Runs on the client.

Data sets that are published, and arguments of ``Client.run`` and of actors' methods, are in
messages that the scheduler keeps or passes on. Within a session their large parts are put
into the store, and stay there until the message was answered; what is published, for as
long as it is. Who cannot read the store is sent the message as in plain Dask.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from distributed.protocol.serialize import Serialize

from daskps.dask_private.connections import ask_with, pickle_protocol
from daskps.exceptions import StoreError
from daskps.messages import CALL, RUN, UNREAD
from daskps.objects.catalog import Catalog, StoredObject
from daskps.objects.encoder import REST_NBYTES_AT_LEAST, Encoder
from daskps.objects.sizes import is_small, nbytes_of
from daskps.references.nodes import StoredBytes
from daskps.references.published import Published
from daskps.safety_net import fell_back
from daskps.serialize.frames import frame_nbytes
from daskps.serialize.sent import serialize_as_sent, to_sent
from daskps.serialize.values import serialize

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

#: Sends a message as Dask does.
Plain: TypeAlias = Callable[..., Any]


class Sender(Protocol):
    """A session whose large values are to be stored."""

    @property
    def threshold(self) -> int:
        """Bytes from which on a value is large."""

    def is_current(self, client: Client) -> bool:
        """Whether what the running code sends belongs to the session."""

    def open_catalog(self, client: Client) -> Catalog | None:
        """Where to store; None: nowhere, at the moment."""

    def encoder(self, catalog: Catalog) -> Encoder:
        """What stores."""


class Sending:
    """Has messages of one client refer to what is large in them.

    Parameters
    ----------
    client
        The client, which is not kept alive.
    """

    def __init__(self, client: Client):
        self._client = weakref.ref(client)
        self._senders: weakref.WeakSet[Sender] = weakref.WeakSet()

    def start(self, sender: Sender) -> None:
        """Store what is large, until the sender is collected, or given to :meth:`stop`."""
        self._senders.add(sender)
        self.update()

    def stop(self, sender: Sender) -> None:
        """Send as in plain Dask, unless others want otherwise."""
        self._senders.discard(sender)
        self.update()

    def update(self) -> None:
        """Look at the client's messages, if somebody wants that."""
        client = self._client()
        if client is None or client.scheduler is None:
            return
        ours = {"broadcast": self._broadcast, "publish_put": self._publish}
        for name, send in ours.items():
            ask_with(client, name, send if self._senders else None)

    def _open(self) -> tuple[Client, Sender, Catalog] | None:
        client = self._client()
        if client is None:
            return None
        sender = next((s for s in self._senders if s.is_current(client)), None)
        catalog = None if sender is None else sender.open_catalog(client)
        if sender is None or catalog is None:
            return None
        return client, sender, catalog

    # Client.run

    async def _broadcast(self, plain: Plain, **message: Any) -> Any:
        msg = message.get("msg", {})
        opened = (
            None if message.get("nanny") or msg.get("op") != "run" else self._open()
        )
        if opened is None:
            return await plain(**message)
        _, sender, catalog = opened
        parts = tuple(msg[name] for name in ("function", "args", "kwargs"))
        if sum(map(len, parts)) < sender.threshold:
            return await plain(**message)
        encoder = sender.encoder(catalog)
        reference = await asyncio.to_thread(_reference, encoder, parts)
        if reference is None:
            return await plain(**message)
        by_reference = {"op": RUN, "reference": reference, "wait": msg["wait"]}
        try:
            replies = await plain(**{**message, "msg": by_reference})
        finally:
            encoder.abandon()
        again = [worker for worker, reply in replies.items() if _is_unread(reply)]
        if again:
            replies |= await plain(**{**message, "workers": again})
        return replies

    # Actors

    async def call(self, plain: Plain, worker: str, msg: dict[str, Any]) -> Any:
        """Call an actor's method, its large arguments by reference.

        Parameters
        ----------
        plain
            Sends a message to a worker.
        worker
            Its address.
        msg
            As Dask would send it.
        """
        opened = None if msg.get("op") != "actor_execute" else self._open()
        if opened is None:
            return await plain(worker=worker, msg=msg)
        client, sender, catalog = opened
        arguments = {**dict(enumerate(msg["args"])), **msg["kwargs"]}
        values = {place: getattr(arg, "data", None) for place, arg in arguments.items()}
        if all(is_small(value, sender.threshold) for value in values.values()):
            return await plain(worker=worker, msg=msg)
        encoder = sender.encoder(catalog)
        encoder.serialize = partial(serialize_as_sent, protocol=pickle_protocol(client))
        references = await asyncio.to_thread(_references, encoder, values)
        if references:
            by_reference = {
                **msg,
                "op": CALL,
                "references": references,
                "args": [
                    None if place in references else arg
                    for place, arg in enumerate(msg["args"])
                ],
                "kwargs": {
                    name: None if name in references else arg
                    for name, arg in msg["kwargs"].items()
                },
            }
            try:
                reply = await plain(worker=worker, msg=by_reference)
            finally:
                encoder.abandon()
            if not _is_unread(reply):
                return reply
        return await plain(worker=worker, msg=msg)

    # Published data sets

    async def _publish(self, plain: Plain, **message: Any) -> Any:
        opened = self._open()
        if opened is None:
            return await plain(**message)
        client, sender, catalog = opened
        several = isinstance(message["data"], (list, tuple))
        data = message["data"] if several else [message["data"]]
        held: list[StoredObject] = []
        protocol = pickle_protocol(client)
        new = [
            await asyncio.to_thread(_published, sender, catalog, one, protocol, held)
            for one in data
        ]
        catalog.hold(held)
        try:
            return await plain(**{**message, "data": new if several else new[0]})
        finally:
            held.clear()  # an error keeps this frame for as long as somebody looks at it


def _is_unread(reply: Any) -> bool:
    """Whether a worker does not know the operation, or cannot read what was stored."""
    return reply is None or (isinstance(reply, dict) and reply.get("status") == UNREAD)


def _reference(encoder: Encoder, value: Any) -> bytes | None:
    try:
        return pickle.dumps(encoder.place(serialize(value)))
    except StoreError as e:
        logger.warning("Sent through the scheduler, since it cannot be stored: %s", e)
    except Exception as e:
        fell_back(e, "store arguments of type", value)
    return None


def _references(encoder: Encoder, values: dict[Any, Any]) -> dict[Any, bytes]:
    """References to what is large, by place."""
    large = {p: v for p, v in values.items() if nbytes_of(v) >= encoder.threshold}
    stored = {place: encoder.encode(value) for place, value in large.items()}
    return {p: pickle.dumps(value) for p, value in stored.items() if value is not None}


def _published(
    sender: Sender, catalog: Catalog, data: Any, protocol: int, held: list[StoredObject]
) -> Any:
    """What is to be published in place of a data set; itself, if it is small."""
    value = getattr(data, "data", None)
    if not isinstance(data, Serialize) or nbytes_of(value) < sender.threshold:
        return data
    try:
        header, frames = to_sent(value, protocol, known_to_dask=True)
    except TypeError:
        return data  # Dask says why
    if sum(map(frame_nbytes, frames)) < sender.threshold:
        return data
    parts: list[bytes | StoredBytes] = []
    try:
        for frame in frames:
            if frame_nbytes(frame) < REST_NBYTES_AT_LEAST:
                parts.append(bytes(frame))
                continue
            stored = catalog.put([frame])
            held.append(stored)
            parts.append(StoredBytes(stored.id, 0, stored.nbytes))
    except StoreError as e:
        logger.warning("Published on the scheduler, since it cannot be stored: %s", e)
        return data
    return Published(header, parts).to_message(catalog.name)
