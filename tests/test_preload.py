"""Clients of a program that cannot be changed."""

from __future__ import annotations

import os
import subprocess
import sys

import dask
import numpy as np
from processes import PATIENCE, graph_nbytes, messages_sent, released

import daskps

X = np.arange(1 << 18, dtype="f8")  # 2 MiB
PRELOAD = {"distributed.client.preload": ["daskps.preload"]}


def test_the_environment_switches_daskps_on(client):
    program = f"""
import sys
import numpy as np
from distributed import Client
with Client({client.scheduler.address!r}) as client:
    a = np.random.default_rng(0).random(1 << 18)
    assert client.submit(np.sum, a).result() == a.sum()
    assert "daskps" in sys.modules
    import daskps
    assert daskps.usage().objects
"""
    environment = {"DASK_DISTRIBUTED__CLIENT__PRELOAD": '["daskps.preload"]'}
    command = [sys.executable, "-c", program]
    subprocess.run(
        command, check=True, timeout=PATIENCE, env={**os.environ, **environment}
    )


def test_the_configuration_switches_daskps_on(cluster, client):
    with (
        dask.config.set(PRELOAD),
        cluster.client(set_as_default=False) as preloaded,
        messages_sent(preloaded) as messages,
    ):
        assert preloaded.submit(np.sum, X).result() == X.sum()
    assert graph_nbytes(messages) < X.nbytes / 2


def test_a_client_that_has_a_session_keeps_it(cluster, client):
    with (
        dask.config.set({**PRELOAD, "daskps.threshold": "1 GiB"}),
        daskps.Client(
            cluster.address, threshold="64 KiB", set_as_default=False
        ) as ours,
    ):
        assert ours.submit(np.sum, X).result() == X.sum()
        assert daskps.usage(ours).objects == 1


def test_without_the_preload_values_stay_in_the_graph(cluster, client):
    with (
        cluster.client(set_as_default=False) as plain,
        messages_sent(plain) as messages,
    ):
        assert plain.submit(np.sum, X).result() == X.sum()
    assert graph_nbytes(messages) > X.nbytes


def test_closing_the_client_ends_the_session(cluster, client):
    with dask.config.set(PRELOAD), cluster.client(set_as_default=False) as preloaded:
        assert preloaded.submit(np.sum, X).result() == X.sum()
        assert daskps.usage(client).objects == 1
    assert released(client)
