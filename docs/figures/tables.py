"""Tables of the pages, made of what the benchmarks have printed."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable
from fnmatch import fnmatch

from outputs import COLUMNS, RATES, Scenario, lines, number, on_network, read, scenarios

#: In a page: a table of this name, which is written anew.
MARKED = re.compile(
    r"(<!-- table (?P<name>[\w-]+)(?: (?P<part>[^>]+?))? -->\n).*?(<!-- end -->)",
    re.DOTALL,
)
UNIT = re.compile(r"(\d) ([kMG]i?B|m?s)\b")
Row = Iterable[str]


def with_tables(page: str) -> str:
    """A page with its tables as they should be."""

    def table(found: re.Match[str]) -> str:
        rows = TABLES[found["name"]](found["name"], found["part"] or "")
        return f"{found[1]}\n{rows}\n{found[4]}"

    return MARKED.sub(table, page)


def markdown(heading: Row, rows: Iterable[Row]) -> str:
    """A table; all columns but the first are aligned on the right.

    A number and its unit stay together.
    """
    heading = list(heading)
    rule = ["---", *["---:"] * (len(heading) - 1)]
    lines = (f"| {' | '.join(row)} |\n" for row in (heading, rule, *rows))
    return "".join(UNIT.sub("\\1\N{NO-BREAK SPACE}\\2", line) for line in lines)


def peers(name: str, part: str) -> str:
    """Scenarios, with a line for each peer.

    Parameters
    ----------
    part
        Which ones: a pattern of their names, or several with `|` between them.
    """
    patterns = (part or "*").split("|")
    mine = [s for s in scenarios(name) if any(fnmatch(s.name, p) for p in patterns)]
    used = {c for s in mine for cells in s.peers.values() for c in cells}
    columns = [column for column in COLUMNS if column in used]
    heading = ["", *columns]
    if any(
        "tasks/s" in cells.get(columns[-1], "")
        for s in mine
        for cells in s.peers.values()
    ):
        heading[-1] = RATES
    return markdown(heading, (row for s in mine for row in _rows(s, columns)))


def _rows(scenario: Scenario, columns: list[str]) -> Iterable[Row]:
    yield [f"**{scenario.name}**", *[""] * len(columns)]
    for peer, cells in scenario.peers.items():
        yield [peer, *(cells.get(column, "") for column in columns)]


def shapes(name: str, part: str) -> str:
    """One line for each shape."""
    heading = (
        "",
        "dask",
        "daskps",
        "daskps is faster by",
        "processor: dask's, daskps 1",
    )
    return markdown(heading, list(lines(name))[2:])


def imports(name: str, part: str) -> str:
    """What daskps adds to each process."""
    rows = [[what, cpu, memory] for what, cpu, memory, *_ in list(lines(name))[1:5]]
    return markdown(("", "processor's time", "memory"), rows)


def threshold(name: str, part: str) -> str:
    """Two columns of sizes become one."""
    cells = [row for row in lines(name) if row != [""]]
    pairs = [row[:2] for row in cells] + [row[2:] for row in cells if len(row) > 2]
    return markdown(("size", "by reference is faster by"), pairs)


def network(name: str, part: str) -> str:
    """Time and bytes of both, and their ratios."""
    heading = ("", "dask", "", "daskps", "", "daskps is faster by", "of dask's bytes")
    return markdown(heading, list(lines(name))[1:])


LINKS = {"1gbit": ("1 Gbit/s", 1e9), "250mbit": ("250 Mbit/s", 250e6)}
MODEL_NBYTES = 64e6


def hosts(name: str, part: str) -> str:
    """One value for many hosts, beside the time of one transfer."""
    rows = []
    for run in on_network(name):
        link, bits = LINKS[run.rate]
        _, dask, _, daskps, *_ = run.cells
        transfers = number(daskps) / (8 * MODEL_NBYTES / bits)
        rows.append([str(run.hosts), link, dask, daskps, f"{transfers:.1f}"])
    heading = ("hosts", "link", "dask", "daskps", "daskps, times one transfer")
    return markdown(heading, rows)


CLIENTS = {
    "closed": "takes no connections",
    "by-scheduler": "reaches the scheduler's port alone",
}


def closed_clients(name: str, part: str) -> str:
    """Clients to which nobody can connect."""
    rows = []
    for run in on_network(name):
        work, dask, _, daskps, _, ratio, _ = run.cells
        rows.append([CLIENTS[run.client], work, dask, daskps, ratio])
    return markdown(("client", "work", "dask", "daskps", "daskps is faster by"), rows)


def thousand_hosts(name: str, part: str) -> str:
    """What many hosts cost the scheduler's process."""
    rows = [
        [what, seconds, cpu.removesuffix(" CPU"), share, each.removesuffix(" a host")]
        for what, seconds, cpu, share, _, each in lines(name)
    ]
    return markdown(("", "time", "CPU", "of a core", "memory a host"), rows)


def first_result(name: str, part: str) -> str:
    """The steps of a newcomer."""
    return markdown(("", "time"), lines(name))


def explaining(name: str, part: str) -> str:
    """How long it takes to explain what is large in several ways."""
    heading = ("", "pickled", "`explain`", "Dask alone, to make the graph")
    empty = [""] * len(heading)
    return markdown(heading, ([*row, *empty][: len(heading)] for row in lines(name)))


def worker_memory(name: str, part: str) -> str:
    """Programs on workers that have little memory."""
    heading = ("program", "", "", "workers started anew", "pauses", "seconds")
    return markdown(heading, list(lines(name))[1:])


def limited_memory(name: str, part: str) -> str:
    """Programs in a limit of memory."""
    heading = ("program", "", "", "peak", "time")
    return markdown(heading, list(lines(name))[2:])


def mixed(name: str, part: str) -> str:
    """All programs in a limit of memory, in turn."""
    found = ast.literal_eval(read(name).partition(": ")[2])
    turns, nbytes = found["turns"], found["grown"]
    rows = [
        [f"turns of {', '.join(turns)}", ", ".join(map(str, turns.values()))],
        ["the client has grown by", f"{nbytes / 1e6:.0f} MB"],
        ["objects that the store holds", str(found["held"])],
        ["files that are left", str(len(found["left"]))],
    ]
    return markdown(("", ""), rows)


def soak(name: str, part: str) -> str:
    """What was done, and how processes have grown."""
    first, *processes, wrong = read(name).splitlines()
    ran, _, computations = first.partition("; computations: ")
    rows = [[ran, ""]]
    rows += [[f"computations: {k}", n] for n, k in _counts(computations)]
    for process in processes:
        who, _, grown = process.partition(": ")
        memory, files = (part.split(" at first, ") for part in grown.split("; "))
        for what, (before, after) in ("memory", memory), ("file descriptors", files):
            number = before.removesuffix(f" {what}")
            rows.append([f"{who}: {what}", f"{number} at first, {after}"])
    rows += [[what, n] for n, what in _counts(wrong)]
    return markdown(("", ""), rows)


def _counts(text: str) -> list[list[str]]:
    """Numbers, and what they count."""
    return [part.split(" ", 1) for part in text.split(", ")]


def spreading(name: str, part: str) -> str:
    """Times of one transfer by hosts; a row may end early."""
    _, heading, *rows = lines(name)
    empty = [""] * len(heading)
    return markdown(heading, ([*row, *empty][: len(heading)] for row in rows))


MODEL = "64 MB model in 32 submits"
ARRAY = "from_array 256 MB, sum"
#: By row of the comparison: scenario of a model and of an array, and the peer's name there.
COMPARED = {
    "Dask as it is": (MODEL, "dask"),
    "daskps": (MODEL, "daskps"),
    "daskps, read-only model": (f"read-only {MODEL}", "daskps"),
    "`scatter`": (MODEL, "scatter"),
    "`proxystore_ex`": (MODEL, "proxystore_ex"),
    "Ray": (MODEL, "ray"),
}


def comparison(name: str, part: str) -> str:
    """Time and bytes through the scheduler, for a model and for an array."""
    by_name = {scenario.name: scenario.peers for scenario in scenarios("side-by-side")}

    def cells(scenario: str, peer: str) -> Row:
        row = by_name[scenario].get(peer, {})
        return [row.get(column, "") for column in ("time", "through the scheduler")]

    rows = [
        [what, *cells(scenario, peer), *cells(ARRAY, "" if "only" in what else peer)]
        for what, (scenario, peer) in COMPARED.items()
    ]
    zarr = [*_beside_zarr(MODEL), *_beside_zarr(ARRAY)]
    rows.append(["Zarr, written and read by each task", *zarr])
    rows.append(["the data is on the workers already", "", "", *cells(ARRAY, "limit")])
    heading = ("", "model in 32 tasks", "through the scheduler", "array of 256 MB")
    return markdown([*heading, "through the scheduler"], rows)


def _beside_zarr(name: str) -> Row:
    """Time and bytes with Zarr; a run of its own, of which only the ratio is compared."""
    (scenario,) = (s for s in scenarios("beside-zarr") if s.name == name)
    ratio, nbytes = (
        scenario.faster("zarr"),
        scenario.peers["zarr"]["through the scheduler"],
    )
    return [f"{ratio:.{0 if ratio >= 10 else 1}f} times daskps's", nbytes]


#: By row: what it is, when it is the better choice, and its name among the peers.
ALTERNATIVES = (
    ("Dask as it is", "little data, or little of it in graphs", "dask"),
    ("**daskps**", "the data is in the program, and goes to tasks", "daskps"),
    (
        "Zarr, Parquet, ...",
        "the data is in files, or will be read more than once: tasks read it",
        "zarr",
    ),
    ("`Client.scatter`", "one value, and workers that do not die", "scatter"),
    (
        "`proxystore_ex`",
        "futures alone, and proxies suit your functions",
        "proxystore_ex",
    ),
    ("Ray", "a new program, without Dask's collections", "ray"),
)


def alternatives(name: str, part: str) -> str:
    """What else there is, when to choose it, and one figure for each."""
    (model,) = (s for s in scenarios("side-by-side") if s.name == MODEL)
    rows = []
    for what, when, peer in ALTERNATIVES:
        cells = model.peers.get(peer, {})
        columns = ("time", "through the scheduler")
        figures = [cells.get(column, "") for column in columns]
        rows.append([what, when, *(_beside_zarr(MODEL) if peer == "zarr" else figures)])
    heading = ("", "the better choice if", "time", "through the scheduler")
    return markdown(heading, rows).replace("| ---: |", "| --- |", 1)


TABLES: dict[str, Callable[[str, str], str]] = {
    "alternatives": alternatives,
    "beside-zarr": peers,
    "comparison": comparison,
    "side-by-side": peers,
    "throughput": peers,
    "paper": peers,
    "small-tasks": peers,
    "shapes": shapes,
    "imports": imports,
    "threshold": threshold,
    "network-peer": network,
    "network-redis": network,
    "first-result": first_result,
    "explaining": explaining,
    "hosts": hosts,
    "closed-clients": closed_clients,
    "thousand-hosts": thousand_hosts,
    "worker-memory": worker_memory,
    "limited-memory": limited_memory,
    "limited-memory-mixed": mixed,
    "soak": soak,
    "spreading": spreading,
}
