"""Makes this system like others: with its folder on PYTHONPATH, Python runs it as it starts.

macOS has no affinity and no /proc, systems without Unix have no fcntl, resource, pwd, fork or
SIGUSR1. It is stricter than any of them: a process may use nothing that one of them lacks.
"""

import os
import signal
import sys
from types import FrameType

import psutil  # it asks each system in that system's way, this one by what is taken away here

LACKING = {
    os: ("fork", "sched_getaffinity", "sched_setaffinity", "posix_fadvise", "memfd_create"),
    signal: ("SIGUSR1", "SIGUSR2"),
}

for module in ("fcntl", "grp", "pwd", "resource"):
    sys.modules[module] = None  # type: ignore[assignment]
for owner, names in LACKING.items():
    for name in filter(owner.__dict__.__contains__, names):
        delattr(owner, name)


def no_proc(event: str, arguments: tuple[object, ...]) -> None:
    """Has files below /proc not found."""
    if event in ("open", "os.listdir", "os.scandir") and str(arguments[0]).startswith("/proc"):
        caller: FrameType = sys._getframe(1)
        if not caller.f_globals["__name__"].startswith(psutil.__name__):
            raise FileNotFoundError(2, "No such file or directory", arguments[0])


sys.addaudithook(no_proc)
