"""Train a classifier of handwritten digits on clients that keep their images.

In each round the global model goes to every client, which trains it on images of its own,
and the local models come back and are averaged (FedAvg). The images are scikit-learn's
digits, which come with that package; the model is its ``MLPClassifier``.

On Dask as it is, and within ``daskps.proxy_graph()``, in turns: ``measuring.py`` says what
is reported.
"""

from __future__ import annotations

import copy
import sys

import numpy as np
from dask.utils import format_bytes
from distributed import Client
from distributed.protocol import pickle
from measuring import in_turns, parser, positive, progress, report
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

#: Part of the held-out images that has to be right.
ACCURACY_AT_LEAST = 0.9


def train(
    model: MLPClassifier, images: np.ndarray, labels: np.ndarray, epochs: int
) -> MLPClassifier:
    """The model after some epochs on one client's images."""
    local = copy.deepcopy(model)
    for _ in range(epochs):
        local.partial_fit(images, labels)
    return local


def average(models: list[MLPClassifier]) -> MLPClassifier:
    """A model whose weights are the means of those of others."""
    mean = copy.deepcopy(models[0])
    for name in ("coefs_", "intercepts_"):
        layers = zip(*(getattr(model, name) for model in models), strict=True)
        setattr(mean, name, [np.mean(layer, axis=0) for layer in layers])
    return mean


def federate(
    client: Client,
    model: MLPClassifier,
    shards: list[tuple[np.ndarray, np.ndarray]],
    rounds: int,
    epochs: int,
) -> MLPClassifier:
    """The global model after some rounds."""
    for i in range(rounds):
        local = [
            client.submit(train, model, images, labels, epochs)
            for images, labels in shards
        ]
        model = average(client.gather(local))
        progress(f"  round {i + 1} of {rounds}")
    return model


def main(arguments: list[str] | None = None) -> int:
    """Run the example."""
    options = parser(
        __doc__,
        [
            ("--clients", positive, 8, "that have images"),
            ("--rounds", positive, 4, "of training and averaging"),
            ("--epochs", positive, 5, "on each client, in each round"),
            ("--hidden", positive, 512, "neurons in each of the two hidden layers"),
        ],
    ).parse_args(arguments)
    images, labels = load_digits(return_X_y=True)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images / 16, labels, test_size=0.2, random_state=options.seed
    )
    shards = list(
        zip(
            np.array_split(train_images, options.clients),
            np.array_split(train_labels, options.clients),
            strict=True,
        )
    )
    model = MLPClassifier(
        (options.hidden, options.hidden), batch_size=16, random_state=options.seed
    )
    model.partial_fit(train_images[:16], train_labels[:16], classes=np.arange(10))
    print(
        f"{options.clients} clients with {len(shards[0][0])} images each; the model "
        f"takes {format_bytes(len(pickle.dumps(model)))}\n"
    )

    runs = in_turns(
        lambda c: federate(c, model, shards, options.rounds, options.epochs),
        lambda c: federate(c, model, shards[:2], 1, 1),
        options.workers,
        options.repeat,
    )
    report(runs)
    right = {
        name: [run.answer.score(test_images, test_labels) for run in each]
        for name, each in runs.items()
    }
    print()
    for name, each in right.items():
        print(
            f"{name}: {min(each):.1%} of {len(test_images)} held-out digits are right"
        )
    return 0 if min(map(min, right.values())) >= ACCURACY_AT_LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
