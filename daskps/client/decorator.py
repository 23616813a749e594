"""What ``@daskps.proxy_graph`` makes of each kind of function. Runs on the client.

The body of a generator runs in the context of whoever takes its values. If it simply
entered a block, that would be switched on for them too, between two values. So the session
is open for as long as the generator lives, and switched on for each step of its body.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import closing
from typing import Any, Protocol

from daskps.client.session import Session, activated


class Block(Protocol):
    """A context, of either kind, in which graphs are treated."""

    def session(self) -> Session:
        """A session like that of the context."""

    def __enter__(self) -> Any: ...

    def __exit__(self, *exc_info: Any) -> Any: ...

    async def __aenter__(self) -> Any: ...

    async def __aexit__(self, *exc_info: Any) -> Any: ...


def decorated(function: Any, block: Callable[[], Block]) -> Any:
    """A function whose body is in a block of its own at each call.

    Parameters
    ----------
    function
        A function, coroutine function, generator function or asynchronous generator
        function.
    block
        Makes a block.

    Raises
    ------
    TypeError
        If it is a class, or cannot be called.
    """
    if isinstance(function, type) or not callable(function):
        a_class = isinstance(function, type)
        name = f"the class {function.__qualname__}" if a_class else repr(function)
        raise TypeError(
            f"daskps.proxy_graph decorates functions, not {name}: decorate its methods, "
            "or write 'with daskps.proxy_graph():' around the code that computes"
        )
    for is_one, wrap in _KINDS:
        if is_one(function):
            return functools.wraps(function)(wrap(function, block))
    return functools.wraps(function)(_function(function, block))


def _function(function: Callable[..., Any], block: Callable[[], Block]) -> Any:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with block():
            return function(*args, **kwargs)

    return wrapper


def _coroutine(function: Callable[..., Any], block: Callable[[], Block]) -> Any:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        async with block():
            return await function(*args, **kwargs)

    return wrapper


def _generator(function: Callable[..., Any], block: Callable[[], Block]) -> Any:
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        body = function(*args, **kwargs)
        with closing(block().session()) as session:
            session.open()
            step, value = body.send, None
            while True:
                try:
                    with activated(session):
                        item = step(value)
                except StopIteration as end:
                    return end.value
                try:
                    step, value = body.send, (yield item)
                except GeneratorExit:
                    with activated(session):
                        body.close()
                    raise
                except BaseException as error:
                    step, value = body.throw, error

    return wrapper


def _async_generator(function: Callable[..., Any], block: Callable[[], Block]) -> Any:
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        body = function(*args, **kwargs)
        with closing(block().session()) as session:
            await session.open_async()
            step, value = body.asend, None
            while True:
                try:
                    with activated(session):
                        item = await step(value)
                except StopAsyncIteration:
                    return
                try:
                    step, value = body.asend, (yield item)
                except GeneratorExit:
                    with activated(session):
                        await body.aclose()
                    raise
                except BaseException as error:
                    step, value = body.athrow, error

    return wrapper


_KINDS: tuple[tuple[Callable[[Any], bool], Callable[..., Any]], ...] = (
    (inspect.iscoroutinefunction, _coroutine),
    (inspect.isgeneratorfunction, _generator),
    (inspect.isasyncgenfunction, _async_generator),
)
