"""The one place through which every graph goes on its way out. Runs on the client."""

from __future__ import annotations

import logging
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from queue import Queue
from typing import Any

import dask
from distributed import Client

from daskps.client.events import sent_inline
from daskps.client.in_task import task_session
from daskps.client.link import ClusterLink
from daskps.client.literals import Literals
from daskps.client.local import can_read, local_catalog, reading_options
from daskps.client.plan import Plan, owners_of, plan_for, store_found
from daskps.client.scatter import scatter
from daskps.client.session import Session, current_session
from daskps.client.watching import is_watched, show
from daskps.dask_private.connections import families_allowed
from daskps.dask_private.graphs import MAP_KEYWORD_NBYTES, Expr, _MapExpr
from daskps.dask_private.hooks import (
    Submission,
    hook_clients,
    hook_gather,
    hook_local_schedulers,
    hook_scatter,
    runs_in_threads,
)
from daskps.exceptions import DaskpsError
from daskps.graph import expressions
from daskps.graph.census import weigh
from daskps.graph.contents import contents, graph_contents
from daskps.graph.findings import Findings
from daskps.graph.search import Search
from daskps.lazy import loaded
from daskps.objects.cache import Cache
from daskps.objects.catalog import Catalog
from daskps.objects.encoder import Encoder
from daskps.references.proxies import is_proxy, register
from daskps.safety_net import fell_back
from daskps.settings import Settings

logger = logging.getLogger(__name__)

# What a task takes in a graph besides its literals (bytes), at most.
TASK_NBYTES = 1 << 11

# For Dask's warning of a large graph, where no session is on.
HINT = (
    "daskps.explain(...) says which values make it so large, where they come from and "
    "what to do."
)

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
        plan = _plan_of_pass(_current_client(), graph_contents(dsk))
        if plan is None:
            return dsk
        new, _ = plan.carry_out(lambda search: search.graph(dsk))
    except Exception as e:
        fell_back(e, "replace what is large in a graph of type", dsk)
        return dsk
    return new


def _before_submission(client: Client, expr: Expr, keys: Iterable[Any]) -> Submission:
    if client.status == "closed":
        return Submission(expr, expr)  # Dask says so
    try:
        show(expr, keys)
        _know_owned_results()
    except Exception as e:
        fell_back(e, "look at an expression of type", expr)
    expr, wanted = _after_other_passes(expr, keys)
    try:
        return _for_cluster(client, expr, keys, wanted)
    except Exception as e:
        fell_back(e, "replace what is large in an expression of type", expr)
        return Submission(expr, expr)


def _know_owned_results() -> None:
    """Have results of a ``StoreExecutor`` sent as they should, if this process has one."""
    if loaded("proxystore.store.executor"):
        from daskps.references import owned

        owned.register()


def _submission_failed(error: Exception, expr: Expr) -> None:
    fell_back(error, "have Dask submit an expression of type", expr)


def _for_cluster(
    client: Client, expr: Expr, keys: Iterable[Any], wanted: bool
) -> Submission:
    """A graph for a distributed client, which Dask's configuration may want treated."""
    session = current_session(client) or task_session(client)
    if session is None and wanted:
        session = _session_from_config(client)
    if session is None:
        return _outside_sessions(client, expr)
    if not session.covers_results(client) and not client.asynchronous:
        session.catalog(client)  # a client that was not there when the session began
    return _in_session(client, expr, keys, session)


def _in_session(
    client: Client, expr: Expr, keys: Iterable[Any], session: Session
) -> Submission:
    literals = Literals.of(client)
    weight = weigh(contents(expr))
    threshold = _threshold(session, expr)
    pack_from = literals.pack_from(weight, threshold)
    catalog = partial(session.catalog, client)
    plan = plan_for(session, catalog, threshold, weight, pack_from)
    if plan is None:
        if session.sends_inline(client):
            return _outside_sessions(client, expr)
        new, encoder, inline = expr, None, weight.nbytes
    else:
        new, encoder = plan.for_expression(expr, keys)
        inline = plan.inline_nbytes + encoder.kept_nbytes
    literals.sent(keys, weight, inline)
    # Handles are let go only after the graph is on its way.
    submission = Submission(new, expr, encoder)
    if encoder is not None and encoder.refused:
        sent_inline(client, encoder.refused)
        return submission

    def by_pickling() -> tuple[Expr, Any]:
        """What Dask has pickled is larger than it should be: look at each value again."""
        opened = catalog()
        if opened is None:
            return expr, None
        plan = Plan(session, opened, threshold, weight, pack_from).by_pickling()
        return plan.for_expression(expr, keys)

    submission.expected_nbytes = inline + threshold + TASK_NBYTES * len(weight.things)
    submission.if_larger = by_pickling
    return submission


def _outside_sessions(client: Client, expr: Expr) -> Submission:
    """A graph may have what was stored within a session, or by :func:`daskps.proxy`."""
    catalog = ClusterLink.of(client).holding()
    if catalog is None:
        return Submission(expr, expr, hint=HINT)
    weight = weigh(contents(expr))
    if not weight.proxies:
        return Submission(expr, expr, hint=HINT)
    encoder = Encoder(catalog, Cache(0), sys.maxsize)
    encoder.stored += owners_of(weight.proxies)
    search = Search(Findings(encoder.at_least))
    replacement = search.expression(expressions.prepared(expr))
    return Submission(store_found(search, replacement, encoder), expr, encoder)


def _threshold(session: Session, expr: Expr) -> int:
    threshold = session.settings.threshold
    return (
        min(threshold, MAP_KEYWORD_NBYTES) if isinstance(expr, _MapExpr) else threshold
    )


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
        session = _session_to_scatter(client, data)
    except Exception as e:
        fell_back(e, "find the session of", client)
        session = None
    if session is None:
        return plain(client, data, **options)
    asynchronous = options.pop("asynchronous", None)
    return client.sync(
        _scattered, client, plain, session, data, options, asynchronous=asynchronous
    )


def _session_to_scatter(client: Client, data: Any) -> Session | None:
    """In which session this is scattered; None: as in plain Dask, or refused by it."""
    # A proxy has the methods of an iterator.
    if not is_proxy(data) and isinstance(data, (Iterator, Queue)):
        return None
    allowed, _ = families_allowed(client)
    if allowed is not None and "pickle" not in allowed:
        return None
    return current_session(client) or task_session(client)


async def _scattered(
    client: Client, plain: Callable[..., Any], session: Session, data: Any, options: Any
) -> Any:
    try:
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
    try:
        show(expr, keys)
    except Exception as e:
        fell_back(e, "look at an expression of type", expr)
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
    catalog = partial(local_catalog, session)
    plan = plan_for(session, catalog, _threshold(session, expr), weigh(contents(expr)))
    if plan is None:
        return expr, options, None
    new, encoder = plan.for_expression(expr, keys, in_process=runs_in_threads(get))
    return new, reading_options(get, options, catalog()), encoder


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
    configured = bool(dask.config.get("optimizations", None))
    return configured or current_session(None) is not None or is_watched()


def _plan_of_pass(client: Client | None, things: Iterable[Any]) -> Plan | None:
    session = current_session(client) or _session_from_config(client or dask)
    if client is not None:
        catalog: Callable[[], Catalog | None] = partial(session.catalog, client)
    elif session.forced:
        catalog = partial(local_catalog, session)
    else:
        _say_local_once()
        return None
    return plan_for(session, catalog, session.settings.threshold, weigh(things))


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
