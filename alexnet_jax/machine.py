"""What this machine lets a process use, on systems that do not all say it in the same way."""

import contextlib
import ctypes
import os
from functools import cache
from pathlib import Path

import jax.monitoring

try:
    import fcntl
except ImportError:  # Windows has no such locks; there two processes in one folder go unnoticed
    fcntl = None  # type: ignore[assignment]


def cores() -> int:
    """Processor cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # Linux; macOS and Windows only know how many there are
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def processor(told_by: str = "/proc/cpuinfo") -> dict[str, str]:
    """What Linux tells of the first processor, "flags" and "model name" among it; else nothing."""
    try:
        lines = Path(told_by).read_text().splitlines()
    except OSError:
        return {}
    fields = (line.partition(":") for line in reversed(lines))  # so that the first stays
    return {name.strip(): value.strip() for name, colon, value in fields if colon}


def allow_open_files() -> None:
    """Lets this process open as many files as it may."""
    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows; macOS: no upper limit
        import resource  # noqa: PLC0415

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# Names of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
# What jax tells of each program that it compiles, or fetches from the cache.
COMPILED = "/jax/core/compile/backend_compile_duration"
_LARGE = 0.3  # seconds from which it was a large one


def keep_freed_memory(*, one_heap: bool = True) -> None:
    """Lets glibc keep what this process frees; elsewhere nothing. Call before jax's first work.

    XLA:CPU allocates a step's temporary arrays anew each time. By default they go back to the
    system in between and every page is cleared and mapped again: a fifth of the time of a step of
    32 images, an eighth of one of 128. What compiling a large program took does go back.

    Args:
      one_heap: whether all threads share the first heap, the only one that keeps large arrays.
        There they wait for each other, most of all those that compile: a second more for the
        whole net, and its steps take 6 to 9% longer. So False where the first thread makes the
        arrays: it does where a call computes before it returns (no asynchronous dispatch) and its
        arguments lie on the device.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        _trim_after_compiling()
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)  # large arrays from the heap
        if one_heap:
            mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_TRIM_THRESHOLD, -1)  # which never shrinks


@cache  # once a process
def _trim_after_compiling() -> None:
    """Gives back what compiling frees: it lies in small pieces, most in other heaps than arrays."""
    trim = ctypes.CDLL(None).malloc_trim

    def trim_if_large(event: str, duration_secs: float, **_: str | int) -> None:
        if event == COMPILED and duration_secs > _LARGE:
            trim(0)

    jax.monitoring.register_event_duration_secs_listener(trim_if_large)


def take_lock(handle: int) -> bool:
    """Takes the system's lock of an open file or folder; False if another process holds it.

    It goes when the handle is closed, and with the process, however that ends. True, too, where
    there are no locks.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without
        return True
    return True
