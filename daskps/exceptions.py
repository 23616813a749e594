"""The errors that daskps raises.

::

    DaskpsError
    ├── ConfigError           a setting is not valid            -> correct the setting
    ├── ClusterError          daskps is missing or differs on the cluster,
    │                         or the store cannot be seen there -> install, or other store
    └── StoreError            a store did not do what was asked
        ├── StoreFullError    no room left                      -> make room, or other store
        └── ObjectMissingError  not there, or not what was stored   -> submit again

All of them pickle, so that they reach the client from a worker.
"""

from __future__ import annotations


class DaskpsError(Exception):
    """Base of every error that daskps raises."""


class ConfigError(DaskpsError, ValueError):
    """A setting has a value that is not valid."""


class ClusterError(DaskpsError, RuntimeError):
    """The cluster's scheduler or workers cannot take part."""


class StoreError(DaskpsError, RuntimeError):
    """A store did not do what was asked of it."""


class StoreFullError(StoreError):
    """A store has no room for an object."""


class ObjectMissingError(StoreError):
    """An object that a task needs is not in its store, or is not what was stored.

    Attributes
    ----------
    unreadable
        The store, by name, that this process cannot read from, while others perhaps can.
        None: the object would be missing in any process.
    """

    unreadable: str | None = None
