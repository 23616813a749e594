"""Certificates for clusters that encrypt what they send, also for the tests."""

from __future__ import annotations

import os

from distributed import Security


def tls_environment(directory: str) -> dict[str, str]:
    """Environment variables with which Dask's processes use TLS.

    Parameters
    ----------
    directory
        Where the certificate and its key are written to. Nobody else should be able to read
        there.
    """
    security = Security.temporary()
    files = {"ca_file": "CA_FILE"}
    for role in "client", "scheduler", "worker":
        files[f"{role}_cert"] = f"{role.upper()}__CERT"
        files[f"{role}_key"] = f"{role.upper()}__KEY"
    environment = {"DASK_DISTRIBUTED__COMM__DEFAULT_SCHEME": "tls"}
    for attribute, name in files.items():
        path = os.path.join(directory, attribute)
        with open(path, "w") as file:
            file.write(getattr(security, f"tls_{attribute}"))
        environment[f"DASK_DISTRIBUTED__COMM__TLS__{name}"] = path
    return environment
