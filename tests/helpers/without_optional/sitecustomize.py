"""Hides two packages that ``dask.array`` imports where they are installed.

They import pandas, SciPy and more, and so what daskps imports would not show. Python imports
this module at its start if its directory is in ``PYTHONPATH``.
"""

import sys

sys.modules["xarray"] = sys.modules["sparse"] = None  # type: ignore[assignment]
