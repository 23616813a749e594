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
from daskps.graph.culling import needed_keys
from daskps.graph.graphs import Collector, GraphPass
from daskps.graph.graphs import contents as graph_contents
from daskps.objects.cache import Cache
from daskps.objects.encoder import Encoder
from daskps.references.nodes import ProxyNode
from daskps.references.proxies import is_proxy, register
from daskps.safety_net import fell_back
from daskps.settings import Settings

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
        new = GraphPass(encoder).graph(dsk)
        encoder.finish()
    except Exception as e:
        fell_back(e, "replace what is large in a graph of type", dsk)
        return dsk
    return new


def _before_submission(
    client: Client, expr: Expr, keys: Iterable[Any]
) -> tuple[Expr, Expr, Any]:
    alive: list[Any] = []
    if client.status == "closed":
        return expr, expr, alive  # Dask says so
    expr, wanted = _after_other_passes(expr, keys)
    try:
        return _for_cluster(client, expr, keys, wanted, alive), expr, alive
    except Exception as e:
        fell_back(e, "replace what is large in an expression of type", expr)
        return expr, expr, alive


def _submission_failed(error: Exception, expr: Expr) -> None:
    fell_back(error, "have Dask submit an expression of type", expr)


def _for_cluster(
    client: Client, expr: Expr, keys: Iterable[Any], wanted: bool, alive: list[Any]
) -> Expr:
    """A graph for a distributed client, which Dask's configuration may want treated."""
    session = current_session(client) or task_session(client)
    if session is None and wanted:
        session = _session_from_config(client)
    if session is None:
        return _outside_sessions(client, expr, alive)
    if not session.covers_results(client) and not client.asynchronous:
        session.catalog(client)  # a client that was not there when the session began
    expr = _proxied(expr, keys, session, partial(session.catalog, client), alive)
    if not alive and session.sends_inline(client):
        return _outside_sessions(client, expr, alive)
    return expr


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
    except Exception as e:
        fell_back(e, "find the session of", client)
        session = None
    allowed, _ = families_allowed(client)
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
    catalog, alive = partial(local_catalog, session), list[Any]()
    in_process = runs_in_threads(get)
    new = _proxied(expr, keys, session, catalog, alive, in_process=in_process)
    if alive:
        options = reading_options(get, options, catalog())
    return new, options, alive


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
            encoder.pack = weight.small > large_graph()
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
