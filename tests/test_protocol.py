"""What processes of a cluster say to each other, and the number that it has.

``tests/protocol.txt`` is what it was when :data:`daskps.versions.PROTOCOL` was given its
number: names of messages, what their handlers take, and the classes and functions that are
found by their names when something is unpickled elsewhere, with their fields.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed.diagnostics.plugin import SchedulerPlugin, WorkerPlugin

import daskps.references
from daskps import messages, versions
from daskps.versions import PROTOCOL, VERSION, VersionError, check_version

pytestmark = pytest.mark.core

FILE = Path(__file__).with_name("protocol.txt")

#: Classes whose methods answer messages.
ANSWERING = (
    "scheduler.lifetimes.LifetimePlugin",
    "scheduler.publications.Publications",
    "scheduler.returns.Returns",
    "worker.calls.Calls",
    "worker.plugin.WorkerStorePlugin",
)
#: Modules whose classes are pickled, besides all of ``daskps.references``.
PICKLED = (
    "scheduler.lifetimes",
    "serialize.sent",
    "serialize.values",
    "settings",
    "stores.connectors.config",
    "stores.keys",
    "stores.peer.settings",
    "stores.requests",
    "stores.secret",
    "stores.store",
    "worker.plugin",
)
#: Functions that a client has called on the scheduler or on workers.
CALLED = (
    "stores.probe.look",
    "stores.probe.look_from_scheduler",
    "worker.plugin.when_open",
    "worker.reach.keep_inline",
    "worker.reach.take_part",
    "worker.reach.try_from_scheduler",
    "worker.reach.try_hosts",
)


def protocol() -> str:
    """All of it, a line each."""
    lines = [f"protocol {PROTOCOL}", *_messages(), *sorted(_answering())]
    return "\n".join([*lines, *sorted(_pickled())]) + "\n"


def _messages() -> Iterator[str]:
    for name, value in vars(messages).items():
        if name.isupper():
            yield f"message {value!r}"


def _answering() -> Iterator[str]:
    hooks = {*dir(SchedulerPlugin), *dir(WorkerPlugin)}
    for path in ANSWERING:
        module, _, name = path.rpartition(".")
        cls = getattr(importlib.import_module(f"daskps.{module}"), name)
        for method, value in vars(cls).items():
            if inspect.isfunction(value) and method not in hooks and method[0] != "_":
                yield f"answer {path}.{method}({_parameters(value)})"


def _pickled() -> Iterator[str]:
    modules = [importlib.import_module(f"daskps.{name}") for name in PICKLED]
    for found in pkgutil.iter_modules(daskps.references.__path__, "daskps.references."):
        modules.append(importlib.import_module(found.name))
    for module in modules:
        for name, value in vars(module).items():
            public = inspect.isclass(value) and name[0] != "_"
            # A protocol of Python has no instances of its own.
            if (
                public
                and value.__module__ == module.__name__
                and not getattr(value, "_is_protocol", False)
            ):
                yield f"pickled {module.__name__}.{name}({_fields(value)})"
    for path in CALLED:
        module_name, _, name = path.rpartition(".")
        function = getattr(importlib.import_module(f"daskps.{module_name}"), name)
        yield f"called daskps.{path}({_parameters(function)})"


def _fields(cls: Any) -> str:
    """What an instance of a class has, but for what it makes where it arrives."""
    if dataclasses.is_dataclass(cls):
        names = [field.name for field in dataclasses.fields(cls)]
    else:
        names = getattr(cls, "_fields", None) or _parameters(cls.__init__).split(", ")
    return ", ".join(name for name in names if name != "self")


def _parameters(function: Any) -> str:
    return ", ".join(name for name in inspect.signature(function).parameters)


def test_what_is_said_is_what_the_number_stands_for():
    assert protocol() == FILE.read_text(), (
        "What processes say to each other is not what it was. If a release has this "
        "protocol number, raise daskps.versions.PROTOCOL. Then write the file anew: "
        "python tests/test_protocol.py"
    )


def test_releases_with_one_protocol_may_meet():
    check_version(("0.0.7", PROTOCOL), "this test")


def test_others_may_not():
    with pytest.raises(VersionError) as error:
        check_version(("9.9.9", PROTOCOL + 1), "worker tcp://10.0.0.1:1")
    assert str(error.value).startswith(
        f"The client has daskps 9.9.9 (protocol {PROTOCOL + 1}), worker "
        f"tcp://10.0.0.1:1 has daskps {daskps.__version__} (protocol {PROTOCOL})."
    )
    assert "pip install daskps==9.9.9" in str(error.value)


def test_the_version_is_of_plain_types():
    """Any protocol has to be able to read that of another one."""
    assert [type(part) for part in VERSION] == [str, int]
    assert (versions.__version__, PROTOCOL) == VERSION


if __name__ == "__main__":
    FILE.write_text(protocol())
