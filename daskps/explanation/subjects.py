"""What can be explained: collections, and calls of a client's methods."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from dask.base import is_dask_collection, unpack_collections
from dask.core import flatten
from distributed import Client

from daskps.dask_private.graphs import Expr, expression_of, mapped, submitted


class Subject(NamedTuple):
    """What would be submitted.

    Attributes
    ----------
    expr
        The expression.
    keys
        The keys that are wanted of it.
    """

    expr: Expr
    keys: list[Any]


_VALID = (
    "Dask collections (or lists, tuples and dictionaries of them), or a function or "
    "client.submit or client.map, with its arguments"
)


def subject(things: tuple[Any, ...], kwargs: dict[str, Any]) -> Subject:
    """What ``dask.compute``, or a client's method, would submit.

    Parameters
    ----------
    things, kwargs
        The arguments of :func:`daskps.explain`.

    Raises
    ------
    TypeError
        If they are something else.
    """
    first = things[0]
    if callable(first) and not is_dask_collection(first):
        called = _called(first, things[1:], kwargs)
        if called is not None:
            return called
        things = things[1:]
    elif kwargs:
        named = ", ".join(kwargs)
        raise TypeError(f"explain() takes {named}= only for a call: {_VALID}")
    for thing in things:
        if not _has_collections(thing):
            raise TypeError(f"explain() takes {_VALID}, not {type(thing).__name__}")
    collections, _ = unpack_collections(*things)
    expr = expression_of(collections)
    return Subject(expr, list(flatten(expr.__dask_keys__())))


def _called(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Subject | None:
    """What a call would submit; None if it takes collections."""
    name = _client_method(function)
    if name in ("compute", "persist"):
        return None
    if name == "map":
        options = _bound(Client.map, args, kwargs)
        expr = mapped(
            options["func"], options.get("iterables", ()), options.get("kwargs", {})
        )
        return Subject(expr, list(expr.keys))
    if name == "submit":
        options = _bound(Client.submit, args, kwargs)
        function = options["func"]
        args, kwargs = options.get("args", ()), options.get("kwargs", {})
    expr = submitted(function, args, kwargs)
    return Subject(expr, list(expr.operand("dsk")))


def _client_method(function: Callable[..., Any]) -> str | None:
    """Its name, if it is a method of a client."""
    owner = getattr(function, "__self__", None)
    name = getattr(function, "__name__", "")
    if isinstance(owner, Client) or function is getattr(Client, name, None):
        if name not in ("submit", "map", "compute", "persist"):
            raise TypeError(f"explain() takes {_VALID}, not Client.{name}")
        return name
    return None


def _bound(
    method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """A method's arguments, those that are the function's own apart from its options."""
    return inspect.signature(method).bind(None, *args, **kwargs).arguments


def _has_collections(thing: Any) -> bool:
    return bool(unpack_collections(thing)[0])
