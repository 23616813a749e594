"""ProxyStore's executor around a Dask client, on a store of daskps. Give a store's URL."""

import sys

import numpy as np
from distributed import Client
from proxystore.store.executor import ProxyType, StoreExecutor

import daskps


def ordered(samples):
    """The samples, the smallest one first."""
    return np.sort(samples)


if __name__ == "__main__":
    url = sys.argv[1] if len(sys.argv) > 1 else "shm://"
    store, client = daskps.open_store(url), Client(n_workers=2)
    with StoreExecutor(client, store, should_proxy=ProxyType(np.ndarray)) as executor:
        samples = np.random.default_rng(0).normal(size=1_000_000)
        result = executor.submit(ordered, samples).result()
        print("Quartiles:", *(f"{q:.2f}" for q in result[[250_000, 500_000, 750_000]]))
