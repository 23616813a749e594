"""Where people run Dask: each for real, on this host, with a program of a user's.

``tests/system/setup_deployments.sh`` installs what they need.
"""

from __future__ import annotations

import pytest
from deployments import need, run
from processes import ProcessCluster
from slurm import OWN_MEMORY, slurm
from sshd import sshd

pytestmark = pytest.mark.deployment

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


@pytest.mark.parametrize("protocol", ["ws", "wss"])
def test_websockets(tmp_path, protocol):
    need("cryptography")
    body = f"""
with LocalCluster(n_workers=2, threads_per_worker=1, protocol="{protocol}://",
                  security={protocol == "wss"}, dashboard_address=":0") as cluster:
    assert cluster.scheduler_address.startswith("{protocol}://")
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
    import json

    with sshd(tmp_path) as login:
        assert_by_reference(run(tmp_path, script(body), json.dumps(login)))


SLURM = """
from dask_jobqueue import SLURMCluster
with SLURMCluster(cores=1, processes=1, memory="1 GB", walltime="01:00:00",
                  interface="lo", scheduler_options={"dashboard_address": ":0"},
                  local_directory=sys.argv[1], log_directory=sys.argv[1]) as cluster:
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
    with slurm(tmp_path, OWN_MEMORY) as variables:
        said = run(tmp_path, script(SLURM), str(tmp_path), env=variables)
        assert_by_reference(said, "peer://")


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
