"""TaPS, the suite of the paper, with :class:`daskps.Client` in the place of Dask's.

Its applications are run as they are. ``DASKPS_TAPS`` names a checkout of TaPS, whose
dependencies are installed: ``parsl globus-compute-sdk ray pydantic-settings tomli-w``, and
for some applications ``torch torchvision`` or ``ase rdkit matplotlib tblite``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest
from processes import HERE, PATIENCE, ProcessCluster

from benchmarks import counters

TAPS = os.environ.get("DASKPS_TAPS", "")

#: Applications whose values are large, and what they need.
LARGE = {
    "cholesky": [],
    "synthetic bag": [],
    "synthetic diamond": [],
    "synthetic reduce": [],
    "synthetic sequential": [],
    "mapreduce": [],
    "fedlearn": ["torch", "torchvision"],
}
SMALL = {"moldesign": ["ase", "rdkit", "matplotlib", "tblite"]}
#: Of xtb there is no wheel. Its authors' other program has the same method.
XTB = """
    from tblite.ase import TBLite

    def XTB(accuracy):
        return TBLite(accuracy=accuracy, verbosity=0)
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not TAPS, reason="DASKPS_TAPS names no checkout of TaPS"),
]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Where Python finds TaPS, which asks for its own version, and xtb."""
    place = tmp_path_factory.mktemp("installed")
    (place / "taps-0.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: taps\nVersion: 0\n"
    (place / "taps-0.dist-info" / "METADATA").write_text(metadata)
    (place / "xtb" / "ase").mkdir(parents=True)
    (place / "xtb" / "ase" / "calculator.py").write_text(textwrap.dedent(XTB))
    return os.pathsep.join([TAPS, str(place), HERE])


@pytest.fixture(scope="module")
def cluster(path):
    where = {"PYTHONPATH": path}
    with ProcessCluster(scheduler=where, worker=where) as cluster:
        yield cluster


@pytest.fixture
def run(cluster, path, tmp_path):
    """Runs an application: its answer, and bytes that went through the scheduler."""

    def run(name, client):
        place = tmp_path / client
        place.mkdir()
        program = os.path.join(HERE, "run_taps.py")
        with cluster.client(set_as_default=False) as own:
            counters.install(own)
            before = counters.traffic(own)
            done = subprocess.run(
                [sys.executable, program, name, client, cluster.file, str(place)],
                env={**os.environ, "PYTHONPATH": path},
                capture_output=True,
                text=True,
                timeout=4 * PATIENCE,
                check=False,
            )
            nbytes = counters.traffic(own) - before
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), nbytes

    return run


def same_answers(run, name, modules):
    """Bytes over the scheduler of an application without daskps, and with it."""
    for module in modules:
        pytest.importorskip(module, reason=f"{name} needs it")
    expected, plain = run(name, "plain")
    found, nbytes = run(name, "daskps")
    print(f"{name}: {plain:,} B over the scheduler, with daskps {nbytes:,}")
    assert found == expected
    return plain, nbytes


@pytest.mark.parametrize("name", LARGE)
def test_large_values_go_by_reference(run, name):
    plain, nbytes = same_answers(run, name, LARGE[name])
    assert nbytes < 0.01 * plain


@pytest.mark.parametrize("name", SMALL)
def test_small_values_are_as_before(run, name):
    same_answers(run, name, SMALL[name])
