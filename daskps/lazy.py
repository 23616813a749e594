"""Which modules a process loads, and when.

The scheduler and the workers import daskps when they unpickle its plugins, and each of them
pays for what that imports: pandas takes 40 MB, ProxyStore's stores take pandas and pydantic.
So one rule holds for pandas, pyarrow, ``proxystore.store``, ``proxystore.connectors`` and
everything that only some stores need:

- They are imported in the function that needs them, and for types under ``TYPE_CHECKING``.
- Whether a value is of one of their types is asked of :func:`loaded`: where a module was not
  imported, there is no object of its types. Nothing is imported to find that out.
- A module of daskps that cannot do without them at its top is itself imported in functions
  only (:mod:`daskps.references.factory`, those in :data:`daskps.stores.schemes.SCHEMES`).

``proxystore.proxy`` is light by itself.
"""

from __future__ import annotations

import sys
from typing import Any


def loaded(name: str) -> Any:
    """A module, if this process has imported it; otherwise None.

    Parameters
    ----------
    name
        Such as ``"pandas"``.
    """
    module = sys.modules.get(name)
    # Another thread may be importing it now: it lacks its types still, and has no objects.
    spec = getattr(module, "__spec__", None)
    return None if getattr(spec, "_initializing", False) else module
