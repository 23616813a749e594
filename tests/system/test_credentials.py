"""Credentials of a store reach those who need them, and are seen nowhere."""

from __future__ import annotations

import io
import logging
import pickle
import re
import traceback
import urllib.request
from urllib.parse import urljoin

import dask
import numpy as np
import pytest
from distributed.protocol import serialize_bytelist
from processes import PATIENCE, Gate, ProcessCluster, messages_sent
from redis_server import redis_server

import daskps
from benchmarks.cluster import free_port
from daskps.client.link import ClusterLink
from daskps.stores.redis import server as server_of_redis

X = np.arange(1 << 18, dtype="f8")  # 2 MiB
USER = "the-user-of-tests"
# Of nothing that is quoted in a URL, and of no word that is there for another reason.
PASSWORD = "Pa55word0fTests"
SECRETS = (USER, PASSWORD)
DEBUG = {
    "DASK_LOGGING__ROOT": "DEBUG",
    "DASK_LOGGING__DISTRIBUTED": "DEBUG",
    "DASK_LOGGING__TORNADO": "DEBUG",
    "DASK_LOGGING__DASKPS": "DEBUG",
}


@pytest.fixture(scope="module")
def server():
    with redis_server() as server:
        server.admin.acl_setuser(
            USER,
            enabled=True,
            passwords=[f"+{PASSWORD}"],
            categories=["+@all"],
            keys=["*"],
        )
        yield server


@pytest.fixture(scope="module")
def cluster():
    """Everything logged that can be, and everything shown that can be."""
    with ProcessCluster(
        workers=1, scheduler=DEBUG, worker=DEBUG, dashboard=True
    ) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with cluster.client() as client:
        yield client


@pytest.fixture
def address(server):
    return f"127.0.0.1:{server.port}"


@pytest.fixture(params=["in the URL", "in the configuration"])
def store(request, address):
    """A URL, and the credentials there or in the configuration."""
    if request.param == "in the URL":
        yield f"redis://{USER}:{PASSWORD}@{address}/0"
        return
    with dask.config.set(
        {"daskps.redis.username": USER, "daskps.redis.password": PASSWORD}
    ):
        yield f"redis://{address}/0"


@pytest.fixture
def logged():
    """What this process logs."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.DEBUG)
    root.addHandler(handler)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


def assert_not_in(text, where):
    data = text if isinstance(text, bytes) else text.encode()
    for secret in SECRETS:
        at = data.find(secret.encode())
        assert at < 0, f"in {where}: {data[max(0, at - 300) : at + 100]!r}"


def test_a_server_with_a_password_refuses_others(address, client):
    with (
        pytest.raises(daskps.ConfigError, match="uthentication"),
        daskps.proxy_graph(f"redis://{address}"),
    ):
        pass


def test_credentials_are_not_in_graphs(store, client):
    with daskps.proxy_graph(store), messages_sent(client) as messages:
        proxy = daskps.proxy(X)
        futures = [
            client.submit(np.sum, X),
            client.submit(np.max, proxy),
            dask.delayed(np.min)(X + 1).persist(),
        ]
        client.gather(futures[:2])
        graphs = [m for m in messages if m["op"] == "update-graph"]
        assert len(graphs) == 3
        for message in messages:
            sent = b"".join(bytes(f) for f in serialize_bytelist(message))
            assert_not_in(sent, f"a message ({message['op']})")
        assert_not_in(pickle.dumps(proxy), "a proxy")
        del futures, proxy, messages, graphs, message, sent


def test_credentials_are_not_in_representations(store, client, cluster):
    with (
        daskps.proxy_graph(store) as session,
        daskps.Client(cluster.address, store=store, set_as_default=False) as other,
    ):
        catalog = session.catalog(client)
        shown = [
            session,
            session._repr_html_(),
            session.settings,
            session.request,
            other,
            other._repr_html_(),
            catalog.store,
            catalog.store.config(),
            catalog.store.connector,
            catalog.store.connector.config(),
            catalog.put([b"x" * 100]).id,
            ClusterLink.of(client),
            daskps.usage(),
            dict(daskps.usage()),
        ]
        for value in shown:
            assert_not_in(repr(value) + str(value), f"a {type(value)}")
        said = client.run_on_scheduler(representations_on_the_scheduler)
        said |= client.run(representations_on_a_worker)
        assert len(said) == 2
        assert_not_in(str(said), "a process of the cluster")


def representations_on_the_scheduler(dask_scheduler):
    (plugin,) = (
        p for p in dask_scheduler.plugins.values() if "daskps" in repr(type(p))
    )
    return {"plugin": f"{plugin!r} {vars(plugin)}"}


def representations_on_a_worker(dask_worker):
    return " ".join(
        f"{name!r} {plugin!r} {getattr(plugin, '__dict__', None)}"
        for name, plugin in dask_worker.plugins.items()
    )


def test_credentials_are_not_in_logs(store, client, cluster, logged):
    with daskps.proxy_graph(store):
        future = client.submit(np.add, X, 1)
        np.testing.assert_array_equal(future.result(), X + 1)
        assert client.submit(fail, X, pure=False).exception()
        del future
    assert "DEBUG" in cluster.log("scheduler"), "the level is not what this is about"
    for name in ("scheduler", "worker"):
        assert_not_in(cluster.log(name), f"the log of the {name}")
    assert_not_in(logged.getvalue(), "the log of the client")
    assert_not_in(
        str(client.get_scheduler_logs()), "what the scheduler kept of its log"
    )
    assert_not_in(str(client.get_worker_logs()), "what a worker kept of its log")
    assert_not_in(str(client.get_events()), "events")


def fail(x):
    raise RuntimeError("of the user's own")


@pytest.fixture
def soon(client):
    """The scheduler, which opens stores, does not wait long for an answer."""
    timeout = server_of_redis.ANSWER_SECONDS
    client.run_on_scheduler(set_timeout, 1.0)
    yield
    client.run_on_scheduler(set_timeout, timeout)


def set_timeout(seconds):
    server_of_redis.ANSWER_SECONDS = seconds


@pytest.mark.usefixtures("soon")
def test_credentials_are_not_in_errors(client, address):
    stores = {
        "unreachable": f"redis://{USER}:{PASSWORD}@127.0.0.1:{free_port()}",
        "another user": f"redis://{USER}x:{PASSWORD}@{address}",
        "another password": f"redis://{USER}:{PASSWORD}x@{address}",
        "no host": f"redis://{USER}:{PASSWORD}@/0",
        "no database": f"redis://{USER}:{PASSWORD}@{address}/zero",
        "no port": f"redis://{USER}:{PASSWORD}@host:port",
        "an option": f"redis://{USER}:{PASSWORD}@{address}?option={PASSWORD}",
        "an option of TLS": f"rediss://{USER}:{PASSWORD}@{address}?password={PASSWORD}",
        "no TLS there": f"rediss://{USER}:{PASSWORD}@{address}",
        "a slash in it": f"redis://{USER}:/{PASSWORD}@{address}",
        "a hash in it": f"redis://{USER}:#{PASSWORD}@{address}",
        "a question": f"redis://{USER}:?{PASSWORD}@{address}",
        "an at": f"redis://{USER}:@{PASSWORD}/{USER}@{address}",
        "unknown": f"unknown://{USER}:/#?{PASSWORD}@{address}",
    }
    for name, url in stores.items():
        with (
            dask.config.set({"daskps.store": url}),
            pytest.raises(daskps.DaskpsError) as error,
            daskps.proxy_graph(),
        ):
            pass
        text = "".join(traceback.format_exception(error.value))
        assert_not_in(text, f"the error for {name}")


def test_credentials_are_not_in_errors_of_tasks_and_warnings(
    client, server, address, logged
):
    store = f"redis://{USER}:{PASSWORD}@{address}"
    with (
        dask.config.set({"daskps.read-timeout": "100ms"}),
        daskps.proxy_graph(store) as session,
    ):
        gate = Gate(client)
        future = client.submit(sum_later, X, gate.future, key="reads-nothing")
        server.admin.acl_setuser(USER, enabled=False)
        server.admin.execute_command("CLIENT", "KILL", "USER", USER)
        gate.open()
        try:
            with pytest.raises(daskps.ObjectMissingError) as error:
                future.result(timeout=PATIENCE)
            assert_not_in(f"{error.value!r}", "the error of a task")
            with pytest.warns(UserWarning, match="sent inside the graph") as caught:
                client.submit(np.sum, X + 1).result(timeout=PATIENCE)
            assert_not_in(str([w.message for w in caught]), "a warning")
        finally:
            server.admin.acl_setuser(USER, enabled=True)
        del session, gate
        future.release()
    assert_not_in(logged.getvalue(), "the log of the client")


def sum_later(x, gate):
    return x.sum()


def test_credentials_are_not_on_the_dashboards(store, client):
    with daskps.proxy_graph(store):
        future = client.submit(np.add, X, 1, key="shown")
        future.result()
        worker = next(iter(client.scheduler_info()["workers"].values()))
        port = client.scheduler_info()["services"]["dashboard"]
        pages = set()
        for start in (
            f"http://127.0.0.1:{port}/info/main/workers.html",
            f"http://127.0.0.1:{port}/info/task/shown.html",
            f"http://127.0.0.1:{port}/json/counts.json",
            f"http://127.0.0.1:{port}/json/identity.json",
            f"http://127.0.0.1:{port}/metrics",
            f"http://127.0.0.1:{port}/sitemap.json",
            f"http://127.0.0.1:{worker['services']['dashboard']}/metrics",
            f"http://127.0.0.1:{worker['services']['dashboard']}/info/main/workers.html",
        ):
            visit(start, pages)
        assert len(pages) > 10
        del future


def visit(page, pages):
    """Look at a page, and at all that it leads to on the same server."""
    if page in pages or len(pages) > 100:
        return
    pages.add(page)
    try:
        with urllib.request.urlopen(page, timeout=PATIENCE) as answer:
            text = answer.read()
    except OSError:
        return  # not every link leads somewhere
    assert_not_in(text, page)
    if "/info/" in page:
        for link in re.findall(rb'href="([^"#]+)"', text):
            target = urljoin(page, link.decode())
            if target.startswith(page[: page.index("/", 8)]) and "static" not in target:
                visit(target, pages)
