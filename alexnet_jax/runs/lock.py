"""One process at a time in a workdir."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from alexnet_jax.machine import take_lock


class Locked(ValueError):
    """Another process holds the lock; the message names its host and number."""


@contextlib.contextmanager
def locked(workdir: Path, name: str = ".lock") -> Iterator[None]:
    """Keeps other runs out of `workdir` while the block runs.

    The lock is the system's, so that of a process that died, however it died, is free at once.
    The file `name` in the workdir says whose it is or was.

    Raises:
      Locked: another process holds it.
      OSError: the file cannot be written; it names it.
    """
    path = workdir / name
    with path.open("a+", encoding="utf-8") as file:
        if not take_lock(file.fileno()):
            raise Locked(
                f"{workdir} is in use by {_owner(path)}; wait until it ends or stop it, or give "
                "another --workdir"
            )
        owner = json.dumps({"host": socket.gethostname(), "process": os.getpid()})
        try:
            file.truncate(0)
            os.write(file.fileno(), owner.encode())
        except OSError as error:  # that of a full disk names no file
            raise OSError(error.errno, error.strerror, str(path)) from error
        yield


def _owner(path: Path) -> str:
    try:
        owner = json.loads(path.read_text())
        return f"process {owner['process']} on {owner['host']}"
    except (OSError, ValueError, KeyError, TypeError):  # it is just being written
        return "another process"
