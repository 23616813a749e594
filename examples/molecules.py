"""Look for molecules with a property, in rounds: simulate, train, infer, choose.

The candidates are some 5,000 molecules that come with RDKit. Looking at one costs a
simulation; here the property is its octanol-water partition coefficient (logP), which RDKit
computes. In each round a model is trained on what is known, says of every candidate what it
expects, and the most promising are simulated. The model and the fingerprints go to tasks.

On Dask as it is, and within ``daskps.proxy_graph()``, in turns: ``measuring.py`` says what
is reported. What was found is compared with as many simulations of molecules at random, over
several seeds.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

import numpy as np
from dask.utils import format_bytes
from distributed import Client
from measuring import in_turns, parser, positive, progress, report
from rdkit import Chem, RDConfig, RDLogger
from rdkit.Chem import Crippen, rdFingerprintGenerator
from sklearn.ensemble import RandomForestRegressor

RDLogger.DisableLog("rdApp.*")


@dataclass
class Candidates:
    """Molecules, as text and as fingerprints of 1,024 numbers each."""

    smiles: list[str]
    fingerprints: np.ndarray


def load(n: int) -> Candidates:
    """The first molecules of a file that comes with RDKit."""
    path = os.path.join(RDConfig.RDDataDir, "NCI", "first_5K.smi")
    generator = rdFingerprintGenerator.GetMorganGenerator(fpSize=1024)
    rows: dict[str, np.ndarray] = {}
    with open(path) as f:
        for line in filter(str.strip, f):
            smiles = line.split()[0]
            molecule = Chem.MolFromSmiles(smiles)
            if molecule is not None:
                rows[smiles] = generator.GetCountFingerprintAsNumPy(molecule)
            if len(rows) == n:
                break
    return Candidates(list(rows), np.array([*rows.values()], dtype="f4"))


def simulate(smiles: str) -> float:
    """The property of a molecule."""
    return float(Crippen.MolLogP(Chem.MolFromSmiles(smiles)))


def train(fingerprints: np.ndarray, values: np.ndarray, seed: int) -> object:
    """A model of the property."""
    return RandomForestRegressor(50, random_state=seed).fit(fingerprints, values)


def infer(model: RandomForestRegressor, fingerprints: np.ndarray) -> np.ndarray:
    """What the model expects."""
    return model.predict(fingerprints)


def design(
    client: Client, candidates: Candidates, rounds: int, batch: int, seed: int
) -> dict[int, float]:
    """The molecules that were simulated, by number, with their values."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(candidates.smiles), batch, replace=False).tolist()
    known: dict[int, float] = {}
    for i in range(rounds):
        values = client.map(simulate, [candidates.smiles[c] for c in chosen])
        known |= dict(zip(chosen, client.gather(values), strict=True))
        model = client.submit(
            train,
            candidates.fingerprints[list(known)],
            np.array([*known.values()]),
            seed,
        ).result()
        parts = np.array_split(candidates.fingerprints, 4)
        expected = client.gather([client.submit(infer, model, part) for part in parts])
        best_first = np.argsort(-np.concatenate(expected)).tolist()
        chosen = [c for c in best_first if c not in known][:batch]
        progress(f"  seed {seed}, round {i + 1}: best {max(known.values()):.2f}")
    return known


def main(arguments: list[str] | None = None) -> int:
    """Run the example."""
    options = parser(
        __doc__,
        [
            ("--molecules", positive, 4991, "candidates"),
            ("--rounds", positive, 4, "of simulation and training"),
            ("--batch", positive, 24, "simulations in each round"),
            ("--seeds", positive, 5, "searches"),
        ],
    ).parse_args(arguments)
    candidates = load(options.molecules)
    print(
        f"{len(candidates.smiles)} molecules, whose fingerprints take "
        f"{format_bytes(candidates.fingerprints.nbytes)}\n"
    )
    seeds = range(options.seed, options.seed + options.seeds)

    def search(client: Client) -> list[float]:
        found = [
            design(client, candidates, options.rounds, options.batch, s) for s in seeds
        ]
        return [max(known.values()) for known in found]

    runs = in_turns(
        search,
        lambda client: design(client, candidates, 1, 4, 0),
        options.workers,
        options.repeat,
    )
    report(runs)
    values = np.array([simulate(s) for s in candidates.smiles])
    n = options.rounds * options.batch
    at_random = [
        np.random.default_rng(s).choice(values, n, replace=False).max() for s in seeds
    ]
    best = {name: np.mean([r.answer for r in each]) for name, each in runs.items()}
    print(f"\nThe best of {n} simulations, mean over {len(seeds)} seeds:")
    for name, value in {**best, "at random": np.mean(at_random)}.items():
        print(f"  {name}: {value:.2f}")
    print(f"  of all {len(values)}: {values.max():.2f}")
    return 0 if min(best.values()) > np.mean(at_random) else 1


if __name__ == "__main__":
    sys.exit(main())
