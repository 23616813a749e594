"""Whether hosts can connect to each other, found by trying. Runs everywhere.

Where a store leaves an object in the place in which it was made, others have to connect to
that place (:class:`~daskps.stores.connectors.base.Serving`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from daskps.stores.connectors.base import Serving, StoreConnector
from daskps.stores.interfaces import Address

# How long (seconds) a host may take to answer a connection.
CONNECT_SECONDS = 2.0
CONNECT_SECONDS_AT_LEAST = 0.2
# With so many others a host tries to connect, and so many try to connect with it: a host
# that is cut off is found, and the number of connections grows as that of hosts does.
HOSTS_AT_MOST = 64


class CutOffError(ConnectionError):
    """Another host cannot be connected to."""


def failures(connector: Serving, addresses: Iterable[Address]) -> dict[Address, str]:
    """Connect to all of these at once; why to some of them that is not possible.

    Takes little more than :data:`CONNECT_SECONDS`, whoever does not answer.
    """
    addresses = list(dict.fromkeys(addresses))
    deadline = time.monotonic() + CONNECT_SECONDS

    def attempt(address: Address) -> str | None:
        # If there are more than threads, and many do not answer, little time is left.
        left = deadline - time.monotonic()
        try:
            connector.try_connection(address, max(left, CONNECT_SECONDS_AT_LEAST))
        except OSError as e:
            return str(e) or type(e).__name__
        return None

    if not addresses:
        return {}
    with ThreadPoolExecutor(
        min(len(addresses), HOSTS_AT_MOST), "daskps-reach"
    ) as threads:
        reasons = threads.map(attempt, addresses)
        return {a: why for a, why in zip(addresses, reasons, strict=True) if why}


def neighbours(own: Address, addresses: Sequence[Address]) -> list[Address]:
    """Of these addresses, those that the host with one of its own is to try."""
    others = sorted(address for address in set(addresses) if address != own)
    if len(others) <= HOSTS_AT_MOST:
        return others
    first = sum(address < own for address in others)
    return (others[first:] + others[:first])[:HOSTS_AT_MOST]


def check(connector: StoreConnector[Any], addresses: Iterable[Address]) -> None:
    """Make sure that objects at these addresses can be read here.

    Raises
    ------
    CutOffError
        If one cannot be reached.
    """
    found = connector.serving()
    if found is not None:
        own = found.serves_at()
        failed = failures(found, (a for a in addresses if a != own))
        for (host, port), why in failed.items():
            raise CutOffError(f"it cannot connect to {host}, port {port}: {why}")
