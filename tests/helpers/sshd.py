"""An SSH server on this host, into which this user may log in with a key."""

from __future__ import annotations

import contextlib
import getpass
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deployments import DAEMONS, answers, environment, service, wait_for
from processes import VARIABLES

from benchmarks.cluster import free_port

_CONFIGURATION = """
ListenAddress 127.0.0.1
Port {port}
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/user_key.pub
PidFile none
PasswordAuthentication no
UsePAM no
StrictModes no
SetEnv {variables}
"""


@contextlib.contextmanager
def sshd(directory: Path) -> Iterator[dict[str, Any]]:
    """Run a server; how ``asyncssh`` logs in there.

    Parameters
    ----------
    directory
        For its keys, settings and log.
    """
    port = free_port()
    for name in "host_key", "user_key":
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name]
        subprocess.run(make, check=True)
    # A session has none of our variables, as on another host.
    names = [*VARIABLES, "PYTHONPATH", "DASK_DASKPS__THRESHOLD"]
    passed = " ".join(f'"{name}={environment()[name]}"' for name in names)
    file, log = directory / "sshd_config", directory / "sshd.log"
    file.write_text(
        _CONFIGURATION.format(port=port, directory=directory, variables=passed)
    )
    os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    command = [f"{DAEMONS}/sshd", "-D", "-e", "-f", str(file)]
    with service(*command, log=log) as process:
        wait_for(lambda: answers(port), process, log)
        yield {
            "port": port,
            "username": getpass.getuser(),
            "client_keys": [str(directory / "user_key")],
            "known_hosts": None,
        }
