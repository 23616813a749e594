"""What a process looks like on a system that is not Linux.

As a program: ``python other_system.py SYSTEM worker ARGUMENTS...`` is ``dask worker`` there.
"""

from __future__ import annotations

import os
import sys
import types

#: Modules, and names of ``os``, that each system does not have.
MISSING = {
    "win32": (
        ["fcntl", "resource", "pwd", "grp", "termios"],
        [
            *(
                "O_CLOEXEC",
                "O_NOFOLLOW",
                "O_DIRECTORY",
                "O_NONBLOCK",
                "fork",
                "forkpty",
            ),
            *("pread", "preadv", "pwrite", "pwritev", "sendfile", "memfd_create"),
            *("posix_fallocate", "posix_fadvise", "copy_file_range", "statvfs"),
            *("fstatvfs", "getuid", "geteuid", "getgid", "getegid", "fchown", "chown"),
            *("killpg", "getpgid", "mkfifo", "sched_getaffinity", "sched_setaffinity"),
            *("register_at_fork", "eventfd", "splice", "setsid"),
        ],
    ),
    "darwin": (
        [],
        [
            *("memfd_create", "posix_fallocate", "posix_fadvise", "copy_file_range"),
            *("sched_getaffinity", "sched_setaffinity", "eventfd", "splice"),
        ],
    ),
}


def become(system: str) -> None:
    """Have this process look like one on another system, from now on.

    NumPy and Dask are imported as they are on this one.
    """
    # SciPy imports it, and it looks for Python's own files (3.13).
    import pydoc  # noqa: F401

    import distributed.cli.dask_worker
    import distributed.comm.tcp
    import distributed.system_monitor

    assert "daskps" not in sys.modules
    # Dask stays on this system, where it asks the system for more than daskps does.
    plain = types.SimpleNamespace(**vars(sys))
    distributed.system_monitor.sys = distributed.comm.tcp.sys = plain
    sys.platform = system
    modules, names = MISSING[system]
    sys.modules.update(dict.fromkeys(modules))
    for name in names:
        vars(os).pop(name, None)
    # As os.py defines it without sched_getaffinity (3.13).
    os.process_cpu_count = os.cpu_count  # type: ignore[attr-defined]


if __name__ == "__main__":
    become(sys.argv[1])
    from distributed.cli import dask_worker

    dask_worker.main(sys.argv[3:])
