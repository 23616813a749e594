"""What processes say to each other over Dask's own connections.

Checked with dask and distributed 2025.4.0 and 2026.8.0. What is used:

``distributed.Client._send_to_scheduler_safe(message)``, ``loop``
    Called on the event loop, puts a message on the connection on which graphs travel. The
    client sends graphs in the same way, so they stay in order.
``distributed.Client.scheduler_comm``
    That connection; another object if it was lost and the client has connected again.
    What is in its ``buffer`` is sent with the next message, which waits for its
    ``next_deadline``, if there is one. ``comm`` is the connection itself.
``distributed.Client._asynchronous``
    Whether it was made for a program that runs on its event loop. The public name says the
    same of whoever asks from there.
``distributed.Client.futures``
    States of futures, by key. ``finish(type=)`` is what ``Client.scatter`` does to them.
``distributed.Scheduler.update_data(who_has=, nbytes=, client=)``,
``distributed.Client.rpc.serializers``, ``deserializers``
    Which families the user allows.
``distributed.Worker.rpc.deserializers``
    Which families a worker can read, when it fetches what its tasks depend on.
``distributed.core.Server.handlers``, ``stream_handlers``
    What a scheduler or worker does at each operation, and at each message of a stream.
``distributed.Worker.get_data(comm, keys, who=, serializers=)``
    Writes a message to the connection whose "data" has a ``Serialize`` for each key, and
    waits for the reader, who says that he has read it.
``distributed.Worker.actor_execute(...)``, ``actor_attribute(...)``
    Operations of a worker whose answer has a ``Serialize`` as "result", if its "status" is
    "OK". Clients call them by ``Client.scheduler.proxy(worker=, msg=)``.
``distributed.Client.scheduler.broadcast(msg=, workers=, nanny=, on_error=)``
    Called by ``Client.run`` with a message of "function", "args" and "kwargs", pickled, and
    "wait"; gives the workers' answers by address, None of who does not know the operation.
``distributed.Client.scheduler.publish_put(data=, ...)``, ``publish_get(...)``
    Called to publish and to read; "data" is a ``Serialize`` or, since 2026, a list of them.
``distributed.Scheduler.extensions["publish"].datasets``
    By name, the ``Serialized`` as "data" that came.
``distributed.comm.Comm.handshake_options``
    What both ends of a connection have agreed upon.
``distributed.Worker.periodic_callbacks["heartbeat"].callback_time``
    How often (ms) a worker says that it lives: less often, the more workers there are.
``distributed.Worker.batched_send(message)``, ``loop``
    Called on the event loop, puts a message on the stream to the scheduler.
``distributed.protocol.serialize.families``
    What writes and reads each family of serialisation, by name. Registering one is public;
    to ask which are known is not.
"""

from __future__ import annotations

import enum
import functools
import inspect
import pickle
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import distributed
from distributed.protocol.serialize import (
    Serialize,
    families,
    register_serialization_family,
)

from daskps.safety_net import fell_back


def connection(client: distributed.Client) -> Any:
    """What stands for the client's connection to the scheduler, or None if it has none."""
    return client.scheduler_comm


def is_closing(client: distributed.Client) -> bool:
    """Whether nothing more can be sent."""
    return client.status in ("closing", "closed")


def is_asynchronous(client: distributed.Client) -> bool:
    """Whether what submits to a client runs on its event loop."""
    return bool(client._asynchronous)


class When(enum.Enum):
    """When a client sends a message.

    It sends what it is given at once, but then nothing more for 10 ms.
    """

    NOW = enum.auto()
    #: With the next message, which would have to wait otherwise.
    WITH_NEXT = enum.auto()
    #: And that one does not wait for what was sent before it.
    WITH_NEXT_AT_ONCE = enum.auto()


def send_to_scheduler(
    client: distributed.Client,
    over: Any,
    message: dict[str, Any],
    when: When = When.NOW,
    done: Callable[[bool], None] | None = None,
) -> None:
    """Send a message in order with the graphs that this client submits.

    Parameters
    ----------
    over
        The connection. If the client has another one by the time, the message is
        dropped: a scheduler ends the connection at a message that it does not know.
        None: the first one, on which Dask sends what has waited for it.
    when
        Now, or with the next message, and whether that one may wait.
    done
        Called on the event loop: whether the message is on the connection, or dropped.
    """

    def send() -> None:
        current = over is None or client.scheduler_comm is over
        waits = when is not When.NOW and client.status == "running"
        if over is not None and current and waits:
            over.buffer.append(message)
            if when is When.WITH_NEXT_AT_ONCE:
                over.next_deadline = None
        elif current:
            client._send_to_scheduler_safe(message)
        if done is not None:
            done(current)

    client.loop.add_callback(send)


def send_from_worker(worker: distributed.Worker, message: dict[str, Any]) -> None:
    """Send a message to the scheduler, from any thread."""
    worker.loop.add_callback(worker.batched_send, message)


def heartbeat_seconds(worker: distributed.Worker) -> float:
    """How often the scheduler wants to hear from a worker: of many, less often."""
    return float(worker.periodic_callbacks["heartbeat"].callback_time) / 1000


def add_operations(
    server: distributed.Scheduler | distributed.Worker,
    operations: Mapping[str, Callable[..., Any]],
) -> None:
    """Answer calls of these names, from now on."""
    server.handlers.update(operations)


def add_stream_handlers(
    scheduler: distributed.Scheduler, handlers: Mapping[str, Callable[..., None]]
) -> None:
    """Handle messages of these names that clients and workers send, from now on."""
    scheduler.stream_handlers.update(handlers)


def remove_operations(scheduler: distributed.Scheduler, *names: str) -> None:
    """Answer calls, or handle messages, of these names no longer."""
    for name in names:
        scheduler.handlers.pop(name, None)
        scheduler.stream_handlers.pop(name, None)


class AnswerTo(NamedTuple):
    """Who asks a worker for results.

    Attributes
    ----------
    readable
        The families of serialisation that can be read there.
    protocol
        The protocol of pickle that both ends use. The scheduler's connections have 4.
    """

    readable: list[str]
    protocol: int


class Answerer(Protocol):
    """Chooses the form in which a worker sends what it is asked for."""

    async def data(
        self, reader: AnswerTo, values: dict[Any, Any]
    ) -> tuple[dict[Any, Any], Any]:
        """What to send of results, by key, and what has to live until it was read.

        Parameters
        ----------
        reader
            Who asks.
        values
            The results, by key. What is not in the answer is sent as in plain Dask.
        """

    async def result(self, reader: AnswerTo, value: Any) -> Any:
        """What to send of a value that is nobody's result; None: as in plain Dask."""


def answer_with(worker: distributed.Worker, answerer: Answerer | None) -> None:
    """Have a worker ask how to send what it is asked for; None: no more."""
    for name in ("get_data", "actor_execute", "actor_attribute"):
        plain = getattr(worker, name)
        if answerer is None:
            worker.handlers[name] = plain
        elif name == "get_data":
            worker.handlers[name] = _sending_data(plain, answerer)
        else:
            worker.handlers[name] = _sending_result(plain, answerer)


def _sending_data(plain: Callable[..., Any], answerer: Answerer) -> Any:
    async def get_data(
        comm: Any, keys: Any, who: Any = None, serializers: Any = None
    ) -> Any:
        if serializers and not _within_process(comm):
            comm = _SendingComm(comm, _reader(comm, serializers), answerer)
        return await plain(comm, keys=keys, who=who, serializers=serializers)

    return get_data


def _sending_result(plain: Callable[..., Any], answerer: Answerer) -> Any:
    # Dask gives the connection to whose first argument has this name.
    async def operation(comm: Any, serializers: Any = None, **kwargs: Any) -> Any:
        message = plain(**kwargs)
        if inspect.isawaitable(message):
            message = await message
        if serializers and message["status"] == "OK" and not _within_process(comm):
            reader = _reader(comm, serializers)
            try:
                other = await answerer.result(reader, message["result"].data)
            except Exception as e:
                fell_back(e, "treat what an actor returns")
                other = None
            if other is not None:
                message["result"] = Serialize(other)
        return message

    return operation


def pickle_protocol(client: distributed.Client) -> int:
    """With which protocol of pickle Dask sends what this client gives to workers."""
    comm = client.scheduler_comm
    return pickle.HIGHEST_PROTOCOL if comm is None else _protocol(comm.comm)


def _protocol(comm: Any) -> int:
    protocol: int = comm.handshake_options.get(
        "pickle-protocol", pickle.HIGHEST_PROTOCOL
    )
    return protocol


def _reader(comm: Any, families: list[str]) -> AnswerTo:
    return AnswerTo(families, _protocol(comm))


def _within_process(comm: Any) -> bool:
    """Whether values are passed as they are, and not serialised."""
    return str(comm.peer_address).startswith("inproc://")


class _SendingComm:
    """A connection to a reader of results.

    Dask keeps it until the reader has said that he has read them.
    """

    def __init__(self, comm: Any, reader: AnswerTo, answerer: Answerer):
        self._comm = comm
        self._reader = reader
        self._answerer = answerer
        self._held: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._comm, name)

    async def write(self, message: Any, **options: Any) -> Any:
        values = {key: value.data for key, value in message["data"].items()}
        try:
            answers, self._held = await self._answerer.data(self._reader, values)
        except Exception as e:
            fell_back(e, "treat results")
            answers = {}
        if answers:
            data = {key: Serialize(answer) for key, answer in answers.items()}
            message = {**message, "data": {**message["data"], **data}}
        return await self._comm.write(message, **options)


def is_family(name: str) -> bool:
    """Whether this process knows a family of serialisation."""
    return name in families


def register_family(
    name: str, dump: Callable[..., Any] | None, load: Callable[..., Any]
) -> None:
    """Have this process write and read a family of serialisation.

    Parameters
    ----------
    name
        The family.
    dump
        Given a value, gives header and frames. None: as it is written already.
    load
        Given header and frames, gives the value.
    """
    if dump is None:
        dump = families[name][0]
    register_serialization_family(name, dump, load)


def gather_with(scheduler: Any, deserializers: list[str] | None) -> None:
    """Have results that come by way of the scheduler answered with these families.

    Parameters
    ----------
    scheduler
        How a client calls it: its attribute, which is None once it is closed.
    """
    scheduler.__dict__.pop("gather", None)
    if deserializers is not None:
        gather = functools.partial(scheduler.gather, deserializers=deserializers)
        scheduler.gather = gather


def call_actors_with(
    scheduler: Any,
    deserializers: list[str] | None,
    ask_again: Callable[[Any], dict[str, Any] | None] = lambda result: None,
    send: Callable[..., Any] | None = None,
) -> None:
    """Have actors answer with these families, by way of the scheduler.

    Parameters
    ----------
    scheduler
        As for :func:`gather_with`.
    deserializers
        The families; None: as in plain Dask.
    ask_again
        Given a result, gives the message that asks the worker for it in another form, or
        None if it is as it should be.
    send
        Sends a message to a worker, given what does so as Dask does; None: that.
    """
    scheduler.__dict__.pop("proxy", None)
    if deserializers is None:
        return
    plain = scheduler.proxy
    ask = functools.partial(plain, deserializers=deserializers)

    async def proxy(worker: str, msg: dict[str, Any]) -> Any:
        reply = await (
            ask(worker=worker, msg=msg) if send is None else send(ask, worker, msg)
        )
        again = ask_again(reply["result"]) if reply.get("status") == "OK" else None
        return reply if again is None else await plain(worker=worker, msg=again)

    scheduler.proxy = proxy


def ask_with(scheduler: Any, operation: str, send: Callable[..., Any] | None) -> None:
    """Have an operation of the scheduler called by way of `send`; None: no more.

    Parameters
    ----------
    scheduler
        As for :func:`gather_with`.
    send
        A coroutine function, called with what calls it as Dask does, and the message.
    """
    scheduler.__dict__.pop(operation, None)
    if send is not None:
        plain = getattr(scheduler, operation)
        scheduler.__dict__[operation] = functools.partial(send, plain)


async def handle(
    worker: distributed.Worker, operation: str, comm: Any, **message: Any
) -> Any:
    """Do what a worker does at an operation, as if the message had come by `comm`."""
    handler = worker.handlers[operation]
    names = inspect.signature(handler).parameters
    if "serializers" not in names:
        message.pop("serializers", None)
    result = handler(comm, **message) if "comm" in names else handler(**message)
    return await result if inspect.isawaitable(result) else result


def published_datasets(scheduler: distributed.Scheduler) -> dict[Any, dict[str, Any]]:
    """What is published, by name: the ``"data"`` as it came, and keys."""
    datasets: dict[Any, dict[str, Any]] = scheduler.extensions["publish"].datasets
    return datasets


def families_allowed(
    client: distributed.Client,
) -> tuple[list[str] | None, list[str] | None]:
    """The families that the user allows for writing and reading; None: Dask's own."""
    return client.rpc.serializers, client.rpc.deserializers


def gather_from_workers_with(
    worker: distributed.Worker, deserializers: list[str] | None
) -> None:
    """Have results that come from other workers answered with these families.

    None: with those of plain Dask.
    """
    worker.rpc.deserializers = deserializers


def finish(client: distributed.Client, key: Any, type_: type) -> None:
    """Have a future know that its value is on a worker, and of which type it is."""
    client.futures[key].finish(type=type_)


def keep(worker: distributed.Worker, values: dict[Any, Any]) -> dict[str, Any]:
    """Keep values on a worker, under their keys; gives their sizes as ``"nbytes"``."""
    sizes: dict[str, Any] = worker.update_data(data=values)
    return sizes


def note_data(
    scheduler: distributed.Scheduler,
    who_has: dict[Any, list[str]],
    nbytes: dict[Any, int],
    client: str,
) -> None:
    """Have the scheduler know what workers keep, which a client wants."""
    scheduler.update_data(who_has=who_has, nbytes=nbytes, client=client)
