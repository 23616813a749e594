"""Where people run Dask: each for real, on this host, with a program of a user's.

``tests/system/setup_deployments.sh`` installs what they need.
"""

from __future__ import annotations

import getpass
import json
import tempfile
from pathlib import Path

import pytest
from deployments import PATIENCE_OF_PROGRAMS, need, run
from gateway import gateway
from processes import ROOT, VARIABLES, ProcessCluster
from slurm import OUTSIDE, OWN_MEMORY, slurm
from sshd import sshd

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(3 * PATIENCE_OF_PROGRAMS)]

MIB = 1 << 20

# A cluster of these shares the client's memory.
HEADER = """
import json, sys
from distributed import Client, LocalCluster, Security, SSHCluster
from user_program import say, try_on

if __name__ == "__main__":
"""


def assert_by_reference(said, store="shm://"):
    """The answers are plain Dask's, and the scheduler has relayed nothing."""
    assert said["wrong"] == []
    assert f"chosen by daskps: {store}" in said["session"]
    assert said["warnings"] == []
    assert said["plain"]["received"] > 64 * MIB
    assert said["ours"]["received"] < MIB
    assert said["objects"] == 0


def script(body):
    return HEADER + "".join(f"    {line}\n" for line in body.strip().splitlines())


def test_a_local_cluster_that_encrypts(tmp_path):
    need("cryptography")
    body = """
with LocalCluster(n_workers=2, threads_per_worker=1, security=True,
                  dashboard_address=":0") as cluster:
    assert cluster.scheduler_address.startswith("tls://")
    with cluster.get_client() as client:
        say(try_on(client, 2))
"""
    assert_by_reference(run(tmp_path, script(body)))


def test_websockets(tmp_path):
    body = """
with LocalCluster(n_workers=2, threads_per_worker=1, protocol="ws://",
                  dashboard_address=":0") as cluster:
    assert cluster.scheduler_address.startswith("ws://")
    with cluster.get_client() as client:
        say(try_on(client, 2))
"""
    assert_by_reference(run(tmp_path, script(body)))


def test_a_scheduler_file(tmp_path):
    body = """
with Client(scheduler_file=sys.argv[1]) as client:
    say(try_on(client, 2))
"""
    with ProcessCluster() as cluster:
        assert_by_reference(run(tmp_path, script(body), cluster.file))


def test_ssh(tmp_path):
    need("asyncssh", commands=["sshd", "ssh-keygen"], root=True)
    body = """
with SSHCluster(["127.0.0.1"] * 3, connect_options=json.loads(sys.argv[1]),
                worker_options={"nthreads": 1},
                scheduler_options={"port": 0, "dashboard_address": ":0"}) as cluster:
    with Client(cluster) as client:
        say(try_on(client, 2))
"""
    with sshd(tmp_path) as login:
        assert_by_reference(run(tmp_path, script(body), json.dumps(login)))


SLURM = """
from dask_jobqueue import SLURMCluster
directory, *prologue = sys.argv[1:]
with SLURMCluster(cores=1, processes=1, memory="1 GB", walltime="01:00:00",
                  interface="lo", scheduler_options={"dashboard_address": ":0"},
                  local_directory=directory, log_directory=directory,
                  job_script_prologue=prologue) as cluster:
    cluster.scale(jobs=2)
    with Client(cluster) as client:
        say(try_on(client, 2))
"""
NEEDED_BY_SLURM = ["munged", "slurmctld", "slurmd", "sbatch"]


def test_slurm(tmp_path):
    need("dask_jobqueue", commands=NEEDED_BY_SLURM, root=True)
    with slurm(tmp_path) as variables:
        assert_by_reference(run(tmp_path, script(SLURM), str(tmp_path), env=variables))


def test_slurm_whose_jobs_have_memory_of_their_own(tmp_path):
    need("dask_jobqueue", commands=NEEDED_BY_SLURM, root=True)
    if ROOT.startswith("/tmp/"):
        pytest.skip("such jobs have a /tmp of their own, and the checkout is in /tmp")
    values = {VARIABLES[0]: "/dev/shm", VARIABLES[1]: "null"}
    exports = [f"export {name}={value}" for name, value in values.items()]
    with (
        tempfile.TemporaryDirectory(dir=OUTSIDE) as seen_by_jobs,
        slurm(Path(seen_by_jobs), OWN_MEMORY) as variables,
    ):
        arguments = [script(SLURM), seen_by_jobs, *exports]
        assert_by_reference(run(tmp_path, *arguments, env=variables), "peer://")


def test_mpi(tmp_path):
    need("dask_mpi", "mpi4py", commands=["mpirun"])
    body = """
import dask_mpi
dask_mpi.initialize(dashboard=False, local_directory=sys.argv[1])
with Client() as client:
    say(try_on(client, 2))
"""
    launcher = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "4"]
    assert_by_reference(run(tmp_path, script(body), str(tmp_path), launcher=launcher))


GATEWAY = """
from dask_gateway import BasicAuth, Gateway
with Gateway(sys.argv[1], auth=BasicAuth(username=sys.argv[2])) as gateway:
    with gateway.new_cluster(shutdown_on_close=True) as cluster:
        cluster.scale(2)
        with cluster.get_client() as client:
            assert client.scheduler.address.startswith("gateway://")
            say(try_on(client, 2))
"""


def test_a_gateway(tmp_path):
    need("dask_gateway", "dask_gateway_server")
    with gateway(tmp_path) as address:
        said = run(tmp_path, script(GATEWAY), address, getpass.getuser())
    assert_by_reference(said)
