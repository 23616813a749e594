"""What tasks of test_network.py run: importable on every host."""

from __future__ import annotations

from distributed import worker_client


def double(x):
    return 2 * x


def resubmit(x):
    with worker_client() as client:
        return client.submit(double, x).result()


def first(model, i):
    return float(model[i])
