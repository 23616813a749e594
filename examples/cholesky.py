"""Classify handwritten digits with a Gaussian process, on plain Dask and with daskps.

A Gaussian process is fitted by a Cholesky factorisation of its kernel matrix, one row
and one column for each training image. The images are scikit-learn's digits, which come
with that package; the training set holds a digit three times, as it is and moved by one
pixel to the left and to the right. NumPy computes the matrix, and
``dask.array.linalg.cholesky`` factorises it on a cluster on this machine, with the
scheduler in a process of its own: on Dask as it is, and within
``daskps.proxy_graph()``, in turns. What is reported of the scheduler, for each of two steps,
is described in ``measuring.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import warnings
from dataclasses import dataclass

import dask.array as da
import numpy as np
from dask.utils import format_bytes
from distributed import Client, wait
from measuring import WAYS, Step, cluster, measured, parser, positive, progress
from scipy.linalg import cho_solve
from scipy.spatial.distance import cdist
from sklearn.datasets import load_digits

SEND, FETCH = "send and factorise", "fetch the factor"

#: The largest error against NumPy, relative to the factor, that is rounding.
ROUNDING = 1e-10


# The model


@dataclass
class Digits:
    """Images as rows of 64 pixels between 0 and 1, with the digits they show."""

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def load(size: int, seed: int) -> Digits:
    """Split the digits at random; enlarge the training set by shifted copies to `size`.

    No image is in both sets, neither as it is nor shifted.
    """
    images, labels = load_digits(return_X_y=True)
    n_train = -(-size // 3)
    if n_train >= len(images):
        raise SystemExit(
            f"--size {size}: give at most {3 * (len(images) - 1)}, so that some of the "
            f"{len(images)} digits are left to test with"
        )
    order = np.random.default_rng(seed).permutation(len(images))
    train, test = order[:n_train], order[n_train:]
    images = images / 16
    shifted = [shift(images[train], columns) for columns in (0, -1, 1)]
    return Digits(
        np.concatenate(shifted)[:size],
        np.tile(labels[train], 3)[:size],
        images[test],
        labels[test],
    )


def shift(images: np.ndarray, columns: int) -> np.ndarray:
    """Move images of 8 x 8 pixels sideways; what comes in is background."""
    squares = images.reshape(-1, 8, 8)
    moved = np.zeros_like(squares)
    if columns < 0:
        moved[:, :, :columns] = squares[:, :, -columns:]
    else:
        moved[:, :, columns:] = squares[:, :, : 8 - columns]
    return moved.reshape(images.shape)


def kernel(a: np.ndarray, b: np.ndarray, length_scale: float) -> np.ndarray:
    """Covariance of the rows of `a` with those of `b`: a Gaussian of the distance."""
    return np.exp(cdist(a, b, "sqeuclidean") / (-2 * length_scale**2))


def accuracy(factor: np.ndarray, digits: Digits, length_scale: float) -> float:
    """The part of the test images whose digit the process predicts.

    One regression for each digit, on +1 and -1; the largest prediction wins.
    """
    targets = np.where(digits.train_labels[:, None] == np.arange(10), 1.0, -1.0)
    weights = cho_solve((factor, True), targets)
    predicted = kernel(digits.test, digits.train, length_scale) @ weights
    return float(np.mean(predicted.argmax(axis=1) == digits.test_labels))


# The comparison


@dataclass
class Run:
    """One factorisation."""

    steps: dict[str, Step]
    warned: bool
    factor: np.ndarray


def factorise(
    client: Client,
    matrix: np.ndarray,
    block: int,
    context: contextlib.AbstractContextManager,
) -> Run:
    """Factorise a matrix on the cluster and fetch the factor."""
    with warnings.catch_warnings(record=True) as caught, context:
        warnings.simplefilter("always")
        with measured(client) as send:
            # This is the whole program; `context` is all that differs.
            x = da.from_array(matrix, chunks=(block, block))
            factor = da.linalg.cholesky(x, lower=True).persist()
            wait(factor)
        with measured(client) as fetch:
            result = factor.compute()
    warned = any("large graph" in str(w.message) for w in caught)
    return Run({SEND: send, FETCH: fetch}, warned, result)


def compare(
    matrix: np.ndarray, block: int, n_workers: int, repeat: int
) -> dict[str, list[Run]]:
    """Factorise on plain Dask and with daskps in turns, a cluster for each."""
    runs: dict[str, list[Run]] = {name: [] for name in WAYS}
    with contextlib.ExitStack() as stack:
        clients = {name: stack.enter_context(cluster(n_workers)) for name in WAYS}
        for i in range(-1, repeat):
            for name, context in WAYS.items():
                with clients[name].as_current():
                    # The first time is for every process to import what it needs.
                    size = 2 * block if i < 0 else len(matrix)
                    part = matrix[:size, :size]
                    run = factorise(clients[name], part, block, context())
                if i >= 0:
                    runs[name].append(run)
                    progress(f"{name}, run {i + 1} of {repeat}")
    return runs


def report(runs: dict[str, list[Run]]) -> None:
    """Print a table: medians of the times and of the bytes, the largest memory."""
    width = max(len(name) for name in runs) + 2
    print(f"{'':34}" + "".join(f"{name:>{width}}" for name in runs))

    def row(title: str, cells: list[str]) -> None:
        print(f"{title:34}" + "".join(f"{cell:>{width}}" for cell in cells))

    for step in (SEND, FETCH):
        steps = [[run.steps[step] for run in each] for each in runs.values()]
        print(step)
        row(
            "  time",
            [f"{statistics.median(s.seconds for s in each):.2f} s" for each in steps],
        )
        row(
            "  bytes through the scheduler",
            [
                format_bytes(int(statistics.median(s.traffic for s in each)))
                for each in steps
            ],
        )
        row(
            "  growth of the scheduler's peak",
            [format_bytes(max(s.memory for s in each)) for each in steps],
        )
    row(
        '"Sending large graph" warning',
        ["yes" if any(run.warned for run in each) else "no" for each in runs.values()],
    )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    made = parser(
        __doc__,
        [
            ("--size", positive, 4096, "rows of the matrix: training images"),
            ("--block", positive, 512, "rows and columns of the matrix in one chunk"),
            ("--length-scale", float, 1.5, "of the kernel; pixels are 0 to 1"),
            ("--noise", float, 0.01, "variance added to the kernel's diagonal"),
        ],
    )
    options = made.parse_args(arguments)
    if options.size % options.block:
        made.error(
            f"--size {options.size} is no multiple of --block "
            f"{options.block}: Dask's Cholesky needs square chunks of one size"
        )
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the example."""
    options = parse(arguments)
    digits = load(options.size, options.seed)
    matrix = kernel(digits.train, digits.train, options.length_scale)
    matrix[np.diag_indices_from(matrix)] += options.noise
    print(
        f"Kernel matrix: {len(matrix)} x {len(matrix)}, {format_bytes(matrix.nbytes)}, "
        f"chunks of {options.block} x {options.block}; {options.workers} workers\n"
    )
    runs = compare(matrix, options.block, options.workers, options.repeat)
    report(runs)

    return 0 if judge(runs, matrix, digits, options.length_scale) else 1


def judge(
    runs: dict[str, list[Run]],
    matrix: np.ndarray,
    digits: Digits,
    length_scale: float,
) -> bool:
    """Print how good the factors are; whether all of them are right."""
    expected = np.linalg.cholesky(matrix)
    print(f"\n{'':34}{'accuracy':>10}{'error against NumPy':>22}")
    largest = 0.0
    for name, each in runs.items():
        error = max(relative_error(run.factor, expected) for run in each)
        correct = accuracy(each[-1].factor, digits, length_scale)
        print(f"{name:34}{correct:>10.1%}{error:>22.1e}")
        largest = max(largest, error)
    first, *others = [run.factor for each in runs.values() for run in each]
    equal = all(np.array_equal(first, other) for other in others)
    # Linear algebra may add up in another order where an array begins elsewhere in memory.
    same = "the same, bit for bit" if equal else "the same but for rounding"
    print(
        f"\n{len(digits.test)} held-out digits. The factors of all runs are "
        + (f"{same}." if largest < ROUNDING else "NOT the same.")
    )
    return largest < ROUNDING


def relative_error(factor: np.ndarray, expected: np.ndarray) -> float:
    """How far a factor is from the right one."""
    return float(np.linalg.norm(factor - expected) / np.linalg.norm(expected))


if __name__ == "__main__":
    sys.exit(main())
