"""Runs an application of TaPS on a cluster; what its engine gave it, as JSON.

Usage: run_taps.py APPLICATION plain|daskps SCHEDULER_FILE DIRECTORY
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import random
import sys
from collections import Counter
from typing import Any

import distributed
import numpy as np
import pandas as pd
from taps.apps.configs.cholesky import CholeskyConfig
from taps.apps.configs.fedlearn import FedlearnConfig
from taps.apps.configs.mapreduce import MapreduceConfig
from taps.apps.configs.moldesign import MoldesignConfig
from taps.apps.configs.synthetic import SyntheticConfig
from taps.engine import Engine, TaskFuture
from taps.executor.dask import DaskDistributedExecutor

import daskps

MIB = 1 << 20
CLIENTS = {"plain": distributed.Client, "daskps": daskps.Client}
SYNTHETIC = {"task_count": 24, "task_data_bytes": 2 * MIB}


def configuration(name: str, directory: pathlib.Path) -> Any:
    """Of an application, at a size where values are large."""
    kind, _, structure = name.partition(" ")
    if kind == "cholesky":
        return CholeskyConfig(matrix_size=2048, block_size=512)
    if kind == "synthetic":
        return SyntheticConfig(structure=structure, bag_max_running=4, **SYNTHETIC)
    if kind == "mapreduce":
        options = {"generated_files": 8, "generated_words": 100_000, "map_tasks": 4}
        return MapreduceConfig(data_dir=directory / "text", generate=True, **options)
    if kind == "fedlearn":
        options = {"clients": 4, "rounds": 2, "seed": 0}
        return FedlearnConfig(train=False, test=False, data_dir=directory, **options)
    dataset = directory / "molecules.csv"
    pd.DataFrame({"smiles": molecules()}).to_csv(dataset, sep=" ")
    return MoldesignConfig(dataset=dataset, initial_count=4, search_count=8)


def molecules() -> list[str]:
    """Small ones, more than the 64 parts that they are cut into."""
    chains = ["C" * n for n in range(1, 9)]
    groups = ["", "O", "N", "F", "CO", "CN", "C#N", "C=O", "C(C)O", "C(C)N"]
    return [chain + group for chain in chains for group in groups]


def fingerprint(value: Any) -> Any:
    """What is compared of a value. What workers have drawn at random is told by its size."""
    if isinstance(value, np.ndarray):
        return hashlib.sha256(value.tobytes()).hexdigest()
    if isinstance(value, Counter):
        return hashlib.sha256(repr(sorted(value.items())).encode()).hexdigest()
    if isinstance(value, pd.DataFrame):
        return value.round(6).to_json()
    if isinstance(value, float):
        return round(value, 6)
    return len(value) if hasattr(value, "raw") else repr(value)


class RecordingEngine(Engine):
    """Knows what was fetched."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.fetched: list[Any] = []

    def submit(self, *args: Any, **kwargs: Any) -> TaskFuture:
        future = super().submit(*args, **kwargs)
        plain = future.result

        def result(timeout: float | None = None) -> Any:
            value = plain(timeout)
            self.fetched.append(fingerprint(value))
            return value

        future.result = result
        return future


def main(name: str, client: str, scheduler: str, directory: str) -> None:
    random.seed(0)
    np.random.seed(0)
    place = pathlib.Path(directory)
    app = configuration(name, place).get_app()
    executor = DaskDistributedExecutor(CLIENTS[client](scheduler_file=scheduler))
    with RecordingEngine(executor) as engine:
        app.run(engine=engine, run_dir=place)
        fetched = sorted(map(str, engine.fetched))
    app.close()
    print(json.dumps({"tasks": engine.tasks_executed, "fetched": fetched}))


if __name__ == "__main__":
    main(*sys.argv[1:])
