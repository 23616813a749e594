"""The applications of TaPS, the task performance suite, on daskps's client.

``DASKPS_TAPS`` names a checkout of https://github.com/proxystore/taps. What it needs has to
be installed, and so has what each application needs.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from processes import HERE, PATIENCE, ROOT, ProcessCluster

TAPS = os.environ.get("DASKPS_TAPS")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(TAPS is None, reason="DASKPS_TAPS names no checkout of TaPS"),
]

#: Applications, and the modules that each needs.
APPLICATIONS = {
    "cholesky": [],
    "synthetic": [],
    "mapreduce": [],
    "fedlearn": ["torch", "torchvision"],
    "moldesign": ["ase", "xtb", "rdkit"],
}


@pytest.mark.parametrize("name", APPLICATIONS)
def test_an_application(name, tmp_path):
    for module in APPLICATIONS[name]:
        pytest.importorskip(module)
    plain, plain_nbytes = run(name, "dask", tmp_path)
    ours, nbytes = run(name, "daskps", tmp_path)
    assert len(ours) == len(plain) > 0
    for one, other in zip(ours, plain, strict=True):
        np.testing.assert_equal(one, other)
    assert nbytes < 0.01 * plain_nbytes, (nbytes, plain_nbytes)


def run(name, kind, directory):
    """What an application answers, and bytes that go through the scheduler."""
    where = directory / kind
    where.mkdir()
    path = os.pathsep.join([TAPS, HERE, ROOT])
    environment = {**os.environ, "PYTHONPATH": path}
    with ProcessCluster(
        scheduler={"PYTHONPATH": TAPS}, worker={"PYTHONPATH": TAPS}
    ) as cluster:
        program = os.path.join(HERE, "taps_program.py")
        done = subprocess.run(
            [sys.executable, program, cluster.address, kind, name, str(where)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=4 * PATIENCE,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return pickle.loads((where / "answer.pickle").read_bytes())
