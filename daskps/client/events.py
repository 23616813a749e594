"""What a client has to tell who reads the scheduler's events. Runs on the client."""

from __future__ import annotations

import logging
import time
import weakref
from typing import TYPE_CHECKING, Any

from daskps.messages import EVENTS

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

# A client whose store is full says so once in this time (seconds), not with each graph.
AGAIN_SECONDS = 60.0

#: When a client last said that something was sent inline (``time.monotonic``).
_said: weakref.WeakKeyDictionary[Client, float] = weakref.WeakKeyDictionary()


def log_event(client: Client, action: str, why: str) -> None:
    """Log an event on the scheduler, and do not wait for that. Thread-safe.

    Parameters
    ----------
    client
        Whom it is about.
    action, why
        What has happened, in one word and for people.
    """
    message = {"action": action, "client": client.id, "why": why}
    client.loop.add_callback(_log, client.scheduler, message)


def sent_inline(client: Client, why: str) -> None:
    """Log that values are sent inside graphs, once a minute for each client."""
    now = time.monotonic()
    if now < _said.get(client, -AGAIN_SECONDS) + AGAIN_SECONDS:
        return
    _said[client] = now
    log_event(client, "inline", why)


async def _log(scheduler: Any, message: dict[str, Any]) -> None:
    try:
        await scheduler.log_event(topic=EVENTS, msg=message)
    except (AttributeError, OSError) as e:
        logger.debug("The scheduler was not told of %r: %r", message, e)
