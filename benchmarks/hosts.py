"""Several hosts on this machine: network namespaces, joined by links of a given speed.

Each host has an address, a host name, a ``/dev/shm`` and a directory for temporary files of
its own, so that hosts do not see each other's files but those on the disk. Needs root, and a
kernel that lets it make namespaces and shape links: see :class:`RefusedError`.
"""

from __future__ import annotations

import contextlib
import glob
import ipaddress
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

from distributed.comm.addressing import unparse_host_port

SUBNET = ipaddress.ip_network("10.77.0.0/24")
SUBNET_V6 = ipaddress.ip_network("fd77::/64")
# What Dask's workers listen on, as nft has it.
WORKER_PORTS = "9001-9009"
_TOOLS = ("ip", "tc", "unshare", "nsenter", "mount")


class RefusedError(Exception):
    """This machine does not let us make hosts, for the reason given."""


class Traffic(NamedTuple):
    """What has gone over a host's link, bytes."""

    received: int
    sent: int


class Host:
    """A host of a :class:`Network`.

    Attributes
    ----------
    name, address
        Of the host.
    directory
        For temporary files: each host has another one, under the same path.
    """

    name: str
    address: str
    directory: str

    def __init__(self, name: str, address: str, directory: str):
        self.name = name
        self.address = address
        self.directory = directory
        # Namespaces live as long as a process in them; this one, until its input ends.
        script = (
            f"hostname {name} && mount -t tmpfs tmpfs /dev/shm && "
            f"mount -t tmpfs tmpfs {directory} && ip link set lo up && echo ready && cat"
        )
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--uts", "sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "ready\n":
            self._holder.kill()
            error = self._holder.communicate()[1].strip()
            raise RefusedError(f"namespaces are refused: {error}")

    @property
    def pid(self) -> int:
        """A process on the host."""
        return self._holder.pid

    def start(self, *args: str, **kwargs: Any) -> subprocess.Popen[Any]:
        """Start a process on the host."""
        env = {**os.environ, **kwargs.pop("env", {})}
        # Settings for directories of the machine at large.
        for name in "DASK_DASKPS__SHM__DIRECTORY", "DASK_TEMPORARY_DIRECTORY":
            env.pop(name, None)
        env["TMPDIR"] = self.directory
        enter = ["nsenter", "-t", str(self.pid), "--net", "--mount", "--uts", "--"]
        return subprocess.Popen([*enter, *args], env=env, **kwargs)

    def run(self, *args: str) -> str:
        """Run a command on the host; its output."""
        process = self.start(
            *args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        output: str = process.communicate()[0]
        if process.returncode:
            raise RefusedError(f"{' '.join(args)} on {self.name}: {output.strip()}")
        return output

    def filter(self, *rules: str) -> None:
        """Filter packets, as ``nft`` has it, such as ``"input tcp dport 80 drop"``.

        Parameters
        ----------
        rules
            Each begins with a hook, ``input`` or ``output``. Those before are forgotten.

        Raises
        ------
        RefusedError
            If this machine does not let us.
        """
        if shutil.which("nft") is None:
            raise RefusedError("not installed: nft")
        chains = {rule.split()[0]: [] for rule in rules}  # type: dict[str, list[str]]
        for rule in rules:
            hook, _, what = rule.partition(" ")
            chains[hook].append(what)
        lines = ["flush ruleset", "table inet filter {"]
        for hook, whats in chains.items():
            lines += [f"chain {hook} {{ type filter hook {hook} priority 0;"]
            lines += [*whats, "}"]
        self.run("nft", "\n".join([*lines, "}"]))

    def traffic(self) -> Traffic:
        """What has gone over its link."""
        return traffic(self.pid)

    def processes(self) -> set[int]:
        """All processes on the host, but the one that stands for it."""
        mine = os.readlink(f"/proc/{self.pid}/ns/net")
        found = set()
        for path in glob.glob("/proc/[0-9]*"):
            with contextlib.suppress(OSError):
                if os.readlink(f"{path}/ns/net") == mine:
                    found.add(int(os.path.basename(path)))
        children = f"/proc/{self.pid}/task/{self.pid}/children"
        with open(children) as f:
            return found - {self.pid} - set(map(int, f.read().split()))

    def close(self) -> None:
        """End it, with everything on it."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._holder.communicate("")
        self._holder.wait()


def traffic(pid: int) -> Traffic:
    """What has gone over the link of the host on which a process runs."""
    with open(f"/proc/{pid}/net/dev") as f:
        for line in f:
            interface, _, counters = line.partition(":")
            if interface.strip() == "eth0":
                fields = counters.split()
                return Traffic(int(fields[0]), int(fields[8]))
    raise AssertionError("the host has no link")


class Network:
    """Hosts on one switch.

    Parameters
    ----------
    names
        Of the hosts.
    rate
        Of each host's link, in either direction, as ``tc`` has it. None: not limited.
    v6
        Whether hosts have addresses of IPv6 alone.

    Attributes
    ----------
    hosts
        By name.

    Raises
    ------
    RefusedError
        If this machine does not let us.
    """

    hosts: dict[str, Host]

    def __init__(self, *names: str, rate: str | None = "1gbit", v6: bool = False):
        missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
        if missing:
            raise RefusedError(f"not installed: {', '.join(missing)}")
        if os.geteuid():
            raise RefusedError("only root can make network namespaces")
        self._directory = tempfile.mkdtemp(prefix="network-")
        self.hosts = {}
        with contextlib.ExitStack() as stack:
            stack.callback(os.rmdir, self._directory)
            self._switch = Host("switch", "", self._directory)
            stack.callback(self._switch.close)
            self._switch.run(*["ip", "link", "add", "bridge", "type", "bridge"])
            self._switch.run(*["ip", "link", "set", "bridge", "up"])
            for number, name in enumerate(names, 1):
                address = (SUBNET_V6 if v6 else SUBNET)[number]
                host = Host(name, str(address), self._directory)
                self.hosts[name] = host
                stack.callback(host.close)
                self._connect(host, f"port{number}", rate)
            self._stack = stack.pop_all()

    def _connect(self, host: Host, port: str, rate: str | None) -> None:
        switch = self._switch
        add = f"ip link add {port} type veth peer name eth0 netns {host.pid}"
        switch.run(*add.split())
        switch.run(*f"ip link set {port} master bridge up".split())
        v6 = ipaddress.ip_address(host.address) in SUBNET_V6
        # nodad: without waiting whether another host has the address.
        subnet, options = (SUBNET_V6, "nodad") if v6 else (SUBNET, "")
        address = f"{host.address}/{subnet.prefixlen}"
        host.run(*f"ip address add {address} dev eth0 {options}".split())
        host.run(*["ip", "link", "set", "eth0", "up"])
        if rate is not None:
            shape = f"root tbf rate {rate} burst 256kb latency 50ms"
            switch.run(*f"tc qdisc add dev {port} {shape}".split())
            host.run(*f"tc qdisc add dev eth0 {shape}".split())

    def close(self) -> None:
        """End all hosts, with everything on them."""
        self._stack.close()

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class NetworkCluster:
    """Dask on the hosts of a network: one scheduler, and workers.

    Parameters
    ----------
    network
        Has a host ``scheduler``, and hosts whose names begin with ``worker``.
    workers
        On each of these, each with one thread.
    log
        File to which all of them write.
    python_path
        Further directories to import from.
    env
        Environment variables of all processes.

    Attributes
    ----------
    address
        Of the scheduler.
    """

    address: str

    def __init__(
        self,
        network: Network,
        workers: int,
        log: str,
        python_path: str = "",
        env: dict[str, str] | None = None,
    ):
        self._network = network
        self._log = log
        path = [python_path, os.getcwd(), os.environ.get("PYTHONPATH", "")]
        self._env = {"PYTHONPATH": os.pathsep.join(filter(None, path)), **(env or {})}
        self.scheduler = network.hosts["scheduler"]
        protocol = self._env.get("DASK_DISTRIBUTED__COMM__DEFAULT_SCHEME", "tcp")
        self.address = f"{protocol}://{unparse_host_port(self.scheduler.address, 8786)}"
        self.dask(
            *(self.scheduler, "scheduler", "--port", "8786", "--no-dashboard"),
            "--no-show",
        )
        self.n_workers = 0
        for name, host in network.hosts.items():
            if name.startswith("worker"):
                for _ in range(workers):
                    self.add_worker(host)

    def add_worker(self, host: Host) -> subprocess.Popen[Any]:
        """Start one more. On each host, the first one is at port 9001, the next at 9002."""
        self.n_workers += 1
        options = "--nthreads 1 --no-nanny --no-dashboard --memory-limit 0"
        options += f" --worker-port {WORKER_PORTS.replace('-', ':')}"
        return self.dask(
            *(host, "worker", self.address, *options.split()),
            *("--death-timeout", "60", "--local-directory", host.directory),
        )

    def dask(self, host: Host, *args: str) -> subprocess.Popen[Any]:
        """Run Dask's command on a host."""
        address = unparse_host_port(host.address)
        return self.python(host, "-m", "dask", *args, "--host", address)

    def python(self, host: Host, *args: str, **kwargs: Any) -> subprocess.Popen[Any]:
        """Run Python on a host."""
        with open(self._log, "ab") as log:
            kwargs = {"stdout": log, "stderr": log, **kwargs}
            return host.start(sys.executable, *args, env=self._env, **kwargs)


def wait_until_gone(pids: set[int], seconds: float = 10) -> set[int]:
    """Wait for processes to end; those that have not."""
    deadline = time.monotonic() + seconds
    while True:
        left = {pid for pid in pids if os.path.exists(f"/proc/{pid}")}
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)
