"""DAOS's Python bindings: how they are imported, and their errors as ours.

``pydaos`` comes with DAOS. Its errors say what went wrong in their text alone. One of
them, ``DObjNotFound``, is its own argument: its ``repr``, and pickle, follow it for ever,
and only the garbage collector frees it. So no error from here has one of them as its cause
or context.
"""

from __future__ import annotations

import os
from typing import Any

from daskps.exceptions import ConfigError, StoreError, StoreFullError

# A libfabric that has the PSM provider, as Debian's, puts handlers of its own in the place
# of those of SIGTERM, SIGABRT, SIGSEGV, SIGBUS and SIGILL when it is loaded, unless one of
# these is set: PSM's first version reads the first one, its second version the other.
KEEP_SIGNAL_HANDLERS = ("IPATH_NO_BACKTRACE", "HFI_NO_BACKTRACE")


def load() -> Any:
    """The module ``pydaos``.

    Raises
    ------
    daskps.exceptions.ConfigError
        If it is not installed.
    """
    for name in KEEP_SIGNAL_HANDLERS:
        os.environ.setdefault(name, "1")
    try:
        import pydaos
    except ImportError as e:
        raise ConfigError(
            "daos:// needs pydaos, which comes with DAOS and is not on PyPI: install "
            "DAOS's client package (daos-client) on the client, the scheduler and "
            f"every worker, and make its Python package importable there ({e})"
        ) from None
    return pydaos


def errors() -> tuple[type[Exception], ...]:
    """What DAOS raises."""
    pydaos = load()
    return (pydaos.PyDError, pydaos.DObjNotFound)


def failure(doing: str, pool: str, container: str, name: str, error: str) -> StoreError:
    """What to raise outside the handler of one of DAOS's errors, given its text.

    Parameters
    ----------
    doing
        What could not be done.
    pool, container, name
        With which dictionary.
    error
        The text.
    """
    if "DER_NOSPACE" in error:
        return StoreFullError(
            f"Pool {pool!r} of DAOS has no room left ({error}). DAOS gives the "
            "room of what was deleted back after some 40 s. Free some, or compute in "
            "smaller parts."
        )
    return StoreError(
        f"Could not {doing} 'daos://{pool}/{container}/{name}': {error}. Check that this "
        "host's daos_agent runs, and that the container is there and may be used: "
        f"daos cont create {pool} {container} --type=PYTHON"
    )
