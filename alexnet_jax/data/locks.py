"""One process at a time prepares a data set, on systems that do not all have locks."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from alexnet_jax.data.archives import PrepareError
from alexnet_jax.machine import take_lock


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Makes `folder` and keeps other processes out of it; leaves no empty folders behind.

    Raises:
      PrepareError: another process is in there.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _system_lock(folder):
            yield
    finally:
        with contextlib.suppress(OSError):  # the first that is not empty
            for path in new:
                path.rmdir()


@contextlib.contextmanager
def _system_lock(folder: Path) -> Iterator[None]:
    if os.name == "nt":  # a folder cannot be opened there, nor locked
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        if not take_lock(handle):
            raise PrepareError(
                f"another process is preparing {folder}; wait for it, or stop it first"
            )
        yield
    finally:
        os.close(handle)
