"""SLURM on one node: this host."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from deployments import DAEMONS, environment, service, wait_for

from benchmarks.cluster import free_port

_CONFIGURATION = """
ClusterName=tests
SlurmctldHost={name}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket
CredType=cred/munge
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
SlurmctldParameters=enable_configless
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
KillWait=5
{more}
NodeName={name} NodeAddr=127.0.0.1 CPUs=8 RealMemory=8000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

#: Each job has a /dev/shm and a /tmp of its own, as sites configure it.
OWN_MEMORY = "JobContainerType=job_container/tmpfs\nPrologFlags=contain"
#: For temporary files that such jobs see.
OUTSIDE = "/var/tmp"


@contextlib.contextmanager
def slurm(directory: Path, more: str = "") -> Iterator[dict[str, str]]:
    """Run it; environment variables for its commands.

    Parameters
    ----------
    directory
        For its settings, state and logs.
    more
        Settings for ``slurm.conf``.
    """
    for name in "state", "spool":
        (directory / name).mkdir()
    configuration = _CONFIGURATION.format(
        name=socket.gethostname().split(".")[0],
        controller=free_port(),
        node=free_port(),
        directory=directory,
        more=more,
    )
    file = directory / "slurm.conf"
    file.write_text(configuration)
    variables = {"SLURM_CONF": str(file)}
    with contextlib.ExitStack() as stack:
        # Refused below /tmp and /dev/shm, which jobs do not see.
        base = tempfile.mkdtemp(prefix="containers-of-tests-", dir=OUTSIDE)
        stack.callback(shutil.rmtree, base, ignore_errors=True)
        containers = f"AutoBasePath=true\nBasePath={base}\n"
        (directory / "job_container.conf").write_text(containers)
        _munge(directory, stack)
        for name in "slurmctld", "slurmd":
            log = directory / f"{name}.log"
            command = (f"{DAEMONS}/{name}", "-D", "-f", str(file))
            process = stack.enter_context(service(*command, log=log))
        wait_for(lambda: _is_idle(variables), process, log)
        yield variables


def _munge(directory: Path, stack: contextlib.ExitStack) -> None:
    """Start the service by which SLURM's processes know each other."""
    key, log = directory / "munge.key", directory / "munged.log"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    options = [
        *("--foreground", "--force", "--num-threads", "2"),
        *("--key-file", key, "--socket", directory / "munge.socket"),
        *("--pid-file", directory / "munge.pid"),
        *("--seed-file", directory / "munge.seed", "--log-file", log),
    ]
    command = (f"{DAEMONS}/munged", *map(str, options))
    process = stack.enter_context(service(*command, log=directory / "munged.out"))
    socket = directory / "munge.socket"
    wait_for(socket.exists, process, directory / "munged.out")


def _is_idle(variables: dict[str, str]) -> bool:
    done = subprocess.run(
        ["sinfo", "--noheader", "--format=%t"],
        env=environment(**variables),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() == "idle"
