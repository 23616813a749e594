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
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from distributed.protocol.serialize import Serialize

from daskps.dask_private.connections import ask_with, pickle_protocol
from daskps.exceptions import StoreError
from daskps.messages import CALL, RUN, UNREAD
from daskps.objects.catalog import Catalog, StoredObject
from daskps.objects.encoder import REST_NBYTES_AT_LEAST, Encoder
from daskps.objects.sizes import is_small, nbytes_of
from daskps.progress import STORING, shown
from daskps.references.nodes import StoredBytes, StoredValue
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

    @property
    def inline_on_error(self) -> bool:
        """Whether what cannot be stored is sent as in plain Dask."""

    def is_current(self, client: Client) -> bool:
        """Whether what the running code sends belongs to the session."""

    def open_catalog(self, client: Client) -> Catalog | None:
        """Where to store; None: nowhere, at the moment."""

    def encoder(self, catalog: Catalog) -> Encoder:
        """What stores."""


class Place(NamedTuple):
    """Where what is large in a message goes."""

    client: Client
    sender: Sender
    catalog: Catalog

    def encoder(self) -> Encoder:
        """What puts it there."""
        return self.sender.encoder(self.catalog)


class Stored(NamedTuple):
    """A message that refers to what was stored for it.

    Attributes
    ----------
    message
        What is sent.
    release
        Lets go of what was stored. To be called when the message was answered: an error
        keeps the frames that it passed for as long as somebody looks at it.
    """

    message: dict[str, Any]
    release: Callable[[], None]


#: Stores what is large in a message; None if nothing is.
Prepare: TypeAlias = Callable[[Place, dict[str, Any]], Awaitable[Stored | None]]


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
        # Read once: another thread may close the client meanwhile.
        scheduler = None if client is None else client.scheduler
        if scheduler is None:
            return
        ours = {"broadcast": self._broadcast, "publish_put": self._publish}
        for name, send in ours.items():
            ask_with(scheduler, name, send if self._senders else None)

    async def _stored(
        self, prepare: Prepare, attempt: str, message: dict[str, Any]
    ) -> Stored | None:
        """What is sent in place of a message; None: the message itself.

        Whatever goes wrong with it costs speed, never the message.
        """
        client, sender = self._client(), None
        if client is None:
            return None
        try:
            sender = next((s for s in self._senders if s.is_current(client)), None)
            catalog = None if sender is None else sender.open_catalog(client)
            if sender is None or catalog is None:
                return None
            return await prepare(Place(client, sender, catalog), message)
        except StoreError as e:
            if sender is not None and not sender.inline_on_error:
                raise
            logger.warning("Sent as in plain Dask, since it cannot be stored: %s", e)
        except Exception as e:
            fell_back(e, attempt)
        return None

    # Client.run

    async def _broadcast(self, plain: Plain, **message: Any) -> Any:
        stored = await self._stored(_run, "store arguments of Client.run", message)
        if stored is None:
            return await plain(**message)
        try:
            replies = await plain(**stored.message)
        finally:
            stored.release()
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
        stored = await self._stored(_actor_call, "store arguments of an actor", msg)
        if stored is None:
            return await plain(worker=worker, msg=msg)
        try:
            reply = await plain(worker=worker, msg=stored.message)
        finally:
            stored.release()
        return await plain(worker=worker, msg=msg) if _is_unread(reply) else reply

    # Published data sets

    async def _publish(self, plain: Plain, **message: Any) -> Any:
        stored = await self._stored(_publication, "store a data set", message)
        if stored is None:
            return await plain(**message)
        try:
            return await plain(**stored.message)
        finally:
            stored.release()


def _is_unread(reply: Any) -> bool:
    """Whether a worker does not know the operation, or cannot read what was stored."""
    return reply is None or (isinstance(reply, dict) and reply.get("status") == UNREAD)


async def _run(place: Place, message: dict[str, Any]) -> Stored | None:
    msg = message.get("msg", {})
    if message.get("nanny") or msg.get("op") != "run":
        return None
    parts = tuple(msg[name] for name in ("function", "args", "kwargs"))
    nbytes = sum(map(len, parts))
    if nbytes < place.sender.threshold:
        return None
    encoder = place.encoder()

    def store() -> StoredValue:
        with shown(STORING, nbytes):
            return encoder.place(serialize(parts))

    stored = await asyncio.to_thread(store)
    reference = pickle.dumps(stored)
    place.catalog.refer(encoder.stored)
    by_reference = {"op": RUN, "reference": reference, "wait": msg["wait"]}
    return Stored({**message, "msg": by_reference}, encoder.abandon)


async def _actor_call(place: Place, msg: dict[str, Any]) -> Stored | None:
    if msg.get("op") != "actor_execute":
        return None
    arguments = {**dict(enumerate(msg["args"])), **msg["kwargs"]}
    values = {name: getattr(arg, "data", None) for name, arg in arguments.items()}
    threshold = place.sender.threshold
    if all(is_small(value, threshold) for value in values.values()):
        return None
    encoder = place.encoder()
    encoder.serialize = partial(
        serialize_as_sent, protocol=pickle_protocol(place.client)
    )
    references = await asyncio.to_thread(_references, encoder, values)
    if not references:
        return None
    place.catalog.refer(encoder.stored)
    args = [None if i in references else arg for i, arg in enumerate(msg["args"])]
    kwargs = {k: None if k in references else arg for k, arg in msg["kwargs"].items()}
    by_reference = {
        "op": CALL,
        "references": references,
        "args": args,
        "kwargs": kwargs,
    }
    return Stored({**msg, **by_reference}, encoder.abandon)


def _references(encoder: Encoder, values: dict[Any, Any]) -> dict[Any, bytes]:
    """References to what is large, by the argument's place or name."""
    large = {p: v for p, v in values.items() if nbytes_of(v) >= encoder.threshold}
    with shown(STORING, sum(map(nbytes_of, large.values()))):
        stored = {place: encoder.encode(value) for place, value in large.items()}
    return {p: pickle.dumps(value) for p, value in stored.items() if value is not None}


async def _publication(place: Place, message: dict[str, Any]) -> Stored | None:
    several = isinstance(message["data"], (list, tuple))
    data = message["data"] if several else [message["data"]]
    held: list[StoredObject] = []
    new = [await asyncio.to_thread(_published, place, one, held) for one in data]
    if not held:
        return None
    place.catalog.hold(held)
    return Stored({**message, "data": new if several else new[0]}, held.clear)


def _published(place: Place, data: Any, held: list[StoredObject]) -> Any:
    """What is to be published in place of a data set; itself, if it is small."""
    value = getattr(data, "data", None)
    threshold = place.sender.threshold
    if not isinstance(data, Serialize) or is_small(value, threshold):
        return data
    try:
        protocol = pickle_protocol(place.client)
        header, frames = to_sent(value, protocol, known_to_dask=True)
    except TypeError:
        return data  # Dask says why
    nbytes = sum(map(frame_nbytes, frames))
    if nbytes < threshold:
        return data
    with shown(STORING, nbytes):
        parts = _stored_frames(place, frames, held)
    return Published(header, parts).to_message(place.catalog.name)


def _stored_frames(
    place: Place, frames: Iterable[Any], held: list[StoredObject]
) -> list[bytes | StoredBytes]:
    parts: list[bytes | StoredBytes] = []
    for frame in frames:
        if frame_nbytes(frame) < REST_NBYTES_AT_LEAST:
            parts.append(bytes(frame))
            continue
        stored = place.catalog.put([frame])
        held.append(stored)
        parts.append(StoredBytes(stored.id, 0, stored.nbytes))
    return parts
