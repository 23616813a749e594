"""Ray as a peer: a program of its own, which does the same work and times it itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from benchmarks.results import Run
from benchmarks.scenario import Scenario

_HERE = Path(__file__).parent
#: Where ``--ray`` installs Ray, apart from everything else.
ENVIRONMENT = _HERE / "results" / "ray-venv"


def install() -> Path:
    """Install Ray into an environment of its own, unless that is there already.

    Returns
    -------
    Path
        The environment's Python.
    """
    python = ENVIRONMENT / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "ray", "numpy"]
    if not python.exists():
        venv.create(ENVIRONMENT, with_pip=True)
    subprocess.run(pip, check=True, stdout=sys.stderr)
    return python


class Ray:
    """Does scenarios with Ray.

    Ray is started when it is needed, and again when another number of workers is.

    Parameters
    ----------
    python
        The Python of an environment that has Ray.
    memory
        Bytes of Ray's object store, all of which are taken at the start.
    workers
        How many, where it does not matter to the scenario.
    """

    def __init__(self, python: Path, memory: int, workers: int):
        self._python = python
        self._memory = memory
        self._default = workers
        self._workers = 0
        self._process: subprocess.Popen[str] | None = None
        self._directory = ""

    def run(self, scenario: Scenario) -> Run:
        """Do a scenario once, on fresh data."""
        self._start(scenario.workers or self._default)
        process = self._process
        assert process is not None
        assert process.stdin is not None
        print(json.dumps(scenario.ray), file=process.stdin, flush=True)
        return Run(seconds=float(self._answer()["seconds"]))

    def close(self) -> None:
        """End Ray, if it runs."""
        process, self._process, self._workers = self._process, None, 0
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _start(self, workers: int) -> None:
        if self._workers == workers:
            return
        self.close()
        # Short: Ray makes sockets there, whose paths may have 107 bytes.
        self._directory = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
        program = str(_HERE / "ray_server.py")
        with open(Path(self._directory) / "log", "w") as log:
            self._process = subprocess.Popen(
                [
                    *(str(self._python), program),
                    *(str(workers), str(self._memory), self._directory),
                ],
                cwd=self._directory,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._workers = workers
        self._answer()  # it has started

    def _answer(self) -> dict[str, float]:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            log = (Path(self._directory) / "log").read_text()
            self.close()
            raise RuntimeError(f"Ray has ended ({self._python}):\n{log[-2000:]}")
        answer: dict[str, float] = json.loads(line)
        return answer
