"""Programs that make a cluster as users do, and services for as long as they run."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from processes import PATH, PATIENCE, eventually

from benchmarks.hosts import Host, RefusedError

#: Where the commands of packages are: as if the environment were active.
BIN = os.path.dirname(sys.executable)
#: Where Debian has daemons, which not every user's PATH has.
DAEMONS = "/usr/sbin"
#: For how long (seconds) a program and its cluster may take.
PATIENCE_OF_PROGRAMS = 10 * PATIENCE


def environment(**more: str) -> dict[str, str]:
    """For processes that import what the tests do."""
    path = os.pathsep.join([BIN, os.environ["PATH"], DAEMONS])
    return {**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join(PATH), **more}


def need(*names: str, commands: Sequence[str] = (), root: bool = False) -> None:
    """Skip the test if one of these packages or commands is missing, or it needs root."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    path = environment()["PATH"]
    missing += [name for name in commands if shutil.which(name, path=path) is None]
    if missing:
        pytest.skip(
            f"not installed: {', '.join(missing)} (tests/system/setup_deployments.sh)"
        )
    if root and os.geteuid():
        pytest.skip("only root can start this service")


def run(
    directory: Path,
    script: str,
    *arguments: str,
    launcher: Sequence[str] = (),
    env: dict[str, str] | None = None,
    host: Host | None = None,
) -> dict[str, Any]:
    """Run a script, which ends with ``say(try_on(client, ...))``; what it says.

    Parameters
    ----------
    directory
        Where it is written to, and runs.
    launcher
        A command that starts it, with its options.
    env
        Environment variables besides those of :func:`environment`.
    host
        On which it runs; None: this one.
    """
    file = directory / "script.py"
    file.write_text(script)
    start = subprocess.Popen if host is None else host.start
    command = [*launcher, sys.executable, str(file), *arguments]
    process = start(
        *([command] if host is None else command),
        cwd=directory,
        env=environment(**(env or {})),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=PATIENCE_OF_PROGRAMS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGABRT)
        output, errors = process.communicate()
        raise AssertionError(f"it does not end:\n{output}\n{errors}") from None
    assert process.returncode == 0, output + errors
    return said(output)


def said(output: str) -> dict[str, Any]:
    """What a program has said, among what others have."""
    lines = [line for line in output.splitlines() if line.startswith("{")]
    found: dict[str, Any] = json.loads(lines[-1])
    print(found)
    return found


@contextlib.contextmanager
def service(
    *command: str,
    log: Path,
    host: Host | None = None,
    env: dict[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A service that runs for a block, in the foreground.

    Parameters
    ----------
    host
        On which it runs; None: this one.
    """
    variables = environment(**(env or {}))
    with open(log, "ab") as output:
        streams = {"stdout": output, "stderr": output}
        if host is None:
            process = subprocess.Popen(command, env=variables, **streams)
        else:
            process = host.start(*command, env=variables, **streams)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(condition: Any, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for a service to answer; fails with its log if it has ended."""
    eventually(lambda: condition() or process.poll() is not None)
    assert process.poll() is None, f"it has ended:\n{log.read_text()}"
    assert condition(), f"it does not answer:\n{log.read_text()}"


def answers(port: int, address: str = "127.0.0.1", host: Host | None = None) -> bool:
    """Whether somebody listens on a port, seen from a host; None: from this one."""
    if host is not None:
        try:
            host.run("bash", "-c", f"< /dev/tcp/{address}/{port}")
        except RefusedError:
            return False
        return True
    with contextlib.suppress(OSError), socket.create_connection((address, port), 1):
        return True
    return False
