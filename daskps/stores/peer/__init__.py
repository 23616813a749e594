"""``peer://``: objects stay on the host that made them, and other hosts pull them."""
# Nothing is imported here: the server of a host does without Dask.
