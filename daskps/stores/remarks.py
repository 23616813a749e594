"""What a user should know of how a store keeps its objects on this host."""

from __future__ import annotations

import logging
from typing import NamedTuple

logger = logging.getLogger(__name__)

_said: set[str] = set()


class Remark(NamedTuple):
    """About a store that is open.

    Attributes
    ----------
    text
        For people, without a full stop.
    is_warning
        Whether something is not as it should be.
    """

    text: str
    is_warning: bool

    def log(self) -> None:
        """Write it to the log, once for each process."""
        if self.text not in _said:
            _said.add(self.text)
            level = logging.WARNING if self.is_warning else logging.INFO
            logger.log(level, "%s.", self.text)


def warn(remark: Remark | None) -> None:
    """Write it to the log if there is one, and something is not as it should be."""
    if remark is not None and remark.is_warning:
        remark.log()
