"""Pictures of the pages: plots of what the benchmarks printed, and drawings."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from outputs import Scenario, lines, number, scenarios
from plots import PEERS, PEERS_OF_THE_PAPER, Bar, bars, curves
from svg import Picture


def found(name: str, *wanted: str) -> list[Scenario]:
    """Scenarios of an output, by name."""
    by_name = {scenario.name: scenario for scenario in scenarios(name)}
    return [by_name[each] for each in wanted]


def _times(scenario: Scenario) -> list[Bar]:
    return [
        Bar(peer, scenario.ms(peer), cells["time"], PEERS[peer])
        for peer, cells in scenario.peers.items()
        if peer != "limit"
    ]


def models() -> Picture:
    """Times of all peers for a model that many tasks use."""
    wanted = found(
        "side-by-side",
        "64 MB model in 32 delayed tasks",
        "64 MB model in a map of 32",
        "64 MB model in 32 submits",
        "read-only 64 MB model in 32 submits",
    )
    groups = [(scenario.name, _times(scenario)) for scenario in wanted]
    return bars("A model for many tasks: time, on a logarithmic scale", groups, low=10)


def one_model() -> Picture:
    """Time, and bytes through the scheduler, of one such scenario."""
    (scenario,) = found("side-by-side", "64 MB model in 32 submits")
    rows = []
    for peer, cells in scenario.peers.items():
        through = cells.get("through the scheduler", "")
        text = f"{cells['time']}, {through}" if through else cells["time"]
        if peer not in ("limit", "by hand"):
            rows.append(Bar(peer, scenario.ms(peer), text, PEERS[peer]))
    return bars(
        "A model of 64 MB in 32 submits",
        [("", rows)],
        low=10,
        note="Time, on a logarithmic scale; bytes through the scheduler.",
    )


def round_trips() -> Picture:
    """Times of values that go into a task, over their sizes."""
    sizes = ["10 kB", "100 kB", "1 MB", "10 MB", "100 MB", "1 GB"]
    members = found("side-by-side", *(f"round trip {size} in" for size in sizes))
    values = {peer: [each.ms(peer) for each in members] for peer in PEERS}
    ticks = {1.0: "1 ms", 10.0: "10 ms", 100.0: "100 ms", 1000.0: "1 s"}
    return curves("A value goes into a task: time, by its size", sizes, values, ticks)


def collections() -> Picture:
    """How many times as fast daskps is for collections."""
    wanted = found(
        "side-by-side",
        "from_array 256 MB, sum",
        "second compute() on 256 MB",
        "from_pandas 256 MB, mean",
        "bag of 256 MB of bytes",
        "256 MB result of compute()",
        "Cholesky 4096, blocks of 512",
    )
    rows = [
        _ratio(each.name, each.peers["dask"]["daskps is faster by"]) for each in wanted
    ]
    return bars(
        "Collections: how many times as fast as plain Dask",
        [("", rows)],
        low=0.9,
        left=216,
        marked=1,
    )


def shapes() -> Picture:
    """The same for each shape."""
    rows = [_ratio(name, ratio) for name, _, _, ratio, *_ in list(lines("shapes"))[2:]]
    return bars(
        "Shapes: how many times as fast as plain Dask",
        [("", rows)],
        low=0.5,
        left=330,
        width=640,
        marked=1,
        note="Medians and quartiles, on a logarithmic scale; the line is plain Dask.",
    )


def _ratio(name: str, text: str) -> Bar:
    median, low, high = map(float, re.findall(r"[\d.]+", text))
    return Bar(name, median, f"{median:.2f}", "ours", (low, high))


def throughput() -> Picture:
    """Tasks each second."""
    groups = []
    for each in scenarios("throughput"):
        rates = [
            Bar(peer, 200_000 / each.ms(peer), "", PEERS[peer]) for peer in each.peers
        ]
        for rate in rates:
            rate.text = f"{rate.value:.0f}"
        groups.append((each.name.removeprefix("200 tasks, "), rates))
    return bars("Tasks each second, on a logarithmic scale", groups, low=50)


def network() -> Picture:
    """Time of both on several hosts."""
    groups = []
    for name, *cells in list(lines("network-peer"))[1:]:
        both = zip(("dask", "daskps"), (cells[0], cells[2]), strict=True)
        group = [Bar(who, number(time), time, PEERS[who]) for who, time in both]
        groups.append((name, group))
    title = "Several hosts, 1 Gbit/s: time, on a logarithmic scale"
    return bars(title, groups, low=0.3)


def paper_round_trips() -> Picture:
    """Figure 3 of the paper, the panel of what goes in and comes out."""
    sizes = ["10 kB", "100 kB", "1 MB", "10 MB", "100 MB"]
    members = found("paper", *(f"paper: round trip {n} in and out" for n in sizes))
    values = {peer: [m.ms(peer) for m in members] for peer in PEERS_OF_THE_PAPER}
    ticks = {5.0: "5 ms", 10.0: "10 ms", 100.0: "100 ms", 1000.0: "1 s"}
    title = "A value goes into a task and comes out: time, by its size"
    return curves(title, sizes, values, ticks, width=580, right=176)


def paper_throughput() -> Picture:
    """Figure 4 of the paper, the panel of 1 MB."""
    workers = [1, 2, 4, 8]
    name = "paper: 50 tasks, 1 MB in and out, {} workers"
    members = found("paper", *(name.format(n) for n in workers))
    values = {peer: [m.rate(peer) for m in members] for peer in PEERS_OF_THE_PAPER}
    ticks = {25.0: "25 /s", 50.0: "50 /s", 100.0: "100 /s"}
    title = "Tasks each second, 1 MB in and out, by workers"
    return curves(title, list(map(str, workers)), values, ticks, width=580, right=176)


def scheduler() -> Picture:
    """The scheduler with daskps and without."""
    title = "The same data for three workers, without daskps and with it"
    picture = Picture(480, 540, title)
    _without(picture, 0)
    picture.line([(16, 256), (464, 256)], colour="edge", width=1)
    _with(picture, 260)
    return picture


def _processes(picture: Picture, top: float, heading: str) -> None:
    picture.text(16, top + 32, heading, size=18, bold=True)
    _process(picture, (16, top + 66), (108, 74), "client")
    _process(picture, (180, top + 66), (116, 74), "scheduler")
    for i in range(3):
        _process(picture, (376, top + 52 + 46 * i), (88, 36), "worker")


def _process(
    picture: Picture, at: tuple[float, float], size: tuple[float, float], name: str
) -> None:
    (x, y), (width, height) = at, size
    picture.box(x, y, width, height, edge="edge")
    picture.text(x + width / 2, y + 23, name, size=16, anchor="middle")


def _blocks(picture: Picture, x: float, y: float) -> None:
    for i in range(4):
        picture.box(x + 23 * i, y, 19, 26, colour="data", round=3)


def _without(picture: Picture, top: float) -> None:
    middle = top + 117
    picture.line([(124, middle), (180, middle)], colour="data", width=12)
    for i in range(3):
        picture.line([(296, middle), (376, top + 70 + 46 * i)], colour="data", width=12)
    _processes(picture, top, "Dask: the data is in the graph")
    _blocks(picture, 26, top + 104)
    _blocks(picture, 194, top + 104)
    for i, text in enumerate(
        (
            "The scheduler gets all of it, keeps a copy,",
            "and sends it on for each task.",
        )
    ):
        picture.text(16, top + 216 + 21 * i, text, size=16, colour="data", bold=True)


def _with(picture: Picture, top: float) -> None:
    middle, store = top + 112, top + 216
    picture.line([(46, top + 140), (46, store), (130, store)], colour="data", width=12)
    _processes(picture, top, "With daskps: a reference is in the graph")
    _blocks(picture, 26, top + 104)
    picture.line([(124, middle), (174, middle)], colour="ours", width=2, arrow=True)
    for i in range(3):
        end = (370, top + 70 + 46 * i)
        picture.line([(296, middle), end], colour="ours", width=2, arrow=True)
    picture.text(238, middle + 6, "references", size=15, colour="ours", anchor="middle")
    picture.box(130, store - 22, 236, 44, colour="card", edge="data")
    _blocks(picture, 142, store - 13)
    picture.text(242, store + 6, "shared memory", size=15)
    up = [(366, store), (420, store), (420, top + 186)]
    picture.line(up, colour="data", width=2.5, dashed=True, arrow=True)
    picture.text(62, store - 32, "stored once", size=16, colour="data", bold=True)
    picture.text(464, store + 42, "mapped, not copied", size=16, **RIGHT)


RIGHT: dict[str, Any] = {"colour": "data", "bold": True, "anchor": "end"}


def value() -> Picture:
    """The way of one value, in numbered steps."""
    picture = Picture(480, 450, "The way of one value from the client to a task")
    for x, name in ((10, "client"), (167, "scheduler"), (324, "worker")):
        picture.box(x, 12, 146, 300, edge="edge")
        picture.text(x + 73, 38, name, size=17, anchor="middle", bold=True)
    picture.box(10, 336, 460, 102, colour="card", edge="data")
    picture.text(456, 364, "store", size=17, bold=True, anchor="end")
    _blocks(picture, 196, 360)
    picture.text(240, 412, "objects", size=15, anchor="middle", colour="soft")
    picture.line([(25, 146), (25, 374), (190, 374)], colour="data", width=9)
    up = [(288, 374), (341, 374), (341, 228)]
    picture.line(up, colour="data", width=2.5, dashed=True, arrow=True)
    for x in (144, 301):
        picture.line([(x, 214), (x + 30, 214)], colour="ours", width=2, arrow=True)
    picture.line([(240, 306), (240, 350)], colour="soft", width=2, arrow=True)
    for step, (x, y, *texts) in enumerate(STEPS, start=1):
        picture.dot(x, y - 5, 10, "ink")
        picture.text(
            x, y, str(step), size=14, colour="card", anchor="middle", bold=True
        )
        for i, text in enumerate(texts):
            picture.text(x + 15, y + 19 * i, text, size=15)
    return picture


#: Where each stands, and what it is.
STEPS = (
    (44, 76, "find what", "is large"),
    (44, 140, "store it", "once"),
    (44, 204, "send a node", "for it"),
    (187, 204, "send tasks", "to workers"),
    (344, 204, "map the value"),
    (360, 268, "call your", "function"),
    (187, 268, "no task needs", "it: evict it"),
)


IMAGES: dict[str, Callable[[], Picture]] = {
    "scheduler": scheduler,
    "value": value,
    "model": one_model,
    "models": models,
    "round-trips": round_trips,
    "collections": collections,
    "throughput": throughput,
    "shapes": shapes,
    "network": network,
    "paper-round-trips": paper_round_trips,
    "paper-throughput": paper_throughput,
}
