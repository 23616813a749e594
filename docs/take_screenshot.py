"""Take the picture of docs/dashboard.md. Needs Bokeh, selenium and Debian's chromium.

Run from the repository: ``PYTHONPATH=.:tests/helpers python docs/take_screenshot.py``
"""

from __future__ import annotations

import time
from pathlib import Path

import dask.array as da
import numpy as np
from distributed import Client
from pages import base, browser

import daskps
from benchmarks.cluster import Cluster

PICTURE = Path(__file__).parent / "images" / "dashboard.png"
ROUNDS = 12


def compute(client: Client) -> list[object]:
    """Rounds on one array, of which the last results stay."""
    data = np.random.default_rng(0).random((4096, 1024))
    x = da.from_array(data, chunks=1024)
    kept: list[object] = []
    for i in range(ROUNDS):
        scaled = client.submit(np.multiply, data[:2048], i)
        scaled.result()
        kept = [*kept[-4:], (x + i).persist(), scaled]
        time.sleep(1)
    return kept


def main() -> None:
    """The picture."""
    with (
        Cluster(dashboard=True) as cluster,
        cluster.client() as client,
        daskps.proxy_graph(),
        browser() as driver,
    ):
        driver.get(f"{base(client)}/daskps")
        kept = compute(client)
        time.sleep(3)
        PICTURE.parent.mkdir(exist_ok=True)
        driver.save_screenshot(str(PICTURE))
        print(daskps.usage())
        del kept


if __name__ == "__main__":
    main()
