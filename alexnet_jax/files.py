"""Files as every command writes and names them: whole or not at all, and with `~` expanded."""

import contextlib
import errno
import glob
import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from alexnet_jax.wording import first_line


def local_path(path: str | os.PathLike[str]) -> Path:
    """The path with `~` and `~user` expanded.

    Raises:
      ValueError: it is empty, which would quietly be the current folder, or a URL, which would
        become a folder of that name, or begins with `~` where no home is known.
    """
    text = os.fspath(path)
    if not text:
        raise ValueError(
            "a path is empty (of a variable that is not set?); write . for this folder"
        )
    if match := re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text):
        raise ValueError(
            f"{text} is a URL and only folders and files of this machine are read and written; "
            f"mount the {match[1]} bucket or download it, and give that path"
        )
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{text}: no such home folder is known; write the whole path") from error


def cache_folder() -> Path | None:
    """This library's folder in the user's cache; None where not even the home folder is known."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    if os.path.expanduser(cache).startswith("~"):
        return None
    return local_path(cache) / "alexnet_jax"


def output_file(path: str | os.PathLike[str], flag: str = "--output") -> Path:
    """`local_path(path)` of a file that is to be written, refused before the work, not after.

    Raises:
      ValueError: it is a folder or no plain file, or its folder is missing or cannot be written;
        the message names `flag` as what to change.
    """
    file = local_path(path)
    if file.is_dir():
        raise ValueError(f"{file} is a folder; name a file in it with {flag}")
    if file.exists() and not file.is_file():
        raise ValueError(f"{file} is a device or a pipe; name a plain file with {flag}")
    folder = file.parent
    if not folder.exists():
        raise ValueError(f"folder {folder} is not there; make it, or change {flag}")
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file, not a folder; change {flag}")
    _check_writable(folder, flag)
    return file


def output_folder(folder: Path, flag: str = "--workdir") -> Path:
    """Makes a folder that is to be written in, and those above it, where they are not there.

    Raises:
      ValueError: it cannot be made, or nothing can be written in it; the message names `flag` as
        what to change.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        for part in (folder, *folder.parents):
            if os.path.isfile(part):  # of a name that is too long the path itself raises
                raise ValueError(f"{part} is a file, not a folder; change {flag}") from error
        raise ValueError(
            f"folder {folder} cannot be made ({error.strerror}); change {flag}"
        ) from error
    _check_writable(folder, flag)
    return folder


def _check_writable(folder: Path, flag: str) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            file.write(b"\0")  # a full disk has room for a name
    except OSError as error:
        raise ValueError(
            f"nothing can be written in {folder} ({error.strerror}); change {flag}"
        ) from error


def json_object(text: str | bytes, name: object) -> dict[str, Any]:
    """The object that a file in JSON holds.

    Args:
      text: what was read.
      name: of the file, with which errors begin.

    Raises:
      ValueError: it is no JSON, too deeply nested, or no object.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is no JSON ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{name} holds {found!r:.40} where an object {{…}} is wanted")
    return found


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal. Raises OSError where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_of(content: bytes, name: object) -> str:
    """The text of a file, with or without a byte order mark; ValueError, with `name`, if none."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name} is no text in UTF-8 (at byte {error.start:,}); save it as UTF-8"
        ) from error


@contextlib.contextmanager
def naming(path: object, what: str = " is damaged") -> Iterator[None]:
    """For what reads a file's content: whatever that raises becomes one line that names the file.

    Args:
      path: of the file, with which the line begins.
      what: goes on, such as ": its header is damaged".

    Raises:
      ValueError: anything was raised but an OSError, or a ValueError that names the file already.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # content from anywhere raises as many kinds as there are
        told = first_line(error)
        if isinstance(error, ValueError) and told.startswith(str(path)):
            raise
        reason = f"it lacks {told}" if isinstance(error, KeyError) else told
        raise ValueError(f"{path}{what} ({reason})") from error


@contextlib.contextmanager
def reading(path: object, what: str) -> Iterator[None]:
    """`naming`, of a file that the user names: that it cannot be read is a ValueError, too."""
    try:
        with naming(path, what):
            yield
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error})") from error


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """A file to write that appears at `path` at once whole, or not at all.

    Raises:
      OSError: it cannot be written; the error names `path`, and nothing is left behind.
    """
    path = Path(path)
    part = _part_of(path)
    encoding = None if "b" in mode else "utf-8"
    try:
        with part.open(mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(part)):
            raise  # of what was to be written, or of another file
        raise type(error)(error.errno, error.strerror, str(path)) from error
    finally:
        _remove(part)


@contextlib.contextmanager
def part_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path`, whose content becomes `path` or files beside it; it goes."""
    part = _part_of(path.with_name(f".{path.name}"))
    part.mkdir()
    try:
        yield part
    finally:
        _remove(part)


def reserve(file: int, start: int, size: int) -> None:
    """Keeps room on the disk for bytes that are not written by `write`, whose failure would kill.

    Args:
      file: its descriptor.
      start: of the bytes in the file.
      size: how many they are.

    Raises:
      OSError: there is no room.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(file, start, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # a file system that keeps none
            raise


def _part_of(path: Path) -> Path:
    """Where this process writes what is to be at `path`; removes what killed ones left there."""
    host = f"{path.name}.{socket.gethostname()}"
    for left in path.parent.glob(f"{glob.escape(host)}.*.part"):
        import psutil  # noqa: PLC0415  # on Linux it wants a module that not every Python has

        writer = left.name.split(".")[-2]
        # One of this process's number is of an earlier process that had it.
        if writer == str(os.getpid()) or (
            writer.isdecimal() and not psutil.pid_exists(int(writer))
        ):
            _remove(left)
    return path.with_name(f"{host}.{os.getpid()}.part")


def _remove(part: Path) -> None:
    if part.is_dir():
        shutil.rmtree(part, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        part.unlink(missing_ok=True)
