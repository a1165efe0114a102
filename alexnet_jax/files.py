"""Files as every command writes and names them: whole or not at all, and with `~` expanded."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


def local_path(path: str | os.PathLike[str]) -> Path:
    """The path with `~` and `~user` expanded.

    Raises:
      ValueError: it is a URL, which would quietly become a folder of that name.
    """
    text = os.fspath(path)
    if match := re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text):
        raise ValueError(
            f"{text} is a URL and only folders and files of this machine are read and written; "
            f"mount the {match[1]} bucket or download it, and give that path"
        )
    return Path(text).expanduser()


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """A file to write that appears at `path` at once whole, or not at all.

    Raises:
      OSError: it cannot be written; the error names `path`, and nothing is left behind.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    encoding = None if "b" in mode else "utf-8"
    try:
        with part.open(mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
