"""The one place through which every graph goes on its way out. Runs on the client."""

from __future__ import annotations

import logging
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import dask
from distributed import Client

from daskps.client.in_task import task_session
from daskps.client.link import ClusterLink
from daskps.client.local import can_read, local_catalog, reading_options
from daskps.client.scatter import scatter
from daskps.client.session import Session, current_session
from daskps.config import large_graph
from daskps.dask_private.connections import families_allowed
from daskps.dask_private.graphs import Expr, _MapExpr
from daskps.dask_private.hooks import (
    hook_clients,
    hook_gather,
    hook_local_schedulers,
    hook_scatter,
    runs_in_threads,
)
from daskps.exceptions import DaskpsError
from daskps.graph import expressions
from daskps.graph.census import Weight, weigh
from daskps.graph.contents import contents, graph_contents
from daskps.graph.culling import needed_keys
from daskps.graph.search import Search
from daskps.graph.tasks import Replacement
from daskps.objects.cache import Cache
from daskps.objects.catalog import Catalog
from daskps.objects.encoder import Encoder
from daskps.references.nodes import ProxyNode
from daskps.references.proxies import is_proxy, register
from daskps.safety_net import fell_back
from daskps.settings import Settings

logger = logging.getLogger(__name__)

# Dask makes a task of its own of each keyword of Client.map above this size (bytes, by
# dask.sizeof), with the bare keyword as its key: the second such map fails or hangs.
MAP_KEYWORD_NBYTES = 100_000

# Smaller values (bytes) are stored one after the other.
WORTH_A_THREAD_NBYTES = 1 << 20

#: For clients that use daskps.optimize through Dask's configuration.
_config_sessions: weakref.WeakKeyDictionary[Any, Session] = weakref.WeakKeyDictionary()
_said_local = False


def install() -> None:
    """Hook into Dask: done once, when daskps is imported."""
    hook_clients(_before_submission, _submission_failed)
    hook_gather(_before_gather, _gather_failed)
    hook_scatter(_scatter)
    register()
    hook_local_schedulers(_before_local, _wanted_locally)


def optimize(dsk: Any, keys: Any, **kwargs: Any) -> Any:
    """Replace the large values of a graph by nodes that read them from a store.

    A pass in the form that Dask's ``optimizations`` setting takes. Importing daskps makes
    that setting work on every version of Dask::

        dask.config.set(optimizations=[daskps.optimize])

    Parameters
    ----------
    dsk : HighLevelGraph or dict
        A graph.
    keys
        The keys that are wanted of it. Not used.
    **kwargs
        Not used.

    Returns
    -------
    HighLevelGraph or dict
        A graph with the same keys; `dsk` itself if nothing in it is large, or if there
        is no client whose cluster has a store. What the graph refers to is kept for as
        long as the graph exists.

    Raises
    ------
    daskps.exceptions.DaskpsError
        As :func:`daskps.proxy_graph`.
    """
    try:
        encoder = _encoder(_current_client(), graph_contents(dsk))
        if encoder is None:
            return dsk
        search = Search(encoder.at_least)
        new = _stored(search, search.graph(dsk), encoder)
    except Exception as e:
        fell_back(e, "replace what is large in a graph of type", dsk)
        return dsk
    return new


def _before_submission(
    client: Client, expr: Expr, keys: Iterable[Any]
) -> tuple[Expr, Expr, Any]:
    if client.status == "closed":
        return expr, expr, None  # Dask says so
    expr, wanted = _after_other_passes(expr, keys)
    try:
        new, encoder = _for_cluster(client, expr, keys, wanted)
    except Exception as e:
        fell_back(e, "replace what is large in an expression of type", expr)
        return expr, expr, None
    # Handles are let go only after the graph is on its way.
    return new, expr, encoder


def _submission_failed(error: Exception, expr: Expr) -> None:
    fell_back(error, "have Dask submit an expression of type", expr)


def _for_cluster(
    client: Client, expr: Expr, keys: Iterable[Any], wanted: bool
) -> tuple[Expr, Encoder | None]:
    """A graph for a distributed client, which Dask's configuration may want treated."""
    session = current_session(client) or task_session(client)
    if session is None and wanted:
        session = _session_from_config(client)
    if session is None:
        return _outside_sessions(client, expr)
    if not session.covers_results(client) and not client.asynchronous:
        session.catalog(client)  # a client that was not there when the session began
    new, encoder = _proxied(expr, keys, session, partial(session.catalog, client))
    if encoder is None and session.sends_inline(client):
        return _outside_sessions(client, expr)
    return new, encoder


def _outside_sessions(client: Client, expr: Expr) -> tuple[Expr, Encoder | None]:
    """A graph may have what was stored within a session, or by :func:`daskps.proxy`."""
    catalog = ClusterLink.of(client).holding()
    if catalog is None:
        return expr, None
    weight = weigh(contents(expr), sys.maxsize)
    if not weight.proxies:
        return expr, None
    encoder = Encoder(catalog, Cache(0), sys.maxsize, pack=False)
    encoder.stored += _owners(weight.proxies)
    search = Search(encoder.at_least)
    replacement = search.expression(expressions.prepared(expr))
    return _stored(search, replacement, encoder), encoder


def _stored(search: Search, replacement: Replacement, encoder: Encoder) -> Any:
    """Store what a search has found; gives what takes the graph's place."""
    encoder.encode_all(search.to_store(max(encoder.threshold, WORTH_A_THREAD_NBYTES)))
    new = replacement(encoder.encode)
    encoder.finish()
    return new


def _owners(proxies: Iterable[Any]) -> list[Any]:
    """The handles that graph nodes carry, of those that were made in this process."""
    nodes = (node for node in proxies if isinstance(node, ProxyNode))
    return [owner for node in nodes for owner in node.value.owners]


def _before_gather(client: Client) -> bool:
    try:
        return ClusterLink.of(client).before_gather()
    except Exception as e:
        fell_back(e, "ask for references to results of", client)
        return False


def _gather_failed(client: Client, error: Exception) -> bool:
    try:
        return ClusterLink.of(client).fetching.failed(error)
    except Exception as e:
        fell_back(e, "fetch again the results of", client)
        return False


def _scatter(
    client: Client, plain: Callable[..., Any], data: Any, **options: Any
) -> Any:
    try:
        session = current_session(client) or task_session(client)
        allowed, _ = families_allowed(client)
    except Exception as e:
        fell_back(e, "find the session of", client)
        session, allowed = None, None
    if session is None or (allowed is not None and "pickle" not in allowed):
        return plain(client, data, **options)
    asynchronous = options.pop("asynchronous", None)
    return client.sync(
        _scattered, client, plain, session, data, options, asynchronous=asynchronous
    )


async def _scattered(
    client: Client, plain: Callable[..., Any], session: Session, data: Any, options: Any
) -> Any:
    try:
        if not is_proxy(data) and isinstance(data, Iterator):
            data = list(data)  # it may be needed twice
        return await scatter(client, plain, session, data, options)
    except (DaskpsError, TimeoutError):
        raise
    except Exception as e:
        # What plain Dask cannot do either is no fault of ours.
        result = await plain(client, data, **options, asynchronous=True)
        fell_back(e, "scatter", data)
        return result


def _before_local(
    get: Callable[..., Any], expr: Expr, keys: Iterable[Any], options: dict[str, Any]
) -> tuple[Expr, dict[str, Any], Any]:
    expr, wanted = _after_other_passes(expr, keys)
    try:
        return _for_local(get, expr, keys, options, wanted)
    except Exception as e:
        fell_back(e, "replace what is large in an expression of type", expr)
        return expr, options, None


def _for_local(
    get: Callable[..., Any],
    expr: Expr,
    keys: Iterable[Any],
    options: dict[str, Any],
    wanted: bool,
) -> tuple[Expr, dict[str, Any], Any]:
    """A graph and options for a local scheduler, and what has to stay alive."""
    session = current_session(None)
    if session is None and wanted:
        session = _session_from_config(dask)
    if session is None or session.is_off:
        return expr, options, None
    if not (session.forced and can_read(get)):
        _say_local_once()
        return expr, options, None
    catalog, in_process = partial(local_catalog, session), runs_in_threads(get)
    new, encoder = _proxied(expr, keys, session, catalog, in_process=in_process)
    if encoder is not None:
        options = reading_options(get, options, catalog())
    return new, options, encoder


def _after_other_passes(expr: Expr, keys: Iterable[Any]) -> tuple[Expr, bool]:
    """Apply what the user has configured; whether :func:`optimize` is part of it."""
    wanted = False
    for optimization in dask.config.get("optimizations", None) or ():
        if optimization is optimize:
            wanted = True
        else:
            # What it raises is the user's to see.
            expr = expressions.apply(optimization, expr, list(keys))
    return expr, wanted


def _wanted_locally() -> bool:
    return bool(dask.config.get("optimizations", None)) or (
        current_session(None) is not None
    )


def _proxied(
    expr: Expr,
    keys: Iterable[Any],
    session: Session,
    catalog: Callable[[], Catalog | None],
    *,
    in_process: bool = False,
) -> tuple[Expr, Encoder | None]:
    """An expression with nodes for what is large, and what holds the objects of these."""
    threshold = session.settings.threshold
    if isinstance(expr, _MapExpr):
        threshold = min(threshold, MAP_KEYWORD_NBYTES)
    weight = weigh(contents(expr), threshold)
    encoder = _encoder_for(session, catalog, threshold, weight)
    if encoder is None:
        return expr, None
    try:
        prepared = expressions.prepared(expr)
        if prepared is not expr:
            # The partitions of a large frame may be small.
            weight = weigh(contents(prepared), threshold)
            encoder.pack = weight.small > large_graph()
        search = Search(encoder.at_least, in_process, needed_keys(prepared, keys))
        return _stored(search, search.expression(prepared), encoder), encoder
    except BaseException:
        encoder.abandon()
        raise


def _encoder(client: Client | None, things: Iterable[Any]) -> Encoder | None:
    session = current_session(client) or _session_from_config(client or dask)
    if client is not None:
        catalog: Callable[[], Catalog | None] = partial(session.catalog, client)
    elif session.forced:
        catalog = partial(local_catalog, session)
    else:
        _say_local_once()
        return None
    threshold = session.settings.threshold
    return _encoder_for(session, catalog, threshold, weigh(things, threshold))


def _encoder_for(
    session: Session,
    catalog: Callable[[], Catalog | None],
    threshold: int,
    weight: Weight,
) -> Encoder | None:
    """What stores values for a graph; None if nothing in it is to be stored."""
    pack = weight.small > large_graph()
    if weight.largest < threshold and not pack and not weight.proxies:
        return None
    opened = catalog()
    if opened is None:
        return None
    encoder = session.encoder(opened, threshold, pack)
    encoder.stored += _owners(weight.proxies)
    return encoder


def _session_from_config(owner: Any) -> Session:
    session = _config_sessions.get(owner)
    settings = Settings.resolve()
    if session is None or session.settings != settings:
        session = _config_sessions[owner] = Session(settings)
    return session


def _current_client() -> Client | None:
    try:
        return Client.current()
    except ValueError:
        return None


def _say_local_once() -> None:
    global _said_local
    if not _said_local:
        _said_local = True
        logger.info(
            "daskps is left off for Dask's local schedulers, where values do not travel. "
            "Give a store (daskps.proxy_graph(store='shm://')) to have them stored all "
            "the same."
        )
