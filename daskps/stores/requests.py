"""What a client asks a cluster's scheduler to open. Pickled; compares by content."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

import dask

from daskps.config import size
from daskps.stores.connectors.config import ConnectorConfig
from daskps.stores.schemes import scheme_module
from daskps.stores.urls import is_proxystore, without_credentials

if TYPE_CHECKING:
    from proxystore.connectors.protocols import Connector


#: The scheme of the store that leaves objects on the host that made them.
BETWEEN_HOSTS = "peer"


@dataclass(frozen=True)
class UrlRequest:
    """A store by its URL.

    Attributes
    ----------
    url
        Without credentials.
    options
        What the client's configuration says besides, names and values.
    host_cache
        Bytes of a network store's objects that each host keeps; None: up to the host.
    """

    url: str
    options: tuple[tuple[str, Any], ...] = ()
    host_cache: int | None = None

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True)
class ConnectorRequest:
    """A store of the user's own, by its connector.

    Attributes
    ----------
    connector
        How to make it.
    host_cache
        As for :class:`UrlRequest`.
    """

    connector: ConnectorConfig = field(repr=False)
    host_cache: int | None = None

    def __str__(self) -> str:
        return self.connector.kind


@dataclass(frozen=True)
class ChoiceRequest:
    """A store that is to be chosen (:mod:`daskps.client.choice`), or only examined.

    Attributes
    ----------
    candidates
        The first is for processes of one host, the last for any.
    is_named
        Whether the user has named it, so that it is the only one: a store that leaves
        objects where they were made, so that somebody may be out of reach.
    """

    candidates: tuple[UrlRequest, ...]
    is_named: bool = False


#: What can be opened.
NamedRequest: TypeAlias = UrlRequest | ConnectorRequest
StoreRequest: TypeAlias = UrlRequest | ConnectorRequest | ChoiceRequest


def name_for_people(request: NamedRequest, connector: Any) -> str:
    """A store for people, without credentials: its URL, or what its connector says."""
    return request.url if isinstance(request, UrlRequest) else str(connector)


def request_for(store: Any) -> StoreRequest:
    """What to ask for, given a setting that was checked.

    Parameters
    ----------
    store
        See :func:`daskps.stores.urls.check_store`.
    """
    if store is None:
        return _choice()
    if isinstance(store, str):
        return _by_url(store)
    connector = store.connector if is_proxystore(store) else store
    return ConnectorRequest(_shared(connector), _host_cache())


def request_of_session(store: Any) -> StoreRequest:
    """The same for a session, which finds out what can travel by a store.

    Parameters
    ----------
    store
        See :func:`daskps.stores.urls.check_store`.
    """
    request = request_for(store)
    if (
        isinstance(request, UrlRequest)
        and urlsplit(request.url).scheme == BETWEEN_HOSTS
    ):
        return ChoiceRequest((request,), is_named=True)
    return request


def _choice() -> ChoiceRequest:
    shared = dask.config.get("temporary-directory")
    urls = ["shm://", *[f"file://{shared}"] * bool(shared), f"{BETWEEN_HOSTS}://"]
    return ChoiceRequest(tuple(map(_by_url, urls)))


def _by_url(url: str) -> UrlRequest:
    parts = urlsplit(url)
    options = scheme_module("store", parts.scheme).options(parts)
    named = tuple(sorted(options.items()))
    return UrlRequest(without_credentials(parts), named, _host_cache())


def _host_cache() -> int | None:
    nbytes = dask.config.get("daskps.host-cache")
    return None if nbytes is None else size("daskps.host-cache", nbytes)


def _shared(connector: Connector[Any]) -> ConnectorConfig:
    config = ConnectorConfig.of(connector)
    # ProxyStore's FileConnector and others delete everything when any one process closes
    # them, unless told not to; only the user's own instance may do so.
    return ConnectorConfig(config.kind, _without_clear(config.options))


def _without_clear(options: Any) -> Any:
    # Options of a MultiConnector have those of others in them, in tuples.
    if isinstance(options, dict):
        return {
            name: False if name == "clear" else _without_clear(value)
            for name, value in options.items()
        }
    if isinstance(options, tuple):
        return tuple(map(_without_clear, options))
    return options
