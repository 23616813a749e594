"""A gateway of dask-gateway, which starts clusters on its own host, as its own user.

``LocalBackend``, which starts them as other users, fails in 2026.3.0: it changes the owners
of files whose names are single letters.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from deployments import answers, environment, service, wait_for
from processes import VARIABLES

from benchmarks.cluster import free_port
from benchmarks.hosts import Host

#: The port at which clients reach everything.
PORT = 8000

_CONFIGURATION = """
c.DaskGateway.address = "127.0.0.1:{api}"
c.DaskGateway.backend_class = "dask_gateway_server.backends.local.UnsafeLocalBackend"
c.DaskGateway.authenticator_class = "dask_gateway_server.auth.SimpleAuthenticator"
c.Proxy.address = "{address}:{port}"
c.ClusterConfig.scheduler_cmd = {dask} + ["distributed.cli.dask_scheduler"]
c.ClusterConfig.worker_cmd = {dask} + ["distributed.cli.dask_worker"]
c.ClusterConfig.worker_memory = "1 G"
c.ClusterConfig.environment = {variables}
c.LocalBackend.clusters_directory = "{clusters}"
c.LocalBackend.inherited_environment = ["PATH", "PYTHONPATH"]
"""


@contextlib.contextmanager
def gateway(
    directory: Path, host: Host | None = None, memory: str | None = None
) -> Iterator[str]:
    """Run a gateway; its address.

    Parameters
    ----------
    directory
        For its settings and logs.
    host
        On which it runs; None: this one, at a port that is free.
    memory
        Where its clusters have their shared memory; None: where this process has.
    """
    address = "127.0.0.1" if host is None else host.address
    port = free_port() if host is None else PORT
    here = environment()
    variables = {name: here[name] for name in (*VARIABLES, "DASK_DASKPS__THRESHOLD")}
    if memory is not None:
        variables = {**variables, VARIABLES[0]: memory, VARIABLES[1]: "null"}
    clusters = tempfile.mkdtemp(prefix="clusters-of-tests-")
    file, log = directory / "gateway.py", directory / "gateway.log"
    file.write_text(
        _CONFIGURATION.format(
            api=free_port(),
            address=address,
            port=port,
            dask=[sys.executable, "-m"],
            variables=variables,
            clusters=clusters,
        )
    )
    command = [sys.executable, "-m", "dask_gateway_server", "--config", str(file)]
    try:
        with service(*command, log=log, host=host) as process:
            wait_for(lambda: answers(port, address, host), process, log)
            yield f"http://{address}:{port}"
    finally:
        shutil.rmtree(clusters)
