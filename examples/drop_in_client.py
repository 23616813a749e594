"""A drop-in client: arguments and results go by reference. Give a store's URL."""

import sys

import numpy as np

import daskps


def quantile(samples, q):
    """The value below which a part of the samples is."""
    return float(np.quantile(samples, q))


if __name__ == "__main__":
    url = sys.argv[1] if len(sys.argv) > 1 else "shm://"
    with daskps.Client(n_workers=2, store=url) as client:
        samples = np.random.default_rng(0).normal(size=1_000_000)
        futures = client.map(quantile, [samples] * 3, [0.25, 0.5, 0.75])
        print("Quartiles:", *(f"{q:.2f}" for q in client.gather(futures)))
