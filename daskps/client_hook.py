"""The one place through which every graph goes on its way out. Runs on the client."""

from __future__ import annotations

import logging
import sys
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import dask
from distributed import Client

from daskps import client_expressions as expressions
from daskps.client_catalog import Cache
from daskps.client_census import Weight, weigh
from daskps.client_culling import needed_keys
from daskps.client_graphs import Collector, GraphPass
from daskps.client_graphs import contents as graph_contents
from daskps.client_link import ClusterLink
from daskps.client_local import can_read, local_catalog, reading_options
from daskps.client_scatter import scatter
from daskps.client_session import Session, current_session
from daskps.client_values import Encoder
from daskps.config import Settings, size
from daskps.dask_private import (
    Expr,
    _MapExpr,
    hook_clients,
    hook_gather,
    hook_local_schedulers,
    hook_scatter,
    runs_in_threads,
)
from daskps.proxy_node import ProxyNode
from daskps.transparent_proxies import register
from daskps.worker_session import task_session

logger = logging.getLogger(__name__)

# Dask makes a task of its own of each keyword of Client.map above this size (bytes, by
# dask.sizeof), with the bare keyword as its key: the second such map fails or hangs.
MAP_KEYWORD = 100_000

# Smaller values (bytes) are stored one after the other.
WORTH_A_THREAD = 1 << 20

#: For clients that use daskps.optimize through Dask's configuration.
_config_sessions: weakref.WeakKeyDictionary[Any, Session] = weakref.WeakKeyDictionary()
_said_local = False


def install() -> None:
    """Hook into Dask: done once, when daskps is imported."""
    hook_clients(_before_submission)
    hook_gather(
        lambda client: ClusterLink.of(client).before_gather(),
        lambda client, error: ClusterLink.of(client).gather_failed(error),
    )
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
    client = _current_client()
    encoder = _encoder(client, graph_contents(dsk))
    if encoder is None:
        return dsk
    dsk = GraphPass(encoder).graph(dsk)
    encoder.finish()
    return dsk


def _before_submission(
    client: Client, expr: Expr, keys: Iterable[Any]
) -> tuple[Expr, Any]:
    alive: list[Any] = []
    if client.status == "closed":
        return expr, alive  # Dask says so
    passes = dask.config.get("optimizations", None) or ()
    session = current_session(client) or task_session(client)
    if not passes and session is None:
        return _outside_sessions(client, expr, alive), alive
    for optimization in passes:
        if optimization is optimize:
            session = session or _session_from_config(client)
        else:
            expr = expressions.apply(optimization, expr, list(keys))
    if session is not None:
        if not session.covers_results(client) and not client.asynchronous:
            session.catalog(
                client
            )  # a client that was not there when the session began
        expr = _proxied(expr, keys, session, partial(session.catalog, client), alive)
    return expr, alive


def _outside_sessions(client: Client, expr: Expr, alive: list[Any]) -> Expr:
    """A graph may have what was stored within a session, or by :func:`daskps.proxy`."""
    catalog = ClusterLink.of(client).holding()
    if catalog is None:
        return expr
    weight = weigh(expressions.contents(expr), sys.maxsize)
    if not weight.proxies:
        return expr
    encoder = Encoder(catalog, Cache(0), sys.maxsize, pack=False)
    encoder.stored += _owners(weight.proxies)
    alive.append(encoder)
    expr = expressions.replace_large(expressions.prepared(expr), GraphPass(encoder))
    encoder.finish()
    return expr


def _owners(proxies: Iterable[Any]) -> list[Any]:
    """The handles that graph nodes carry, of those that were made in this process."""
    nodes = (node for node in proxies if isinstance(node, ProxyNode))
    return [owner for node in nodes for owner in node.value.owners]


def _scatter(
    client: Client, plain: Callable[..., Any], data: Any, **options: Any
) -> Any:
    session = current_session(client) or task_session(client)
    allowed = client.rpc.serializers
    if session is None or (allowed is not None and "pickle" not in allowed):
        return plain(client, data, **options)
    asynchronous = options.pop("asynchronous", None)
    return client.sync(
        scatter, client, plain, session, data, options, asynchronous=asynchronous
    )


def _before_local(
    get: Callable[..., Any], expr: Expr, keys: Iterable[Any], options: dict[str, Any]
) -> tuple[Expr, dict[str, Any], Any]:
    alive: list[Any] = []
    session = current_session(None)
    for optimization in dask.config.get("optimizations", None) or ():
        if optimization is optimize:
            session = session or _session_from_config(dask)
        else:
            expr = expressions.apply(optimization, expr, list(keys))
    if session is not None:
        if session.forced and can_read(get):
            expr = _proxied(
                expr,
                keys,
                session,
                lambda: local_catalog(session),
                alive,
                in_process=runs_in_threads(get),
            )
            if alive:
                options = reading_options(get, options, local_catalog(session))
        else:
            _say_local_once()
    return expr, options, alive


def _wanted_locally() -> bool:
    return bool(dask.config.get("optimizations", None)) or (
        current_session(None) is not None
    )


def _proxied(  # noqa: PLR0913
    expr: Expr,
    keys: Iterable[Any],
    session: Session,
    catalog: Callable[[], Any],
    alive: list[Any],
    *,
    in_process: bool = False,
) -> Expr:
    threshold = session.settings.threshold
    if isinstance(expr, _MapExpr):
        threshold = min(threshold, MAP_KEYWORD)
    weight = weigh(expressions.contents(expr), threshold)
    encoder = _encoder_for(session, catalog, threshold, weight)
    if encoder is None:
        return expr
    # Handles are let go only after the graph is on its way.
    alive.append(encoder)
    try:
        prepared = expressions.prepared(expr)
        if prepared is not expr:
            # The partitions of a large frame may be small.
            weight = weigh(expressions.contents(prepared), threshold)
            encoder.pack = weight.small > _large_graph()
        needed = needed_keys(prepared, keys)
        sizes: dict[int, tuple[Any, int]] = {}
        # What has made its tasks only now may have made many values of one.
        if weight.large > 1 or prepared is not expr:
            collector = Collector(max(threshold, WORTH_A_THREAD))
            first = GraphPass(collector, in_process, sizes, needed)
            expressions.replace_large(prepared, first)
            encoder.encode_all(collector.values)
        second = GraphPass(encoder, in_process, sizes, needed)
        expr = expressions.replace_large(prepared, second)
        encoder.finish()
    except BaseException:
        encoder.abandon()
        raise
    return expr


def _encoder(client: Client | None, contents: Iterable[Any]) -> Encoder | None:
    session = current_session(client) or _session_from_config(client or dask)
    if client is not None:
        catalog: Callable[[], Any] = partial(session.catalog, client)
    elif session.forced:
        catalog = partial(local_catalog, session)
    else:
        _say_local_once()
        return None
    threshold = session.settings.threshold
    return _encoder_for(session, catalog, threshold, weigh(contents, threshold))


def _encoder_for(
    session: Session,
    catalog: Callable[[], Any],
    threshold: int,
    weight: Weight,
) -> Encoder | None:
    """What stores values for a graph; None if nothing in it is to be stored."""
    pack = weight.small > _large_graph()
    if weight.largest < threshold and not pack and not weight.proxies:
        return None
    opened = catalog()
    if opened is None:
        return None
    encoder = session.encoder(opened, threshold, pack)
    encoder.stored += _owners(weight.proxies)
    return encoder


def _large_graph() -> int:
    """From which size on Dask warns of a large graph, in bytes."""
    key = "distributed.admin.large-graph-warning-threshold"
    return size(key, dask.config.get(key))


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
