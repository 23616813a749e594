"""Where daskps can keep values: on Linux, and nowhere else.

All stores use locks, mappings or server processes as Linux has them; the ones on a network
do so for the copies that each host keeps. On other systems daskps can be imported, and
everything goes as in plain Dask.
"""

from __future__ import annotations

import socket
import sys

from daskps.exceptions import ClusterError

_NAMES = {"win32": "Windows", "darwin": "macOS"}


def is_linux() -> bool:
    """Whether this process can use stores."""
    return sys.platform == "linux"


def system() -> str:
    """The system's name, for people."""
    return _NAMES.get(sys.platform, sys.platform)


def check_linux(here: str) -> None:
    """Check that a process can use stores.

    Parameters
    ----------
    here
        Which process this is, for the error.

    Raises
    ------
    daskps.exceptions.ClusterError
        If it cannot.
    """
    if not is_linux():
        raise ClusterError(
            f"{here} runs on {system()} (host {socket.gethostname()}), and daskps's "
            "stores need Linux. Run it on Linux, or use this cluster without daskps."
        )
