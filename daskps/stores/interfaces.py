"""On which address of this host others reach it. Runs everywhere.

Uses the standard library alone: the server of a ``peer://`` store imports it.
"""

from __future__ import annotations

import socket
from typing import Any, TypeAlias

#: Host and port.
Address: TypeAlias = "tuple[str, int]"


def pair(address: Any) -> Address:
    """An address that came in a message."""
    host, port = address
    return host, port


def local_host(towards: Address) -> str:
    """The address of the interface that leads to another host."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        *towards, type=socket.SOCK_DGRAM
    )[0]
    # To connect a datagram socket sends nothing.
    with socket.socket(family, kind, protocol) as sock:
        sock.connect(address)
        return str(sock.getsockname()[0])
