"""What this machine lets a process use, on systems that do not all say it in the same way."""

import contextlib
import os


def cores() -> int:
    """Processor cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # Linux; macOS and Windows only know how many there are
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def allow_open_files() -> None:
    """Lets this process open as many files as it may."""
    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows; macOS: no upper limit
        import resource  # noqa: PLC0415

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
