"""The stores on Dask's dashboard, and in what else the scheduler shows."""

from __future__ import annotations

import json
import os
import re
import sys
from functools import partial

import numpy as np
import pytest
from distributed import performance_report, wait
from pages import NO_BROWSER, base, browser, document, text
from processes import ProcessCluster, eventually

import daskps

X = np.arange(1 << 18, dtype="f8")  # 2 MiB
PLOTS = ["occupancy", "objects", "bandwidth", "hits"]


@pytest.fixture(scope="module")
def shown_cluster():
    """A cluster with a dashboard."""
    pytest.importorskip("bokeh", reason="Bokeh is not installed")
    with ProcessCluster(dashboard=True) as cluster:
        yield cluster


@pytest.fixture
def client(shown_cluster):
    with shown_cluster.client() as client:
        yield client


def model(doc, name):
    return doc.get_model_by_name(f"daskps-{name}")


def source_of(doc, name):
    return model(doc, name).renderers[0].data_source


def latest(doc):
    """What the plot of occupancy shows last, by kind."""
    data = source_of(doc, "occupancy").data
    return {kind: values[-1] for kind, values in data.items() if len(values)}


def test_tasks_pages_name_their_objects(client):
    """Whether or not there is a dashboard."""
    with daskps.proxy_graph():
        large, small = client.submit(np.sum, X), client.submit(np.sum, 1)
        wait([large, small])
        page = text(f"{base(client)}/info/task/{large.key}.html")
        assert "Objects that it reads from stores" in page
        assert "2.00 MiB" in page
        assert client.id in page
        assert page.index("daskps-objects") < page.index("Dependencies")
        page = text(f"{base(client)}/info/task/{small.key}.html")
        assert "Objects that it reads from stores" not in page
        assert "Dependencies" in page


class TestPages:
    def test_they_are_in_the_bar_and_listed_for_jupyterlab(self, client):
        with daskps.proxy_graph():
            listed = json.loads(text(f"{base(client)}/individual-plots.json"))
            for plot in PLOTS:
                path = f"/individual-daskps-{plot}"
                assert listed[f"Individual Daskps {plot.title()}"] == path
                assert "Bokeh" in text(f"{base(client)}{path}")
            for page in ("daskps", "status"):
                bar = text(f"{base(client)}/{page}")
                assert re.search(r'href="(/|\./)?daskps"', bar)
                assert "Daskps Occupancy" in bar

    def test_another_session_adds_nothing(self, client):
        with daskps.proxy_graph(), daskps.proxy_graph(threshold="1 MiB"):
            bar = text(f"{base(client)}/status")
        assert len(re.findall(r'href="(?:/|\./)?daskps"', bar)) == 1

    def test_the_page_has_what_usage_has(self, client):
        now = partial(document, f"{base(client)}/daskps")
        with daskps.proxy_graph():
            futures = [client.submit(np.add, X, i) for i in range(3)]
            assert (futures[0].result() == X).all()
            rows = [row for row in daskps.usage().values() if row["objects"]]
            assert [row["objects"] for row in rows] == [1]

            def is_shown():
                shown = latest(now())
                return (
                    shown.get("needed") == rows[0]["bytes"]
                    and shown["result_bytes"] >= X.nbytes
                )

            assert eventually(is_shown)
            assert eventually(lambda: "2.00 MiB" in model(now(), "summary").text)
            objects = model(now(), "objects").source.data
            assert list(objects["nbytes"]) == [rows[0]["bytes"]]
            assert list(objects["tasks"]) == [3]
            assert list(objects["clients"]) == [client.id]
            assert objects["names"][0].startswith("add")
            hits = source_of(now(), "hits").data
            assert sum(hits["found"]) == sum(
                row["found"] for row in daskps.usage().values()
            )
            (host,) = source_of(now(), "bandwidth").data["host"]
            assert host == os.uname().nodename
            del futures
            assert eventually(lambda: latest(now())["needed"] == 0)
            assert eventually(lambda: not latest(now())["result_bytes"])
            assert latest(now())["idle"] == rows[0]["bytes"], "the session keeps it"

    def test_bandwidth_shows_what_is_read_at_the_moment(self, client):
        now = partial(document, f"{base(client)}/individual-daskps-bandwidth")
        with daskps.proxy_graph():

            def reads():
                client.submit(np.sum, X, pure=False).result()
                return sum(source_of(now(), "bandwidth").data["reads"])

            assert eventually(lambda: reads() > 0)
            assert eventually(
                lambda: sum(source_of(now(), "bandwidth").data["reads"]) == 0
            )

    def test_a_performance_report_has_the_page(self, client, tmp_path):
        report = tmp_path / "report.html"
        with daskps.proxy_graph():
            with performance_report(str(report), mode="inline"):
                client.submit(np.sum, X).result()
            html = report.read_text()
        assert '"title":"daskps"' in html
        assert "daskps-occupancy" in html
        assert "Kept off the scheduler" in html

    def test_a_fault_of_ours_costs_no_report(self, shown_cluster, tmp_path):
        settings = {"DASK_DASKPS__SAFETY_NET": "True"}
        report = tmp_path / "report.html"

        def break_board(dask_scheduler):
            from daskps.scheduler.board import plots

            del plots.Summary.update

        with (
            ProcessCluster(1, dashboard=True, scheduler=settings) as another,
            another.client() as client,
            daskps.proxy_graph(),
        ):
            client.run_on_scheduler(break_board)
            with performance_report(str(report), mode="inline"):
                client.submit(np.sum, X).result()
            assert "Task Stream" in report.read_text()
            assert '"title":"daskps"' not in report.read_text()
            assert daskps.usage().faults == 1


def imported(dask_scheduler):
    return [name for name in sys.modules if name.partition(".")[0] == "bokeh"]


def test_nothing_of_bokeh_is_imported_without_a_dashboard():
    pytest.importorskip("bokeh", reason="Bokeh is not installed")
    with (
        ProcessCluster(1) as another,
        another.client() as client,
        daskps.proxy_graph(),
    ):
        assert client.submit(np.sum, X).result() == X.sum()
        assert daskps.usage().objects == 1
        assert client.run_on_scheduler(imported) == []


class TestPrometheus:
    @pytest.fixture(autouse=True)
    def _is_there(self):
        pytest.importorskip("prometheus_client", reason="it is not installed")

    @staticmethod
    def metrics(url):
        lines = [line for line in text(url).splitlines() if line.startswith("daskps_")]
        return {name: float(n) for name, _, n in (li.rpartition(" ") for li in lines)}

    @staticmethod
    def of(metrics, name, **labels):
        """The sum of those with these labels."""
        return sum(
            value
            for key, value in metrics.items()
            if key.partition("{")[0] == name
            and all(f'{label}="{is_}"' in key for label, is_ in labels.items())
        )

    def test_it_is_told_by_the_scheduler(self, client):
        with daskps.proxy_graph():
            futures = [client.submit(np.sum, X, initial=i) for i in range(3)]
            wait(futures)
            usage = daskps.usage()
            metrics = self.metrics(f"{base(client)}/metrics")
            for name, labels, expected in (
                ("objects", {"kind": "objects"}, 1),
                ("bytes", {"kind": "objects"}, usage.nbytes),
                ("hits", {}, usage.hits),
                ("puts_total", {}, sum(row["puts"] for row in usage.values())),
                ("off_scheduler_bytes_total", {}, usage.off_scheduler),
            ):
                found = self.of(
                    metrics, f"daskps_scheduler_{name}", store="shm://", **labels
                )
                assert found == expected, name
            assert self.of(metrics, "daskps_scheduler_room_bytes") > 0
            del futures

    def test_it_is_told_by_each_worker(self, client):
        with daskps.proxy_graph():
            futures = client.map(np.add, [X, X + 1, X + 2, X + 3], [1, 2, 3, 4])
            client.gather(futures)
            workers = client.scheduler_info()["workers"]
            found = [
                self.metrics(f"http://{w['host']}:{w['services']['dashboard']}/metrics")
                for w in workers.values()
            ]
            reads = [self.of(one, "daskps_worker_reads_total") for one in found]
            results = [self.of(one, "daskps_worker_objects") for one in found]
            assert min(reads) >= 0
            assert sum(reads) >= 4
            assert sum(results) == 4
            assert all('store="shm://"' in key for one in found for key in one)
            del futures


def fine_metrics(dask_scheduler):
    return dict(dask_scheduler.cumulative_worker_metrics)


def test_dasks_fine_performance_metrics_have_reads_and_puts(client):
    with daskps.proxy_graph():
        future = client.submit(np.add, X, 5)
        assert (future.result() == X + 5).all()
        found = {}

        def complete():
            metrics = client.run_on_scheduler(fine_metrics)
            found.clear()
            for key, value in metrics.items():
                if isinstance(key, tuple):
                    found[key[0], key[-2], key[-1]] = value
            return ("get-data", "daskps-put", "bytes") in found

        assert eventually(complete)
        assert found["execute", "daskps-read", "bytes"] >= X.nbytes
        assert found["execute", "daskps-read", "count"] >= 1
        assert found["execute", "daskps-read", "seconds"] > 0
        assert found["get-data", "daskps-put", "bytes"] >= X.nbytes
        del future


@pytest.mark.slow
@pytest.mark.skipif(NO_BROWSER is not None, reason=str(NO_BROWSER))
class TestInABrowser:
    @pytest.fixture(autouse=True)
    def _driver(self):
        pytest.importorskip("selenium", reason="selenium is not installed")

    SHOWN = """
        const models = Bokeh.documents[0]._all_models;
        const named = (name) => [...models.values()].find(m => m.name == name);
        const data = named("daskps-occupancy").renderers[0].data_source.data;
        const last = (values) => values[values.length - 1];
        return {
            needed: last(data.needed), idle: last(data.idle),
            results: last(data.result_bytes), samples: data.time.length,
            summary: named("daskps-summary").text,
            sizes: named("daskps-objects").source.data.size,
        };
    """

    def test_it_loads_and_changes_while_a_computation_runs(self, client):
        with daskps.proxy_graph(), browser() as driver:
            driver.get(f"{base(client)}/daskps")
            assert eventually(lambda: driver.execute_script("return !!window.Bokeh"))
            assert eventually(
                lambda: driver.execute_script("return Bokeh.documents.length") == 1
            )
            assert driver.title == "Dask: daskps"
            before = driver.execute_script(self.SHOWN)
            assert before["sizes"] == []
            futures = [client.submit(np.add, X, i) for i in range(4)]
            client.gather(futures)
            nbytes = daskps.usage().nbytes

            def shown():
                return driver.execute_script(self.SHOWN)

            assert eventually(lambda: shown()["needed"] == nbytes)
            assert eventually(lambda: shown()["results"] >= 4 * X.nbytes)
            assert shown()["sizes"] == ["2.00 MiB"]
            assert "1, 2.00 MiB" in shown()["summary"]
            # What the browser has drawn, not only what it knows.
            body = driver.find_element("tag name", "body").text
            assert "Status" in body
            del futures
            assert eventually(lambda: shown()["needed"] == 0)
            assert shown()["samples"] > before["samples"]
            self.check_log(driver)

    @pytest.mark.parametrize("plot", PLOTS)
    def test_each_plot_loads_alone(self, client, plot):
        with daskps.proxy_graph(), browser() as driver:
            future = client.submit(np.sum, X)
            driver.get(f"{base(client)}/individual-daskps-{plot}")
            assert eventually(lambda: driver.execute_script("return !!window.Bokeh"))
            assert eventually(
                lambda: driver.execute_script("return Bokeh.documents.length") == 1
            )
            assert future.result() == X.sum()
            self.check_log(driver)

    def test_a_performance_report_opens(self, client, tmp_path):
        report = tmp_path / "report.html"
        with daskps.proxy_graph(), performance_report(str(report), mode="inline"):
            client.submit(np.sum, X).result()
        with browser() as driver:
            driver.get(report.as_uri())
            titles = """
                const models = Bokeh.documents[0]._all_models;
                return [...models.values()].filter(m => m.type == "TabPanel")
                    .map(m => m.title);
            """
            assert eventually(lambda: driver.execute_script("return !!window.Bokeh"))
            assert eventually(lambda: "daskps" in driver.execute_script(titles))
            self.check_log(driver)

    @staticmethod
    def check_log(driver):
        errors = [line for line in driver.get_log("browser") if is_error(line)]
        assert errors == []


def is_error(line):
    # Dask's own pages name an icon that is not there.
    return line["level"] == "SEVERE" and "favicon" not in line["message"]
