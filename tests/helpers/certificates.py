"""Authorities that sign certificates for the processes of a cluster."""

from __future__ import annotations

from pathlib import Path

import trustme

from daskps.tls import Tls

ROLES = "scheduler", "worker", "client"


class Authority:
    """One that signs; those who trust it trust no other."""

    def __init__(self) -> None:
        self._made = trustme.CA()

    @property
    def certificate(self) -> str:
        """Its own certificate."""
        return self._made.cert_pem.bytes().decode()

    def sign(self) -> tuple[str, str]:
        """A new certificate, and its private key."""
        made = self._made.issue_cert("dask")
        certificate = b"".join(pem.bytes() for pem in made.cert_chain_pems)
        return certificate.decode(), made.private_key_pem.bytes().decode()

    def tls(self) -> Tls:
        """What a process has."""
        return Tls(self.certificate, *self.sign())

    def settings(self, directory: Path) -> dict[str, str]:
        """Settings of Dask for all roles, whose files are written to a directory."""
        found = {"distributed.comm.tls.ca-file": self._write(directory, "authority")}
        for role in ROLES:
            for what, pem in zip(("cert", "key"), self.sign(), strict=True):
                path = self._write(directory, f"{role}-{what}", pem)
                found[f"distributed.comm.tls.{role}.{what}"] = path
        return found

    def _write(self, directory: Path, name: str, pem: str | None = None) -> str:
        path = directory / name
        path.write_text(self.certificate if pem is None else pem)
        return str(path)


def environment(settings: dict[str, str]) -> dict[str, str]:
    """Environment variables that say the same to Dask."""
    return {
        f"DASK_{name.upper().replace('.', '__').replace('-', '_')}": value
        for name, value in settings.items()
    }
