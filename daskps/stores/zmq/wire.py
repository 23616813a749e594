"""What processes of a ``zmq://`` store send to each other.

Everything is encrypted and authenticated by CURVE, ZeroMQ's security. All keys are made from
the cluster's key: a server answers nobody who does not have it, and a client listens to
nobody else. A request is a line of JSON; an answer as well, followed by the bytes of the
object in chunks. Nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import zmq
from blake3 import blake3
from proxystore_ex.connectors.dim.models import RPC, DIMKey, RPCResponse
from zmq.utils import z85

# ZeroMQ encrypts a chunk at a time, in memory of its own.
CHUNK = 1 << 20
# Of what others may ask for. They put objects nowhere but into their own process.
OPERATIONS = ("evict", "exists", "get")


class Identity(NamedTuple):
    """A pair of CURVE keys, as ZeroMQ takes them."""

    public: bytes
    secret: bytes


class Keys:
    """The keys of the servers and of the clients of one cluster.

    Parameters
    ----------
    key
        The cluster's: 32 random bytes.
    """

    server: Identity
    client: Identity
    #: Begins the names of the cluster's objects. Says nothing of the key.
    mark: str

    def __init__(self, key: bytes):
        self.server = _identity(b"server", key)
        self.client = _identity(b"client", key)
        self.mark = blake3(b"mark", key=key).hexdigest(8)

    def __repr__(self) -> str:
        return "Keys(***)"


def _identity(role: bytes, key: bytes) -> Identity:
    secret = z85.encode(blake3(role, key=key).digest())
    return Identity(zmq.curve_public(secret), secret)


def pack_request(rpc: RPC) -> bytes:
    """What asks a server for something."""
    return json.dumps([rpc.operation, *rpc.key]).encode()


def unpack_request(message: bytes) -> RPC:
    """What a client asks for.

    Raises
    ------
    ValueError, TypeError
        If it is not a request.
    """
    operation, *key = json.loads(message)
    if operation not in OPERATIONS:
        raise ValueError(f"{operation!r} is none of {OPERATIONS}")
    return RPC(operation, DIMKey(*key))


def pack_answer(response: RPCResponse) -> list[Any]:
    """The frames of an answer. Those of the object are not copied."""
    data = None if response.data is None else memoryview(response.data)
    head = {
        "exists": response.exists,
        "nbytes": None if data is None else data.nbytes,
        "error": None if response.exception is None else repr(response.exception),
    }
    frames: list[Any] = [json.dumps(head).encode()]
    if data is not None:
        frames += [data[i : i + CHUNK] for i in range(0, data.nbytes, CHUNK)]
    return frames


def unpack_answer(rpc: RPC, frames: Sequence[zmq.Frame]) -> RPCResponse:
    """What a server answered.

    Raises
    ------
    RuntimeError
        If it could not do what it was asked to.
    """
    head = json.loads(frames[0].bytes)
    if head["error"] is not None:
        raise RuntimeError(f"{rpc.key.peer_host}:{rpc.key.peer_port}: {head['error']}")
    data = None
    if head["nbytes"] is not None:
        data = np.empty(head["nbytes"], np.uint8).data
        start = 0
        for frame in frames[1:]:
            data[start : start + len(frame)] = frame.buffer
            start += len(frame)
        if start != data.nbytes:
            raise RuntimeError(f"{start} bytes came, and not {data.nbytes}")
    return RPCResponse(rpc.operation, rpc.key, data, head["exists"])
