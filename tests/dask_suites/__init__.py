"""Dask's own test suites, with every literal stored: see ``__main__``."""
