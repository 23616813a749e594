"""Settings: their schema, what is valid, and which one counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import dask
import jsonschema
import pytest
import yaml
from proxystore.connectors.file import FileConnector
from proxystore.store import Store

import daskps
from daskps.stores import schemes

pytestmark = pytest.mark.core
PACKAGE = os.path.dirname(daskps.__file__)


def load(name):
    with open(os.path.join(PACKAGE, name)) as f:
        return yaml.safe_load(f)


def paths(properties, prefix=()):
    """Names of all settings of a schema."""
    for name, schema in properties.items():
        yield (*prefix, name)
        yield from paths(schema.get("properties", {}), (*prefix, name))


def keys(config, prefix=()):
    """Names of all settings of a configuration."""
    for name, value in config.items():
        yield (*prefix, name)
        if isinstance(value, dict):
            yield from keys(value, (*prefix, name))


def test_defaults_are_valid():
    jsonschema.validate(load("daskps.yaml"), load("daskps-schema.yaml"))


def test_schema_and_defaults_have_the_same_settings():
    schema = load("daskps-schema.yaml")
    jsonschema.Draft202012Validator.check_schema(schema)
    assert sorted(paths(schema["properties"])) == sorted(keys(load("daskps.yaml")))


def test_schema_refuses_settings_that_do_not_exist():
    config = load("daskps.yaml")
    config["daskps"]["treshold"] = 1
    with pytest.raises(jsonschema.ValidationError, match="treshold"):
        jsonschema.validate(config, load("daskps-schema.yaml"))


def test_every_setting_is_described():
    def leaves(properties):
        for name, schema in properties.items():
            if "properties" in schema:
                yield from leaves(schema["properties"])
            else:
                yield name, schema

    for name, schema in leaves(load("daskps-schema.yaml")["properties"]):
        assert schema.get("description", "").strip(), name


def test_importing_daskps_puts_the_defaults_into_dasks_configuration():
    # Not the threshold, which conftest.py sets in the environment.
    for key in "store", "results", "cache-size", "on-store-error", "shm.keep-warm":
        expected = load("daskps.yaml")["daskps"]
        for part in key.split("."):
            expected = expected[part]
        assert dask.config.get(f"daskps.{key}") == expected
    assert load("daskps.yaml")["daskps"]["shm"]["directory"] == "/dev/shm"


BAD = {
    "store": [
        ("s4://bucket", "shm://, file://"),
        ("not a url", "shm://, file://"),
        ("", "shm://, file://"),
        (7, "a URL"),
        ("file://relative/path", "three slashes"),
        ("file://", "three slashes"),
        ("shm:///dev/shm/mine", "daskps.shm.directory"),
        ("shm:/", "no known scheme"),
        ("redis:/host", "no known scheme"),
        ("shm://?keep=1", "nothing after"),
        ("file:///tmp?x=1", "nothing after"),
        ("file:///tmp#x", "nothing after"),
        ("peer://#x", "nothing after"),
    ],
    "threshold": [
        ("large", "a number of bytes"),
        ("1 XB", "a number of bytes"),
        (-1, "negative"),
        ("-1 MiB", "negative"),
        (True, "a number of bytes"),
        ([1], "a number of bytes"),
    ],
    "results": [("yes", "True, False or None"), (1, "True, False or None")],
}


@pytest.mark.parametrize(
    ("name", "value", "valid"),
    [(name, *case) for name, cases in BAD.items() for case in cases],
)
class TestABadValueFailsAtOnce:
    """The error names the setting, its value and what is valid."""

    def check(self, error, name, value, valid):
        message = str(error.value)
        assert name in message
        assert repr(value) in message
        assert valid in message

    def test_as_an_argument_of_proxy_graph(self, name, value, valid):
        with pytest.raises(daskps.ConfigError) as error:
            daskps.proxy_graph(**{name: value})
        self.check(error, name, value, valid)

    def test_in_the_configuration(self, name, value, valid):
        with (
            dask.config.set({f"daskps.{name}": value}),
            pytest.raises(daskps.ConfigError) as error,
            daskps.proxy_graph(),
        ):
            pass
        self.check(error, f"daskps.{name}", value, valid)

    def test_as_an_argument_of_a_client_before_anything_is_started(
        self, name, value, valid
    ):
        with pytest.raises(daskps.ConfigError) as error:
            daskps.Client("127.0.0.1:1", **{name: value})
        self.check(error, name, value, valid)


@pytest.mark.parametrize(
    "key", ["daskps.cache-size", "daskps.shm.keep-warm", "daskps.threshold"]
)
@pytest.mark.parametrize("value", ["plenty", -5, None])
def test_sizes_that_have_no_argument_are_checked_too(key, value):
    with (
        dask.config.set({key: value}),
        pytest.raises(daskps.ConfigError) as error,
        daskps.proxy_graph(),
    ):
        pass
    assert key in str(error.value)
    assert repr(value) in str(error.value)


@pytest.mark.parametrize("value", ["plenty", -5])
def test_sizes_that_may_be_left_to_daskps(value):
    with (
        dask.config.set({"daskps.shm.reserve": value}),
        pytest.raises(daskps.ConfigError, match=r"daskps\.shm\.reserve"),
        daskps.proxy_graph(),
    ):
        pass


def test_a_store_with_a_serializer_of_its_own_is_refused(tmp_path):
    connector = FileConnector(str(tmp_path / "objects"))
    with (
        Store("its-own", connector, serializer=bytes, register=False) as store,
        pytest.raises(daskps.ConfigError, match=r"store.*its-own.*store\.connector"),
    ):
        daskps.proxy_graph(store=store)


def test_a_config_error_is_a_value_error():
    with pytest.raises(ValueError, match="threshold='huge'"):
        daskps.proxy_graph(threshold="huge")


def test_a_store_whose_package_is_missing_says_how_to_install_it(monkeypatch, tmp_path):
    (tmp_path / "needy_store.py").write_text("import a_package_that_is_missing")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(
        schemes.SCHEMES, "needy", schemes.Scheme("needy_store", "needs")
    )
    with pytest.raises(daskps.ConfigError) as error:
        daskps.proxy_graph(store="needy://host")
    for word in ("needy://", "a_package_that_is_missing", "'daskps[needs]'", "worker"):
        assert word in str(error.value)


def test_modules_of_stores_are_imported_when_they_are_used():
    code = (
        "import sys, daskps\n"
        "from daskps.stores.schemes import SCHEMES\n"
        "assert not {s.module for s in SCHEMES.values()} & set(sys.modules)\n"
        "daskps.proxy_graph(store='shm://')\n"
        "assert 'daskps.stores.files.shm_scheme' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_scheme_that_is_gone():
    for use in daskps.proxy_graph, daskps.open_store:
        with pytest.raises(
            daskps.ConfigError, match=r"no zmq:// any more\. Use peer://"
        ):
            use("zmq://")


def test_errors_show_no_credentials():
    with pytest.raises(daskps.ConfigError) as error:
        daskps.proxy_graph(store="unknown://user:secret@host/0")
    assert "secret" not in str(error.value)
    assert "host" in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:s3cret@[::zz]:6379/0",
        "rediss://[::zz]",
        "peer://[::zz]",
        "file://[::zz]/directory",
        "unknown://[::zz]",
        "redis://:s3cret@[::1/0",
        "redis://:s3cret[@[::1]/0",
        "redis://:s3cret@ho\u2100st",
    ],
)
def test_an_address_that_is_none_is_an_error_without_credentials(url):
    for use in daskps.proxy_graph, daskps.open_store:
        with pytest.raises(
            daskps.ConfigError, match=r"not a URL.*redis://\[::1\]"
        ) as e:
            use(url)
        assert url.partition("://")[0] in str(e.value)
        assert "s3cret" not in str(e.value)


def test_what_is_no_client_is_an_error():
    with pytest.raises(daskps.ConfigError, match=r"client='x' is not a client: give"):
        daskps.proxy_graph(client="x")
    with pytest.raises(TypeError, match=r"usage\(\).*'x'"):
        daskps.usage("x")


def test_a_function_is_no_store():
    with pytest.raises(daskps.ConfigError) as error:
        daskps.proxy_graph(json.dumps, threshold=1, results=False)
    for words in (
        "store=dumps is a function",
        "proxy_graph(threshold=..., results=...)",
    ):
        assert words in str(error.value)
    for thing in (dict, object()):
        with pytest.raises(daskps.ConfigError, match="is not a store: give a URL"):
            daskps.proxy_graph(thing)


def test_sizes_are_numbers_or_strings():
    with daskps.proxy_graph(threshold=12345) as session:
        assert session.settings.threshold == 12345
    with daskps.proxy_graph(threshold="2 MiB") as session:
        assert session.settings.threshold == 2 << 20
    with daskps.proxy_graph(threshold=0) as session:
        assert session.settings.threshold == 0


def test_an_argument_comes_before_the_configuration():
    with dask.config.set({"daskps.threshold": "3 MiB"}):
        with daskps.proxy_graph() as session:
            assert session.settings.threshold == 3 << 20
        with daskps.proxy_graph(threshold="1 MiB") as session:
            assert session.settings.threshold == 1 << 20


def test_a_block_comes_before_a_clients_own_session(cluster):
    from daskps.client.session import current_session

    with (
        cluster.client(set_as_default=False) as plain,
        daskps.Client(plain.scheduler.address, threshold="5 MiB") as client,
        dask.config.set({"daskps.threshold": "3 MiB"}),
    ):
        assert current_session(client).settings.threshold == 5 << 20
        with daskps.proxy_graph(threshold="1 MiB"):
            assert current_session(client).settings.threshold == 1 << 20
        assert current_session(client).settings.threshold == 5 << 20


def test_environment_variables_are_read():
    code = (
        "import daskps\n"
        "with daskps.proxy_graph() as session:\n"
        "    print(session.settings.threshold, session.settings.store)\n"
    )
    environment = {
        **os.environ,
        "DASK_DASKPS__THRESHOLD": "2 MiB",
        "DASK_DASKPS__STORE": "file:///tmp",
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [str(2 << 20), "file:///tmp"]


def test_a_session_shows_its_settings():
    with daskps.proxy_graph(store="shm://", threshold="1 MiB") as session:
        assert "shm://" in repr(session)
        assert "1.00 MiB" in repr(session)
        assert "1.00 MiB" in session._repr_html_()


def test_a_url_that_lacks_a_slash_shows_no_password():
    with pytest.raises(daskps.ConfigError, match="no known scheme") as error:
        daskps.proxy_graph("redis:/user:secret@host")
    assert "secret" not in str(error.value)
