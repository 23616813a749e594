"""The examples give the right answer, at small size; they check it themselves."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from processes import PATIENCE, ROOT

SMALL = {
    "cholesky": "--size 256 --block 128",
    "cholesky_futures": "--size 256 --block 128",
    "federated": "--clients 4 --rounds 3 --hidden 64",
    "lookup_join": "--rows 20000 --pages 20000",
    "anomalies_xarray": "--days 40 --grid 20 --chunk 10",
    "molecules": "--molecules 300 --rounds 2 --batch 10 --seeds 2",
    "predict_partitions": "--rows 2000 --trees 20 --partitions 4",
}
NEEDS = {"anomalies_xarray": "xarray", "molecules": "rdkit"}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_an_application(name):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason="it is in the extra 'examples' alone")
    done = subprocess.run(
        [
            *(sys.executable, os.path.join(ROOT, "examples", f"{name}.py")),
            *(*SMALL[name].split(), "--repeat", "1"),
        ],
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bytes through the scheduler" in done.stdout
    assert "run 1 of 1" in done.stderr, "it says how far it is"


def test_every_example_is_run():
    """Here, or with each store's URL by test_proxystore_ways.py."""
    names = {f.removesuffix(".py") for f in os.listdir(os.path.join(ROOT, "examples"))}
    others = {"by_hand", "drop_in_client", "wrapping_executor", "measuring"}
    assert {n for n in names if n.isidentifier() and n != "__pycache__"} == (
        SMALL.keys() | others
    )
