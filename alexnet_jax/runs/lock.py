"""One process at a time in a workdir."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no such locks; there two runs in one workdir are not noticed
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Keeps other runs out of `workdir` while the block runs.

    The lock is the system's, so that of a process that died, however it died, is free at once.
    `.lock` in the workdir says whose it is or was.

    Raises:
      ValueError: another process holds it; the message names its host and number.
    """
    if fcntl is None:
        yield
        return
    path = workdir / ".lock"
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{workdir} is in use by {_owner(path)}; wait until it ends or stop it, or give "
                "another --workdir"
            ) from None
        except OSError:  # a file system without locks
            yield
            return
        file.truncate(0)
        json.dump({"host": socket.gethostname(), "process": os.getpid()}, file)
        file.flush()
        yield


def _owner(path: Path) -> str:
    try:
        owner = json.loads(path.read_text())
        return f"process {owner['process']} on {owner['host']}"
    except (OSError, ValueError, KeyError, TypeError):  # it is just being written
        return "another process"
