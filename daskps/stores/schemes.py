"""Which module makes the stores of each scheme of URLs.

To add a scheme to daskps, add a line to ``SCHEMES``, and the module that it names. Another
package adds one by an entry point (:func:`schemes`).
"""

from __future__ import annotations

import functools
import importlib
from importlib.metadata import entry_points
from typing import Any, NamedTuple, Protocol, cast
from urllib.parse import SplitResult

from daskps.exceptions import ConfigError
from daskps.stores.connectors.base import StoreConnector

#: Entry points of schemes.
GROUP = "daskps.stores"


class Scheme(NamedTuple):
    """One kind of URL.

    Attributes
    ----------
    module
        Has the functions of :class:`SchemeModule`; imported when such a URL is used.
    extra
        The extra of daskps that installs what the module imports, if any.
    """

    module: str
    extra: str | None = None


SCHEMES = {
    "shm": Scheme("daskps.stores.files.shm_scheme"),
    "file": Scheme("daskps.stores.files.file_scheme"),
    "peer": Scheme("daskps.stores.peer.scheme"),
    "redis": Scheme("daskps.stores.redis.scheme", "redis"),
    "rediss": Scheme("daskps.stores.redis.scheme", "redis"),
    "daos": Scheme("daskps.stores.daos.scheme"),
}


class SchemeModule(Protocol):
    """What the module of a scheme has."""

    def check(self, key: str, parts: SplitResult) -> None:
        """Raise ConfigError for a URL that cannot be used, given the setting's name."""

    def options(self, parts: SplitResult) -> dict[str, Any]:
        """What the configuration of this process, the client, says besides the URL.

        Credentials are each a :class:`daskps.stores.secret.Secret`. All values can be
        hashed.

        Raises
        ------
        daskps.exceptions.ConfigError
            If a setting is not valid.
        """

    def make(self, parts: SplitResult, options: dict[str, Any]) -> StoreConnector[Any]:
        """Make the connector, in the process that is to own the store.

        The URL is without credentials here. Among the options are also ``host``, the
        address by which other processes of the cluster reach this one, and
        ``host_cache`` (see :class:`~daskps.stores.requests.UrlRequest`). Objects of a
        SealedConnector are kept on each host without its doing.

        Raises
        ------
        daskps.exceptions.ConfigError
            If that process cannot open it.
        """

    def sweep(self, parts: SplitResult, dry_run: bool) -> list[str]:
        """Delete what dead processes left there; gives names of it.

        With `dry_run`, only say what would be deleted.
        """


def schemes() -> dict[str, Scheme]:
    """All schemes: daskps's own, and those of other packages.

    A package adds one by an entry point of the group ``daskps.stores``, whose name is the
    scheme and whose value is the module.
    """
    return {**SCHEMES, **{k: v for k, v in _of_others().items() if k not in SCHEMES}}


@functools.lru_cache(maxsize=1)
def _of_others() -> dict[str, Scheme]:
    # To look takes some milliseconds.
    return {e.name: Scheme(e.value) for e in entry_points(group=GROUP)}


def scheme_module(key: str, scheme: str) -> SchemeModule:
    """The module that makes stores of this scheme.

    Raises
    ------
    ConfigError
        If something that it needs is not installed.
    """
    name, extra = SCHEMES.get(scheme) or _of_others()[scheme]
    try:
        return cast(SchemeModule, importlib.import_module(name))
    except ModuleNotFoundError as e:
        remedy = f"pip install 'daskps[{extra}]'" if extra else "install it"
        raise ConfigError(
            f"{key}: {scheme}:// needs the package {e.name!r}, which is not installed: "
            f"{remedy}, on the client, the scheduler and every worker"
        ) from e
