"""Factorise a matrix by tiles, as futures: each task gets tiles, and its result is fetched.

The steps are those of LAPACK: POTRF factorises a tile on the diagonal, TRSM solves for the
tiles below it, SYRK and GEMM update what is right of them. The matrix stays with the client:
tiles go out as arguments of ``Client.submit``, and come back by ``Client.gather``.

On Dask as it is, and within ``daskps.proxy_graph()``, in turns: ``measuring.py`` says what
is reported.
"""

from __future__ import annotations

import sys

import numpy as np
from distributed import Client
from measuring import answers, in_turns, parser, positive, report
from scipy.linalg import solve_triangular


def potrf(tile: np.ndarray) -> np.ndarray:
    """The factor of a tile on the diagonal."""
    return np.linalg.cholesky(tile)


def trsm(factor: np.ndarray, tile: np.ndarray) -> np.ndarray:
    """The tile of the factor that is below one on the diagonal."""
    return solve_triangular(factor, tile.T, lower=True).T


def syrk(tile: np.ndarray, left: np.ndarray) -> np.ndarray:
    """What is left of a tile on the diagonal."""
    return tile - left @ left.T


def gemm(tile: np.ndarray, left: np.ndarray, above: np.ndarray) -> np.ndarray:
    """What is left of a tile elsewhere."""
    return tile - left @ above.T


def factorise(client: Client, matrix: np.ndarray, block: int) -> np.ndarray:
    """The Cholesky factor of a matrix."""
    rest = matrix.copy()
    n = len(matrix) // block

    def tile(i: int, j: int) -> tuple[slice, slice]:
        return slice(i * block, (i + 1) * block), slice(j * block, (j + 1) * block)

    for k in range(n):
        diagonal = client.submit(potrf, rest[tile(k, k)]).result()
        rest[tile(k, k)] = diagonal
        below = [tile(i, k) for i in range(k + 1, n)]
        solved = [client.submit(trsm, diagonal, rest[t]) for t in below]
        for t, column in zip(below, client.gather(solved), strict=True):
            rest[t] = column
        updates = {}
        for i in range(k + 1, n):
            left = rest[tile(i, k)]
            updates[i, i] = client.submit(syrk, rest[tile(i, i)], left)
            for j in range(k + 1, i):
                above = rest[tile(j, k)]
                updates[i, j] = client.submit(gemm, rest[tile(i, j)], left, above)
        results = client.gather(list(updates.values()))
        for (i, j), updated in zip(updates, results, strict=True):
            rest[tile(i, j)] = updated
    return np.tril(rest)


def main(arguments: list[str] | None = None) -> int:
    """Run the example."""
    made = parser(
        __doc__,
        [
            ("--size", positive, 3072, "rows of the matrix"),
            ("--block", positive, 768, "rows and columns of one tile"),
        ],
    )
    options = made.parse_args(arguments)
    if options.size % options.block:
        made.error(f"--size {options.size} is no multiple of --block {options.block}")
    random = np.random.default_rng(options.seed).random((options.size, options.size))
    matrix = random @ random.T + options.size * np.eye(options.size)
    small = matrix[: 2 * options.block, : 2 * options.block]

    runs = in_turns(
        lambda client: factorise(client, matrix, options.block),
        lambda client: factorise(client, small, options.block),
        options.workers,
        options.repeat,
    )
    report(runs)
    expected = np.linalg.cholesky(matrix)
    errors = [
        float(np.linalg.norm(answer - expected) / np.linalg.norm(expected))
        for answer in answers(runs)
    ]
    print(f"\nLargest error against NumPy: {max(errors):.1e}")
    return 0 if max(errors) < 1e-12 else 1


if __name__ == "__main__":
    sys.exit(main())
