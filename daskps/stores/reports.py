"""What processes tell the scheduler of their traffic. Runs on clients and workers.

A report has what was added since the last one, of whichever user of the store in this
process it was. So the scheduler only adds up, and forgets nothing of a process that is gone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from daskps.messages import TRAFFIC
from daskps.stores import opened


def report(store_name: str) -> dict[str, Any] | None:
    """The message that says what is new of a store; None: nothing is."""
    store = opened.get(store_name)
    counts = None if store is None else store.traffic.take()
    if counts is None:
        return None
    return {
        "op": TRAFFIC,
        "store": store_name,
        "host": os.uname().nodename,
        "counts": list(counts),
    }


def reports(store_names: Iterable[str]) -> list[dict[str, Any]]:
    """The same of several stores."""
    return [message for name in store_names if (message := report(name)) is not None]
