"""Redis servers for tests: processes of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator

import pytest
import redis
import trustme
from processes import PATIENCE, servers
from redis.backoff import NoBackoff
from redis.retry import Retry

from benchmarks.cluster import free_port
from benchmarks.redis_server import binary


class RedisServer:
    """A server with a password.

    Attributes
    ----------
    url
        With the password.
    admin
        A client of redis-py.
    """

    def __init__(self, *, tls: bool = False, options: tuple[str, ...] = ()):
        path = binary(tls=tls)
        if path is None:
            message = f"no redis-server{' with TLS' if tls else ''} is installed"
            # Where everything is to be tested, nothing may be missing.
            (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
        self.directory = tempfile.mkdtemp(prefix="redis-of-tests-")
        self.password = "s3cret-pass/word"
        self.port = free_port()
        quoted = self.password.replace("/", "%2F")
        self.url = f"redis://:{quoted}@127.0.0.1:{self.port}/0"
        self._command = [
            *(path, "--bind", "127.0.0.1", "--dir", self.directory),
            *("--requirepass", self.password, "--save", "", "--daemonize", "no"),
            *("--port", "0" if tls else str(self.port), *options),
        ]
        given = {}
        if tls:
            self._make_certificates()
            authority = os.path.join(self.directory, "ca.pem")
            self.url = (
                f"{self.url.replace('redis:', 'rediss:')}?ssl_ca_certs={authority}"
            )
            given = {"ssl": True, "ssl_ca_certs": authority}
        self.admin = redis.Redis(
            host="127.0.0.1",
            port=self.port,
            password=self.password,
            retry=Retry(NoBackoff(), 0),
            **given,
        )

    def _make_certificates(self) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(os.path.join(self.directory, "ca.pem"))
        server = authority.issue_cert("127.0.0.1")
        names = [os.path.join(self.directory, f"server.{x}") for x in ("pem", "key")]
        server.cert_chain_pems[0].write_to_path(names[0])
        server.private_key_pem.write_to_path(names[1])
        self._command += [
            *("--tls-port", str(self.port), "--tls-auth-clients", "no"),
            *("--tls-cert-file", names[0], "--tls-key-file", names[1]),
        ]

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with open(os.path.join(self.directory, "log"), "ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        servers.add(self.process.pid)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.admin.ping()
                return
            except redis.ConnectionError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def stop(self, *, save: bool = False) -> None:
        """Stop it; with `save`, it has its keys again when it is started."""
        self.admin.shutdown(save=save, nosave=not save)
        self.process.wait(PATIENCE)
        servers.discard(self.process.pid)

    def restart(self) -> None:
        """Stop it and start it; it keeps its keys."""
        self.stop(save=True)
        self.start()

    def close(self) -> None:
        """Stop it for ever."""
        self.admin.close()
        self.process.kill()
        self.process.wait()
        servers.discard(self.process.pid)
        shutil.rmtree(self.directory)


@contextlib.contextmanager
def redis_server(**kwargs) -> Iterator[RedisServer]:
    """A server for a block."""
    server = RedisServer(**kwargs)
    try:
        server.start()
        yield server
    finally:
        server.close()
