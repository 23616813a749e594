"""Makes any function of daskps fail, wherever it is called from."""

from __future__ import annotations

import contextlib
import gc
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any


class InjectedError(Exception):
    """Raised in the place of a function of daskps."""


def functions(*modules: str) -> dict[str, types.FunctionType]:
    """All functions and methods of these modules and those below them, by full name."""
    found = {}
    # What a benchmark has frozen is not among the objects.
    gc.unfreeze()
    for thing in gc.get_objects():
        if type(thing) is not types.FunctionType:
            continue
        # Of a decorated one, the wrapper has the same name, but not the same code.
        module, name = thing.__module__ or "", thing.__code__.co_qualname
        inside = any(module == m or module.startswith(m + ".") for m in modules)
        # Not one of a module that a test has imported once more.
        inside &= thing.__globals__ is getattr(
            sys.modules.get(module), "__dict__", None
        )
        # Those defined within others come and go.
        if inside and "<" not in name:
            found[f"{module}.{name}"] = thing
    return found


def _failing(function: types.FunctionType) -> types.CodeType:
    """Code for a function that fails, with as many variables of its surroundings.

    Of the same kind, since Python 3.13 wants that: a coroutine fails when it is awaited, a
    generator when it is to give something.
    """
    n = len(function.__code__.co_freevars)
    names = [f"v{i}" for i in range(n)]
    flags = function.__code__.co_flags
    is_async = flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR)
    gives = flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR)
    source = [
        "def outer(InjectedError):",
        *(f"    {name} = None" for name in names),
        f"    {'async ' if is_async else ''}def inner(*args, **kwargs):",
        f"        {', '.join(names) or 'None'}",
        "        from faults_everywhere import InjectedError",
        "        raise InjectedError",
        *(["        yield"] if gives else []),
        "    return inner",
    ]
    scope: dict = {}
    exec("\n".join(source), scope)
    return scope["outer"](None).__code__


@contextlib.contextmanager
def failing(function: types.FunctionType) -> Iterator[None]:
    """Have a function fail for a block, in all threads."""
    code = function.__code__
    function.__code__ = _failing(function)
    try:
        yield
    finally:
        function.__code__ = code


_stack = contextlib.ExitStack()


def start(name: str) -> None:
    """Have a function of this process fail from now on, by its full name."""
    module = name.rpartition(".")[0]
    while module not in sys.modules:
        module = module.rpartition(".")[0]
    _stack.enter_context(failing(functions(module)[name]))


def stop() -> None:
    """Have all work again."""
    _stack.close()


@contextlib.contextmanager
def failing_elsewhere(run: Callable[..., Any], name: str) -> Iterator[None]:
    """The same in other processes, with ``Client.run`` or ``run_on_scheduler``."""
    run(start, name)
    try:
        yield
    finally:
        run(stop)
