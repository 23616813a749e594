"""The paths to the largest parts of values."""

from __future__ import annotations

import collections
import functools

import numpy as np
import pandas as pd
import pytest

from daskps.explanation.parts import largest_parts
from daskps.objects.pickles import Pickles
from daskps.objects.sizes import nbytes_of

LARGE = np.random.default_rng(0).random(1 << 17)
Pair = collections.namedtuple("Pair", ["small", "large"])


class Slots:
    __slots__ = ("table",)

    def __init__(self):
        self.table = LARGE


class Config:
    def __init__(self, **attributes):
        vars(self).update(attributes)

    def method(self):
        return self.weights


def capturing(table):
    def score(i):
        return table["emb"][i]

    return score


def with_default(i, weights=LARGE):
    return weights[i]


def global_user():
    def score(i):
        return LARGE[i]

    return score


CASES = {
    "a dictionary": ({"emb": LARGE, "bias": 1}, ["x['emb']"]),
    "an attribute's item": (Config(weights=[1, 2, 3, LARGE]), ["x.weights[3]"]),
    "a slot": (Slots(), ["x.table"]),
    "a field": (Pair(1, LARGE), ["x.large"]),
    "two parts": (
        {"a": LARGE, "b": LARGE[: 1 << 16].copy(), "c": 1},
        ["x['a']", "x['b']"],
    ),
    "captured": (capturing({"emb": LARGE}), ["table['emb'] (captured)"]),
    "global": (global_user(), ["LARGE (global)"]),
    "a partial": (
        functools.partial(len, [1, LARGE]),
        ["x.args[0][1]"],
    ),
    "a keyword of a partial": (
        functools.partial(sorted, key=LARGE),
        ["key (partial)"],
    ),
    "a method": (Config(weights=LARGE).method, ["self.weights"]),
    "columns": (
        pd.DataFrame({"a": LARGE, "b": LARGE, "c": np.zeros(1 << 17, "i1")}),
        ["x['a']", "x['b']"],
    ),
    "a frame within": (
        {"data": pd.DataFrame({"a": LARGE}), "n": 1},
        ["x['data']['a']"],
    ),
    "nothing within": (LARGE, []),
    "many small ones": (list(range(100_000)), []),
}


@pytest.mark.parametrize("case", CASES)
def test_paths(case):
    value, expected = CASES[case]
    pickles = Pickles()
    parts = largest_parts(value, "x", nbytes_of(value, pickles), pickles)
    shown = [f"{p.path} ({p.kind})" if p.kind else p.path for p in parts]
    assert shown == expected
    assert all(part.nbytes > 100_000 for part in parts)
