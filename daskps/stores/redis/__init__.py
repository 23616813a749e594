"""``redis://`` and ``rediss://``: objects in a Redis server."""
