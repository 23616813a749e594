"""Which versions of daskps may meet in one cluster: those with one protocol number."""

from __future__ import annotations

from importlib.metadata import version

from daskps.exceptions import ClusterError

__version__ = version("daskps")

#: Of all that processes of a cluster say to each other: :mod:`daskps.messages`, and what is
#: pickled and unpickled elsewhere, such as plugins, nodes and requests. It is raised with
#: each change that a process with the number before could misunderstand
#: (``tests/test_protocol.py``).
PROTOCOL = 1

#: A release and its protocol number. Every protocol sends this, in this form, before
#: anything else: otherwise it could not be told that the rest is another one.
Version = tuple[str, int]

#: That of this process.
VERSION: Version = (__version__, PROTOCOL)


class VersionError(ClusterError):
    """daskps is missing somewhere, or speaks another protocol there."""


def check_version(other: Version, here: str) -> None:
    """Compare the client's version with the one in this process.

    Parameters
    ----------
    other
        The client's.
    here
        This process, for people.

    Raises
    ------
    VersionError
        If they have different protocol numbers.
    """
    release, protocol = other
    if protocol != PROTOCOL:
        raise VersionError(
            f"The client has daskps {release} (protocol {protocol}), {here} has daskps "
            f"{__version__} (protocol {PROTOCOL}). Install releases with one protocol "
            "number on the client, the scheduler and all workers, at best the same "
            f"release: pip install daskps=={release}"
        )


def missing(where: str) -> VersionError:
    """The error for a process that does not have daskps."""
    return VersionError(
        f"daskps is not installed on {where}. Install it in the environment of the "
        f"scheduler and of every worker, and restart them: pip install "
        f"daskps=={__version__}"
    )
