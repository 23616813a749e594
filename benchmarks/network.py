"""The same work with and without daskps on several hosts: ``python -m benchmarks.network``.

The hosts are on this machine, with links of a given speed between them
(:mod:`benchmarks.hosts`). Dask's processes and the program that uses them each run on a host
of their own. What goes over the scheduler's link is counted by the kernel.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from benchmarks import network_client
from benchmarks.certificates import tls_environment
from benchmarks.hosts import Host, Network, NetworkCluster, RefusedError
from benchmarks.network_client import SCENARIOS, Row
from benchmarks.scenario import MB

HOSTS = ("client", "scheduler", "store")
# Opens a connection, for nft.
NEW = "tcp flags & (syn | ack) == syn"
#: What the client's host takes and sends, as ``nft`` has it.
CLIENTS = {
    "open": (),
    "closed": (f"input iifname eth0 {NEW} drop",),
    "by-scheduler": (
        f"input iifname eth0 {NEW} drop",
        "output oifname eth0 tcp dport 8786 accept",
        f"output oifname eth0 {NEW} drop",
    ),
}
HEADING = f"{'':34}{'dask':>18}{'daskps':>20}   {'faster by':22}bytes"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.network",
        description="Compare Dask with and without daskps on several hosts, in turn.",
    )
    parser.add_argument(
        "names", nargs="*", help="parts of scenarios' names; all if none"
    )
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--rate", default="1gbit", help="of each link (default: 1gbit)")
    parser.add_argument(
        "--workers", type=int, default=2, help="on each host (default: 2)"
    )
    parser.add_argument(
        "--hosts", type=int, default=2, help="with workers (default: 2)"
    )
    parser.add_argument(
        "--client",
        choices=CLIENTS,
        default="open",
        help="whether its host takes connections, or reaches nothing but the scheduler",
    )
    parser.add_argument(
        "--store",
        help="a URL; redis:// starts a server on a host of its own (default: chosen by "
        "daskps)",
    )
    parser.add_argument(
        "--tls", action="store_true", help="encrypt, as Dask's `tls://` does"
    )
    args = parser.parse_args()
    names = [s.name for s in SCENARIOS if _wanted(s.name, args.names)]
    if not names:
        parser.error(f"choose from: {', '.join(s.name for s in SCENARIOS)}")
    try:
        workers = [f"worker{number}" for number in range(1, args.hosts + 1)]
        network = Network(*HOSTS, *workers, rate=args.rate)
    except RefusedError as e:
        print(f"Several hosts on this machine: {e}", file=sys.stderr)
        return 1
    with network, tempfile.TemporaryDirectory(prefix="bench-") as directory:
        if CLIENTS[args.client]:
            network.hosts["client"].filter(*CLIENTS[args.client])
        if args.store == "redis://":
            args.store = _start_redis(network.hosts["store"])
        print(
            f"{args.rate} links, {args.workers} workers on each of {args.hosts} hosts, "
            f"client {args.client}, medians"
        )
        print(HEADING)
        for row in _measure(network, args, names, directory):
            print(_line(row), flush=True)
    return 0


def _wanted(name: str, parts: list[str]) -> bool:
    return not parts or any(part in name for part in parts)


def _measure(
    network: Network, args: argparse.Namespace, names: list[str], directory: str
) -> Iterator[Row]:
    log = os.path.join(directory, "log")
    env = tls_environment(directory) if args.tls else None
    cluster = NetworkCluster(network, args.workers, log, env=env)
    options = {
        "address": cluster.address,
        "workers": cluster.n_workers,
        "scheduler_host": cluster.scheduler.pid,
        "store": args.store,
        "rounds": args.rounds,
        "names": names,
    }
    process = cluster.python(
        network.hosts["client"],
        *("-m", network_client.__name__, json.dumps(options)),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        yield Row(**json.loads(line))
    if process.wait():
        with open(log) as f:
            sys.stderr.write(f.read())
        raise SystemExit("the client has failed")


def _start_redis(host: Host) -> str:
    command = f"redis-server --bind {host.address} --protected-mode no --save"
    host.start(*command.split(), "", stdout=subprocess.DEVNULL, cwd=host.directory)
    while True:
        with contextlib.suppress(RefusedError):
            host.run("redis-cli", "-h", host.address, "ping")
            return f"redis://{host.address}"


def _line(row: Row) -> str:
    dask, daskps = row.median("dask"), row.median("daskps")
    low, median, high = row.ratios()
    sent = [row.nbytes[name] / len(row.seconds[name]) for name in ("dask", "daskps")]
    return (
        f"{row.name:34}{dask:7.2f} s {sent[0] / MB:6.0f} MB{daskps:9.2f} s "
        f"{sent[1] / MB:5.2f} MB   {median:5.2f} ({low:.2f} to {high:.2f})".ljust(98)
        + f"{sent[1] / sent[0]:.2%}   {row.store}"
    )


if __name__ == "__main__":
    sys.exit(main())
