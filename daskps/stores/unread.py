"""ProxyStore's proxies without what they were made from. Runs everywhere.

A proxy is made with its object at hand, so that it knows the object's type and hash.
"""

from __future__ import annotations

from typing import Any

from proxystore.proxy import Proxy


def unread(made: Any) -> Any:
    """A proxy without its target: it is what was stored, even if the object changes.

    Type and hash of the object stay known to it, so that asking does not read the object.
    What is no proxy, as None, which ProxyStore makes none of, is given back.
    """
    if issubclass(type(made), Proxy):
        del made.__proxy_wrapped__
        forget_frames(made)
    return made


def forget_frames(made: Proxy[Any]) -> None:
    """Have a proxy not keep alive what was at hand where it was made.

    A proxy of what cannot be hashed, such as an array, keeps the error that said so, and
    with its traceback the frames of all callers. The object, a future or a result in one of
    them would stay until Python's garbage collector finds the cycle.
    """
    error = object.__getattribute__(made, "__proxy_default_hash__")
    if isinstance(error, BaseException):
        error.__traceback__ = None
