"""Where daskps is called on the way of a graph, a result, or scattered data.

Checked with dask and distributed 2025.4.0 and 2026.8.0. What is used:

``distributed.Client._graph_to_futures(expr, keys, ...)``
    Where ``compute``, ``persist``, ``get``, ``submit`` and ``map`` meet, before the graph
    is pickled. Keys are fixed by then.
``distributed.client.serialize(x, ...)``
    Called by it alone in that module, to pickle the expression; before the size is
    warned of, and before anything is sent.
``distributed.client.warnings.warn(message)``
    How it warns of a large graph, and how the message begins.
``distributed.Client._gather_remote(...)``
    Fetches results. What it returns with status "error" is fetched again.
``dask.base.get_scheduler``
    Where ``dask.compute`` and ``dask.persist`` find a local scheduler.
``dask.multiprocessing.get(func_loads=)``, ``dask.local.get_async(loads=)``
    Called in child processes before each task, on what describes it.
``distributed.Client._start(...)``, ``_close(...)``
    Called when a client connects for the first time, and when it is closed.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import cloudpickle
import dask.base
import dask.local
import dask.multiprocessing
import dask.threaded
import distributed
from dask._expr import Expr
from distributed.utils import nbytes


@dataclass
class Submission:
    """What is to be submitted.

    Attributes
    ----------
    expr
        The expression.
    otherwise
        The one to submit if that fails.
    alive
        Whatever has to stay alive until it is on its way.
    expected_nbytes
        What it takes when it is pickled, at most; None: any size will do.
    if_larger
        Gives what to submit if it takes more than that, and what has to stay alive.
    hint
        What is said besides, if Dask warns that the graph is large.
    """

    expr: Expr
    otherwise: Expr
    alive: Any = None
    expected_nbytes: int | None = None
    if_larger: Callable[[], tuple[Expr, Any]] | None = None
    hint: str = ""


#: What Dask's warning of a large graph begins with.
LARGE_GRAPH = "Sending large graph of size"

#: Called with client, expression and keys.
BeforeSubmission: TypeAlias = Callable[
    [distributed.Client, Expr, Iterable[Any]], Submission
]
#: The same for a local scheduler, given the scheduler's ``get`` and the options for it;
#: gives the options to call it with, too.
BeforeLocal: TypeAlias = Callable[
    [Callable[..., Any], Expr, Iterable[Any], dict[str, Any]],
    tuple[Expr, dict[str, Any], Any],
]


def hook_clients(
    before: BeforeSubmission, failed: Callable[[Exception, Expr], None]
) -> None:
    """Call `before` whenever a client is about to submit a graph.

    Parameters
    ----------
    before
        The hook.
    failed
        Given the error and the expression if that could not be submitted, but the other
        one could. Nothing is sent before the whole expression is pickled.
    """
    original = distributed.Client._graph_to_futures

    @functools.wraps(original)
    def _graph_to_futures(
        self: distributed.Client, expr: Any, keys: Any, *args: Any, **kwargs: Any
    ) -> Any:
        # Client.recreate_task_locally passes a dict.
        if not isinstance(expr, Expr):
            return original(self, expr, keys, *args, **kwargs)
        submission = before(self, expr, keys)
        _expected.expr = submission.expr
        _expected.nbytes = submission.expected_nbytes
        _expected.hint = submission.hint
        try:
            return original(self, submission.expr, keys, *args, **kwargs)
        except _LargerError as e:
            failure: Exception = e
        except Exception as e:
            if submission.expr is submission.otherwise:
                raise
            failure = e
        finally:
            _expected.expr = _expected.nbytes = None
            _expected.hint = ""
        try:
            if isinstance(failure, _LargerError) and submission.if_larger is not None:
                try:
                    submission.expr, submission.alive = submission.if_larger()
                    return original(self, submission.expr, keys, *args, **kwargs)
                except Exception as e:
                    failure = e
            # What plain Dask cannot submit either raises again.
            futures = original(self, submission.otherwise, keys, *args, **kwargs)
            failed(failure, submission.expr)
            return futures
        finally:
            del failure  # it would keep itself, and the graph

    distributed.Client._graph_to_futures = _graph_to_futures
    _watch_sizes()
    distributed.client.warnings = _Warnings()


class _LargerError(Exception):
    """An expression takes more bytes than was expected; nothing is sent."""


#: The expression that this thread submits, and what it takes at most.
_expected = threading.local()


def _watch_sizes() -> None:
    original = distributed.client.serialize

    @functools.wraps(original)
    def serialize(x: Any, *args: Any, **kwargs: Any) -> Any:
        header, frames = original(x, *args, **kwargs)
        at_most = getattr(_expected, "nbytes", None)
        expected = at_most is not None and getattr(x, "data", None) is _expected.expr
        if expected and sum(map(nbytes, frames)) > at_most:
            raise _LargerError
        return header, frames

    distributed.client.serialize = serialize


class _Warnings:
    """The module ``warnings``, as ``distributed.client`` uses it, with one more line."""

    def __getattr__(self, name: str) -> Any:
        return getattr(warnings, name)

    def warn(
        self,
        message: Any,
        category: Any = None,
        stacklevel: int = 1,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        hint = getattr(_expected, "hint", "")
        if hint and isinstance(message, str) and message.startswith(LARGE_GRAPH):
            message = f"{message}\n{hint}"
        # From the line in Dask that warns, as before.
        warnings.warn(message, category, stacklevel + 1, *args, **kwargs)


def hook_gather(
    before: Callable[[distributed.Client], bool],
    failed: Callable[[distributed.Client, Exception], bool],
) -> None:
    """Call `before` when a client fetches results, and `failed` if that fails.

    Parameters
    ----------
    before
        Given the client; says whether a failure is to be told.
    failed
        Given the client and the error; says whether to fetch the results again.
    """
    original = distributed.Client._gather_remote

    @functools.wraps(original)
    async def _gather_remote(
        self: distributed.Client, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        tell = before(self)
        try:
            results: dict[str, Any] = await original(self, *args, **kwargs)
            return results
        except Exception as e:
            if not tell or not failed(self, e):
                raise
            # Whoever waits for this batch asks for his results again.
            return {"status": "error", "keys": []}

    distributed.Client._gather_remote = _gather_remote


def hook_scatter(scatter: Callable[..., Any]) -> None:
    """Call `scatter` with the client, Dask's own method and the arguments instead."""
    original = distributed.Client.scatter

    @functools.wraps(original)
    def scatter_after_hook(
        self: distributed.Client, data: Any, *args: Any, **kwargs: Any
    ) -> Any:
        arguments = inspect.signature(original).bind(self, data, *args, **kwargs)
        del arguments.arguments["self"], arguments.arguments["data"]
        return scatter(self, original, data, **arguments.arguments)

    distributed.Client.scatter = scatter_after_hook


def hook_local_schedulers(before: BeforeLocal, wanted: Callable[[], bool]) -> None:
    """Call `before` whenever a local scheduler is about to run a graph.

    Only ``dask.compute`` and ``dask.persist`` get the hooked function. Others ask which
    scheduler it is, and compare: Dask itself does, to choose a lock that works across
    processes (``dask.utils.get_scheduler_lock``), and xarray.

    Parameters
    ----------
    before
        The hook.
    wanted
        While this is False, Dask's own function is given out, untouched.
    """
    original = dask.base.get_scheduler
    run = {inspect.unwrap(f).__code__ for f in (dask.base.compute, dask.base.persist)}

    @functools.wraps(original)
    def get_scheduler(*args: Any, **kwargs: Any) -> Any:
        get = original(*args, **kwargs)
        client = getattr(get, "__self__", None)
        if get is None or isinstance(client, distributed.Client):
            return get
        if sys._getframe(1).f_code not in run or not wanted():
            return get

        @functools.wraps(get)
        def get_after_hook(dsk: Any, keys: Any, **kwargs: Any) -> Any:
            if isinstance(dsk, Expr):
                dsk, kwargs, _alive = before(get, dsk, keys, kwargs)
            return get(dsk, keys, **kwargs)

        if client is not None:
            # A scheduler of another kind, which Dask asks for its persist method.
            get_after_hook.__self__ = client  # type: ignore[attr-defined]
        return get_after_hook

    dask.base.get_scheduler = get_scheduler


def runs_in_threads(get: Callable[..., Any]) -> bool:
    """Whether this is the ``get`` of a scheduler whose tasks run in this process."""
    return get in (dask.threaded.get, dask.local.get_sync)


def loads_in_processes(get: Callable[..., Any], options: dict[str, Any]) -> Any:
    """How a scheduler that may run tasks in other processes unpickles there.

    Returns
    -------
    tuple of str and callable, or None
        The option of `get` that says so, and what applies if it is not changed. None for
        a scheduler that is not known.
    """
    if get is dask.multiprocessing.get:
        configured = dask.config.get("func_loads", None) or cloudpickle.loads
        return "func_loads", options.get("func_loads") or configured
    if isinstance(get, functools.partial) and get.func is dask.local.get_async:
        # An executor, which pickles by itself.
        return "loads", options.get("loads") or dask.local.identity
    return None


class HookedClient(distributed.Client):
    """A client that says when it has connected, and when it is about to close."""

    async def connected(self) -> None:
        """The client has connected for the first time."""

    def closing(self) -> None:
        """The client is about to close."""

    async def _start(self, *args: Any, **kwargs: Any) -> Any:
        result = await super()._start(*args, **kwargs)
        if self.status == "running":
            try:
                await self.connected()
            except BaseException:
                # Nobody else can: the constructor fails, too.
                await self._close(fast=True)
                raise
        return result

    async def _close(self, *args: Any, **kwargs: Any) -> Any:
        self.closing()
        return await super()._close(*args, **kwargs)
