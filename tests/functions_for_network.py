"""What tasks of test_network.py run: importable on every host."""

from __future__ import annotations


def double(x):
    return 2 * x


def first(model, i):
    return float(model[i])
