"""TLS as Dask has it, of what a process has at hand."""

from __future__ import annotations

import json
import pickle
import ssl
from pathlib import Path

import dask
import pytest
from certificates import Authority
from cryptography.hazmat.primitives import serialization
from distributed import Security

from daskps.dask_private.security import configured_tls
from daskps.exceptions import ConfigError
from daskps.tls import Tls, at_hand, encrypts, source_at_hand


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture
def settings(authority, tmp_path):
    """Of Dask, with files that a test may change."""
    return authority.settings(tmp_path)


def meet(client, server):
    """Have two ends talk; the client's, once each has accepted the other."""
    bios = [ssl.MemoryBIO(), ssl.MemoryBIO()]
    ends = [
        client.connecting.wrap_bio(bios[0], bios[1]),
        server.listening.wrap_bio(bios[1], bios[0], server_side=True),
    ]
    done = set()
    for _ in range(10):
        for end in ends:
            try:
                end.do_handshake()
                done.add(end)
            except ssl.SSLWantReadError:
                pass
    assert len(done) == 2
    return ends[0]


def test_both_ends_show_a_certificate(authority):
    met = meet(authority.tls(), authority.tls())
    assert met.getpeercert()
    for one, other in ((authority, Authority()), (Authority(), authority)):
        with pytest.raises(ssl.SSLError):
            meet(one.tls(), other.tls())


def test_it_travels_as_json_and_not_otherwise(authority):
    tls = authority.tls()
    assert meet(Tls(**json.loads(json.dumps(tls.config()))), tls).version()
    assert "PRIVATE" not in repr(tls) + str(vars(tls).keys())
    with pytest.raises(TypeError, match="stay in their process"):
        pickle.dumps(tls)


@pytest.mark.parametrize("how", ["files", "in memory", "one file"])
def test_what_dask_is_given(settings, how):
    tls = "distributed.comm.tls."
    if how == "one file":
        with open(settings[f"{tls}client.cert"], "a") as file:
            file.write(Path(settings.pop(f"{tls}client.key")).read_text())
    if how == "in memory":
        settings = {name: Path(path).read_text() for name, path in settings.items()}
    with dask.config.set(settings):
        assert meet(configured_tls(), configured_tls()).version()


def test_a_temporary_one():
    made = Security.temporary()
    settings = {
        "distributed.comm.tls.ca-file": made.tls_ca_file,
        "distributed.comm.tls.client.cert": made.tls_client_cert,
        "distributed.comm.tls.client.key": made.tls_client_key,
    }
    with dask.config.set(settings):
        assert meet(configured_tls(), configured_tls()).version()


def test_versions_and_ciphers_are_those_of_dask(settings):
    with dask.config.set(settings):
        plain = configured_tls()
        for name, value, seen in (
            ("max-version", 1.2, "TLSv1.2"),
            ("min-version", 1.3, "TLSv1.3"),
        ):
            with dask.config.set({f"distributed.comm.tls.{name}": value}):
                assert meet(configured_tls(), plain).version() == seen
        cipher = "ECDHE-ECDSA-AES128-GCM-SHA256"
        only = {
            "distributed.comm.tls.ciphers": cipher,
            "distributed.comm.tls.max-version": 1.2,
        }
        with dask.config.set(only):
            assert meet(configured_tls(), plain).cipher()[0] == cipher


def test_none():
    with pytest.raises(ConfigError, match=r"tls_client_cert .*client\.cert"):
        configured_tls()


@pytest.mark.parametrize("what", ["missing", "empty", "with a password"])
def test_what_cannot_be_used(settings, tmp_path, what):
    name = "distributed.comm.tls.client.key"
    if what == "missing":
        settings[name] = str(tmp_path / "missing")
    elif what == "empty":
        (tmp_path / "client-key").write_text("")
    else:
        key = serialization.load_pem_private_key(
            (tmp_path / "client-key").read_bytes(), None
        )
        locked = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
        (tmp_path / "client-key").write_bytes(locked)
    why = "has a password" if what == "with a password" else ""
    with (
        dask.config.set(settings),
        pytest.raises(ConfigError, match=f"for a client cannot be used.*{why}"),
    ):
        configured_tls()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("tcp://10.0.0.1:1", False),
        ("inproc://10.0.0.1/1/1", False),
        ("ws://10.0.0.1:1", False),
        ("tls://10.0.0.1:1", True),
        ("wss://10.0.0.1:1", True),
        ("gateway://proxy:1/name", True),
    ],
)
def test_addresses_that_encrypt(address, expected):
    assert encrypts(address) is expected


def test_what_is_at_hand_is_so_within_a_block(authority):
    assert source_at_hand() is None
    with at_hand(authority.tls):
        assert source_at_hand() is not None
        with at_hand(None):
            assert source_at_hand() is None
    assert source_at_hand() is None
