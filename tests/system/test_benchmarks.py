"""The benchmarks, at small size: every scenario's results, and what it counts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import dask
import pytest
from processes import PATIENCE, ROOT, ProcessCluster

pytest.importorskip("proxystore_ex")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")
pytest.importorskip("zarr", reason="it is in the extra 'benchmarks' alone")

from benchmarks import blocks, goals, models, paper, peers, round_trips, shapes, table
from benchmarks.catalogue import catalogue, chosen
from benchmarks.cluster import Cluster
from benchmarks.counters import Copies, ProcessCopies
from benchmarks.goals import Goal, Quantity
from benchmarks.plots import COLOURS, draw
from benchmarks.results import Comparison, Measured, Run
from benchmarks.scenario import MB, Scenario
from benchmarks.turns import Clusters, Rounds, compare, with_copies

SCALE = 0.01
ONCE = Rounds(least=1, most=1, warm_up=0)


@pytest.fixture(autouse=True)
def threshold() -> Iterator[None]:
    """Large is what would be large at full size."""
    with dask.config.set({"daskps.threshold": int(SCALE * MB)}):
        yield


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One for all, whatever number of workers a scenario asks for."""
    with ProcessCluster() as cluster:
        yield cluster


def measure(cluster: Cluster, scenario: Scenario) -> Comparison:
    """Each peer once. Wrong results are an error."""
    return compare(Clusters(cluster, cluster), scenario, ONCE)


def one(c: Comparison, peer: str = "daskps") -> Run:
    """The only run of a peer."""
    (run,) = c.peers[peer].runs
    return run


def test_each_peer_can_be_drawn():
    assert COLOURS.keys() == peers.PEERS.keys() | {peers.RAY}


@pytest.mark.slow
@pytest.mark.parametrize("scenario", catalogue(SCALE), ids=lambda s: s.name)
def test_every_scenario_gives_right_results_and_counts(cluster, scenario):
    c = measure(cluster, scenario)
    assert set(scenario.peers) - {"ray"} <= set(c.peers)
    assert ("limit" in c.peers) == (scenario.limit is not None)
    assert all(run.seconds > 0 for m in c.peers.values() for run in m.runs)
    # Graphs, messages about tasks, and a store's start; no payload.
    allowed = 100_000
    if "limit" in c.peers:
        allowed += 2 * one(c, "limit").traffic
    ours = "daskps" if "daskps" in c.peers else "by reference"
    if scenario.group == shapes.GROUP:  # some are small, and stay in the graph
        assert table.rows(c).startswith(scenario.name)
        return
    if scenario.group != "nothing large":
        assert one(c, ours).traffic < allowed
    if scenario.nbytes > 10 * allowed:
        assert one(c, "dask").traffic > scenario.nbytes
    table.rows(c)


def test_counts_of_a_round_trip(cluster):
    c = measure(cluster, round_trips.in_out(2 * MB))
    assert one(c).traffic < 60_000
    assert (one(c).puts, one(c).stored) == (2, 4 * MB)
    # Into the scheduler and out of it, in both directions.
    assert 8 * MB <= one(c, "dask").traffic < 8 * MB + 60_000
    assert (one(c, "dask").puts, one(c, "dask").stored) == (0, 0)
    assert one(c, "by hand").puts == 1
    assert one(c, "proxystore_ex").puts == 2
    assert one(c, "proxystore_ex").traffic < 60_000


def test_counts_of_a_model_in_many_submits(cluster):
    c = measure(cluster, models.in_submits(MB, 8))
    assert (one(c).puts, one(c).stored) == (1, MB)
    assert one(c).traffic < 100_000
    assert one(c, "dask").traffic >= 16 * MB


def test_a_second_compute_stores_nothing(cluster):
    c = measure(cluster, blocks.second_compute(4 * MB))
    assert (one(c).puts, one(c).stored) == (0, 0)
    assert one(c).traffic < 2 * one(c, "limit").traffic + 100_000
    assert one(c, "dask").traffic >= 8 * MB


@pytest.mark.slow
def test_copies_of_a_scenario_are_counted():
    c = measure_with_copies(round_trips.into(4 * MB))
    ours, plain = c.peers["daskps"].copies, c.peers["dask"].copies
    assert ours is not None
    assert plain is not None
    assert ours.client.stored == pytest.approx(1, abs=0.01)
    assert ours.client.made == pytest.approx(1, abs=0.2)
    assert ours.worker.made == pytest.approx(0, abs=0.2)
    assert plain.client.stored == plain.worker.stored == 0
    assert plain.worker.allocated >= 1


def measure_with_copies(scenario: Scenario) -> Comparison:
    """Plain Dask and daskps, once."""
    nobody = {name: Measured() for name in ("dask", "daskps")}
    return with_copies(Comparison(scenario.name, "", 0, 0, nobody), scenario)


def test_a_wrong_result_is_an_error(cluster):
    scenario = models.in_submits(MB, 2)
    work = scenario.work
    wrong = type(work)(
        work.prepare, lambda *a: [x + 1 for x in work.do(*a)], work.check
    )
    broken = Scenario("broken", wrong, None, ("dask",), "models")
    with pytest.raises(AssertionError, match="a wrong result"):
        measure(cluster, broken)


def test_goals_are_about_scenarios_that_there_are():
    everything = chosen([""])
    scenarios = {s.name: s for s in everything}
    assert len(scenarios) == len(everything), "names are unique"
    for goal in goals.GOALS:
        scenario = scenarios[goal.scenario]
        if goal.against == "limit":
            assert scenario.limit is not None
        elif goal.against:
            assert goal.against in scenario.peers
        if goal.quantity in (Quantity.COPIES_BY_CLIENT, Quantity.COPIES_BY_WORKER):
            assert scenario.in_one_piece


def comparison(seconds: dict[str, list[float]]) -> Comparison:
    """As if these times had been measured."""
    peers = {name: Measured([Run(s) for s in runs]) for name, runs in seconds.items()}
    return Comparison("round trip 100 MB in", "round trips in", 0, 0, peers)


def test_ratios_are_of_paired_runs():
    ratio = comparison({"dask": [4.0, 40.0, 6.0], "daskps": [1.0, 20.0, 1.0]}).ratio(
        "dask", "daskps"
    )
    assert (ratio.low, ratio.median, ratio.high) == (3.0, 4.0, 5.0)


def test_outcomes_of_goals():
    c = comparison({"dask": [4.0] * 3, "daskps": [1.0] * 3, "limit": [0.5] * 3})
    copied = ProcessCopies(allocated=0.04, stored=1.0, pages=1.0, growth=1.0)
    c.peers["daskps"].copies = Copies(copied, copied)
    by_goal = {o.goal: o for o in goals.outcomes([c])}

    def reached(quantity: Quantity, asked: float, against: str = "") -> bool | None:
        return by_goal[Goal(c.scenario, quantity, asked, against)].reached

    assert reached(Quantity.SPEEDUP, 4, "dask")
    assert reached(Quantity.TIME, 1.5, "limit") is False
    assert reached(Quantity.TIME, 2.5, "ray") is None
    assert reached(Quantity.COPIES_BY_CLIENT, 1)
    assert reached(Quantity.COPIES_BY_WORKER, 0) is False
    text = table.goals(list(by_goal.values()))
    assert "at most 1.5 times the time of the limit" in text
    assert "2 of 4 goals that were measured are reached" in text


def test_rounds_of_a_benchmark_stop():
    rounds = Rounds(least=2, most=4, seconds=1000)
    assert not rounds.over(1, since=0)
    assert rounds.over(2, since=-1e9)
    assert rounds.over(4, since=1e12)
    assert not rounds.over(3, since=1e12)


def test_names_choose_scenarios():
    assert [s.name for s in chosen(["Cholesky"])] == ["Cholesky 4096, blocks of 512"]
    assert {s.group for s in chosen(["models"])} == {"models"}
    assert chosen(["no such"]) == []
    names = {s.name for s in chosen(["paper"])}
    assert names == {s.name for s in paper.paper()}
    assert not names & {s.name for s in chosen([])}


def some_of_the_paper() -> list[Scenario]:
    """Two points of each curve of its figures, and all kinds of values."""
    sizes = sorted({s.at for s in paper.paper(SCALE) if s.group == paper.ROUND_TRIPS})
    points = {
        paper.ROUND_TRIPS: sizes[-2:],
        paper.KINDS: [0],
        paper.THROUGHPUT: paper.WORKERS[:2],
    }
    return [s for s in paper.paper(SCALE) if s.at in points[s.group]]


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.timeout(1200)
def test_the_paper(tmp_path):
    """Every peer gives right results, and the figures are drawn."""
    scenarios = some_of_the_paper()
    with ProcessCluster() as cluster:
        done = [measure(cluster, scenario) for scenario in scenarios]
    for c, scenario in zip(done, scenarios, strict=True):
        assert set(scenario.peers) <= c.peers.keys()
        table.rows(c)
        if scenario.nbytes >= 10 * SCALE * MB and not c.tasks:
            assert all(one(c, p).traffic < scenario.nbytes for p in peers.ON_STORES)
    draw(done, tmp_path)
    images = {path.stem for path in tmp_path.iterdir()}
    assert images == {group.replace(" ", "-") for group in paper.GROUPS}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_benchmark_command_writes_everything(tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks", "small tasks"),
            *(
                "--scale",
                str(SCALE),
                "--least",
                "2",
                "--most",
                "2",
                "--output",
                str(tmp_path),
            ),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=3 * PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 small tasks, computed" in done.stdout
    results = json.loads((tmp_path / "benchmarks.json").read_text())
    assert len(results["comparisons"][0]["peers"]["daskps"]["runs"]) == 2
    assert results["goals"] == [], "they are for the full size"
    images = {path.name for path in tmp_path.iterdir()} - {"benchmarks.json"}
    assert images == {"nothing-large.png", "nothing-large.svg"}


@pytest.mark.parametrize(
    "command",
    [
        ["benchmarks.spreading", "--mb", "8"],
        ["benchmarks.thousand_hosts", "--hosts", "20", "--seconds", "1"],
        ["benchmarks.explaining", "--scale", "0.001"],
    ],
)
def test_what_needs_no_cluster(command):
    output = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    ).stdout
    assert len(output.splitlines()) >= 5
