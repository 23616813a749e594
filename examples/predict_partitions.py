"""Apply a fitted model of scikit-learn to a data frame, partition by partition.

A random forest is fitted to some of the rows in the client, and predicts the others by
``map_partitions``: it is an argument of every task.

On Dask as it is, and within ``daskps.proxy_graph()``, in turns: ``measuring.py`` says what
is reported.
"""

from __future__ import annotations

import sys

import dask.dataframe as dd
import numpy as np
import pandas as pd
from dask.utils import format_bytes
from distributed import Client
from distributed.protocol import pickle
from measuring import answers, in_turns, parser, positive, report
from sklearn.ensemble import RandomForestRegressor


def predict(rows: pd.DataFrame, model: RandomForestRegressor) -> pd.Series:
    """What the model says of some rows."""
    return pd.Series(model.predict(rows), index=rows.index)


def job(
    client: Client, rows: pd.DataFrame, model: RandomForestRegressor, npartitions: int
) -> pd.Series:
    """What the model says of all rows."""
    frame = dd.from_pandas(rows, npartitions=npartitions)
    return frame.map_partitions(predict, model, meta=(None, "f8")).compute()


def main(arguments: list[str] | None = None) -> int:
    """Run the example."""
    options = parser(
        __doc__,
        [
            ("--rows", positive, 60_000, "to predict"),
            ("--trees", positive, 60, "of the forest"),
            ("--partitions", positive, 16, "of the rows"),
        ],
    ).parse_args(arguments)
    rng = np.random.default_rng(options.seed)
    columns = [f"x{i}" for i in range(8)]
    rows = pd.DataFrame(rng.random((options.rows + 4000, 8)), columns=columns)
    truth = rows["x0"] * 3 + np.sin(6 * rows["x1"]) + rows["x2"] ** 2
    known, unknown = rows[:4000], rows[4000:]
    model = RandomForestRegressor(options.trees, random_state=options.seed)
    model.fit(known, truth[:4000])
    print(f"The forest takes {format_bytes(len(pickle.dumps(model)))}\n")

    runs = in_turns(
        lambda client: job(client, unknown, model, options.partitions),
        lambda client: job(client, unknown[:100], model, 2),
        options.workers,
        options.repeat,
    )
    report(runs)
    expected = predict(unknown, model)
    same = all(answer.equals(expected) for answer in answers(runs))
    error = float(np.sqrt(np.mean((expected - truth[4000:]) ** 2)))
    print(
        f"\nPredictions are {'' if same else 'NOT '}those of the forest in one piece; "
        f"their error is {error:.2f}, of values that spread by {truth.std():.2f}"
    )
    return 0 if same and error < truth.std() / 2 else 1


if __name__ == "__main__":
    sys.exit(main())
