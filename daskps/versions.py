"""The version of daskps, which must be the same on client, scheduler and workers."""

from __future__ import annotations

from importlib.metadata import version

from daskps.exceptions import ClusterError

__version__ = version("daskps")


class VersionError(ClusterError):
    """daskps is missing somewhere, or has another version there."""


def check_version(other: str, here: str) -> None:
    """Compare the client's version with the one in this process.

    Raises
    ------
    VersionError
        If they differ.
    """
    if other != __version__:
        raise VersionError(
            f"The client has daskps {other}, {here} has daskps {__version__}. Install "
            "the same version on the client, the scheduler and all workers: "
            f"pip install daskps=={other}"
        )


def missing(where: str) -> VersionError:
    """The error for a process that does not have daskps."""
    return VersionError(
        f"daskps is not installed on {where}. Install it in the environment of the "
        f"scheduler and of every worker, and restart them: pip install "
        f"daskps=={__version__}"
    )
