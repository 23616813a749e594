"""Pictures of the pages: plots of what the benchmarks printed, and drawings."""

from __future__ import annotations

import re
from collections.abc import Callable

from outputs import Scenario, lines, number, scenarios
from plots import PEERS, Bar, bars, curves
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
        note="Time, on a logarithmic scale, and bytes through the scheduler. "
        "Two workers on one machine.",
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
        left=230,
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
        marked=1,
        note="Medians and quartiles of pairs of runs, on a logarithmic scale; the line "
        "is plain Dask.",
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


def scheduler() -> Picture:
    """The scheduler with daskps and without."""
    title = "The same 256 MB for three workers, without daskps and with it"
    picture = Picture(600, 520, title)
    _without(picture, 0)
    picture.line([(20, 252), (580, 252)], colour="edge", width=1)
    _with(picture, 256)
    return picture


def _processes(picture: Picture, top: float, heading: str) -> None:
    picture.text(20, top + 32, heading, size=17, bold=True)
    _process(picture, (20, top + 100), (112, 60), "client")
    _process(picture, (228, top + 60), (132, 76), "scheduler")
    for i in range(3):
        _process(picture, (474, top + 48 + 50 * i), (106, 38), "worker")


def _process(
    picture: Picture, at: tuple[float, float], size: tuple[float, float], name: str
) -> None:
    (x, y), (width, height) = at, size
    picture.box(x, y, width, height, edge="edge")
    picture.text(x + width / 2, y + 23, name, size=15, anchor="middle")


def _without(picture: Picture, top: float) -> None:
    _processes(picture, top, "Dask: the data is in the graph")
    picture.line([(132, top + 130), (218, top + 104)], colour="data", width=11)
    for i in range(3):
        end = top + 67 + 50 * i
        picture.line([(360, top + 100), (466, end)], colour="data", width=11)
    for i in range(4):
        picture.box(246 + 25 * i, top + 96, 21, 26, colour="data", round=3)
    picture.text(20, top + 190, "sent to the scheduler,", colour="data", bold=True)
    picture.text(20, top + 208, "which keeps a copy,", colour="data", bold=True)
    picture.text(20, top + 226, "and sent on for each task", colour="data", bold=True)


def _with(picture: Picture, top: float) -> None:
    _processes(picture, top, "With daskps: a reference is in the graph")
    picture.line(
        [(132, top + 118), (222, top + 98)], colour="ours", width=1.8, arrow=True
    )
    for i in range(3):
        end = top + 67 + 50 * i
        picture.line(
            [(360, top + 98), (470, end)], colour="ours", width=1.8, arrow=True
        )
    picture.text(294, top + 118, "references", size=13, colour="ours", anchor="middle")
    picture.box(180, top + 198, 230, 44, colour="card", edge="data")
    for i in range(4):
        picture.box(194 + 25 * i, top + 207, 21, 26, colour="data", round=3)
    picture.text(302, top + 225, "shared memory", size=14)
    picture.line(
        [(76, top + 160), (76, top + 220), (180, top + 220)], colour="data", width=11
    )
    picture.text(20, top + 182, "stored once", colour="data", bold=True)
    picture.line(
        [(410, top + 220), (527, top + 220), (527, top + 190)],
        colour="data",
        width=2,
        dashed=True,
        arrow=True,
    )
    picture.text(
        424, top + 240, "mapped, not copied", colour="data", bold=True, size=13
    )


def value() -> Picture:
    """The way of one value, in numbered steps."""
    picture = Picture(600, 452, "The way of one value from the client to a task")
    for x, name in ((16, "client"), (214, "scheduler"), (412, "worker")):
        picture.box(x, 14, 172, 290, edge="edge")
        picture.text(x + 86, 40, name, size=16, anchor="middle", bold=True)
    picture.box(16, 334, 568, 102, colour="card", edge="data")
    picture.text(34, 362, "store", size=16, bold=True)
    for i in range(4):
        picture.box(270 + 27 * i, 370, 23, 30, colour="data", round=3)
    picture.text(315, 422, "objects", size=13, anchor="middle", colour="soft")
    _steps(picture)
    picture.line([(60, 130), (60, 386), (262, 386)], colour="data", width=9)
    picture.line(
        [(384, 386), (438, 386), (438, 224)], colour="data", width=2, dashed=True
    )
    picture.line([(438, 228), (438, 222)], colour="data", width=2, arrow=True)
    picture.line([(170, 206), (228, 206)], colour="ours", width=1.8, arrow=True)
    picture.line([(368, 206), (426, 206)], colour="ours", width=1.8, arrow=True)
    picture.line([(300, 272), (300, 362)], colour="soft", width=1.8, arrow=True)
    return picture


def _steps(picture: Picture) -> None:
    for x, y, step, *texts in (
        (30, 74, "1", "find what is", "large"),
        (76, 148, "2", "store it once"),
        (30, 196, "3", "send the graph", "with a node in it"),
        (232, 196, "4", "send tasks to", "workers"),
        (432, 196, "5", "map the value"),
        (452, 256, "6", "call your", "function"),
        (232, 262, "7", "no task needs it:", "evict"),
    ):
        picture.dot(x, y - 5, 10, "ink")
        picture.text(x, y, step, size=13, colour="card", anchor="middle", bold=True)
        for i, text in enumerate(texts):
            picture.text(x + 15, y + 17 * i, text, size=14)


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
}
