"""``daos://``: objects in a container of DAOS."""
