"""One application of the TaPS suite on a client: what it answers, and what it moves.

Arguments: the scheduler's address, ``dask`` or ``daskps``, the application, and a directory,
into which ``answer.pickle`` is written: the answer, and bytes through the scheduler.
"""

from __future__ import annotations

import pickle
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client
from taps.engine import Engine, TaskFuture
from taps.executor.dask import DaskDistributedExecutor

import daskps
from benchmarks import counters

CLIENTS = {"dask": Client, "daskps": daskps.Client}


def cholesky(directory: Path) -> Any:
    """Of a matrix of 32 MB, in tiles of 2 MB."""
    from taps.apps.cholesky import CholeskyApp

    return CholeskyApp(matrix_size=2048, block_size=512)


def synthetic(directory: Path) -> Any:
    """Tasks that take and give 2 MB each."""
    from taps.apps.configs.synthetic import WorkflowStructure
    from taps.apps.synthetic import SyntheticApp

    return SyntheticApp(WorkflowStructure.BAG, 24, 2_000_000, 0.0, 4)


def mapreduce(directory: Path) -> Any:
    """Words of files, each with other words."""
    from taps.apps.mapreduce import MapreduceApp

    files = directory / "files"
    return MapreduceApp(files, None, True, generated_files=6, generated_words=150_000)


def fedlearn(directory: Path) -> Any:
    """Models that go to clients and come back; they are not trained, nor is data needed."""
    from taps.apps.fedlearn.app import FedlearnApp
    from taps.apps.fedlearn.types import DataChoices

    return FedlearnApp(
        *(4, 2, DataChoices.CIFAR10, 16, 1, 1e-3), train=False, test=False, seed=0
    )


def moldesign(directory: Path) -> Any:
    """A search in the molecules that come with the checkout."""
    import taps
    from taps.apps.moldesign.app import MoldesignApp

    dataset = Path(taps.__file__).parents[1] / "data" / "moldesign" / "QM9-search.tsv"
    return MoldesignApp(str(dataset), initial_count=4, search_count=8, batch_size=4)


def seen(value: Any) -> Any:
    """What has to be equal of a result, of which some are random."""
    return len(value) if type(value).__name__ == "Data" else value


def main() -> None:
    """The program."""
    address, kind, name, where = sys.argv[1:]
    directory = Path(where)
    random.seed(0)
    np.random.seed(0)
    app = globals()[name](directory)
    results: list[Any] = []
    result = TaskFuture.result

    def noting(future: Any, timeout: float | None = None) -> Any:
        value = result(future, timeout)
        results.append(seen(value))
        return value

    TaskFuture.result = noting
    with CLIENTS[kind](address) as client:
        counters.install(client)
        client.submit(len, "").result()
        before = counters.traffic(client)
        app.run(Engine(DaskDistributedExecutor(client)), directory)
        nbytes = counters.traffic(client) - before
    app.close()
    (directory / "answer.pickle").write_bytes(pickle.dumps((results, nbytes)))


if __name__ == "__main__":
    main()
