"""Where the bytes of each image lie: tar files and tars of tars, indexed without unpacking
(section 2)."""

import gzip
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from alexnet_jax.data.images import ImageError, read_image
from alexnet_jax.data.names import is_litter, printable
from alexnet_jax.wording import first_line

Report = Callable[[str, str], None]  # (file, problem and what to do): raises, or notes the skip


class PrepareError(ValueError):
    """Preparing a data set cannot go on; the message names the file and says what to do."""


# What tarfile raises for headers that are damaged, or made to harm.
BAD_TAR = (
    *(tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile),
    *(ValueError, KeyError, RecursionError, MemoryError, OverflowError),
)
READABLE = "give permission to read it, or copy it to a sound disk"


class Member(NamedTuple):
    """One image of a data set."""

    name: str  # the file name kept with the image
    label: int  # -1: no label
    path: str  # the file that holds the bytes
    offset: int  # where they begin, bytes
    size: int  # bytes; -1: to the end of the file

    def __str__(self) -> str:
        return printable(f"{self.name} ({self.path})")


def read_member(member: Member) -> bytes:
    """The encoded image of `member`.

    Raises PrepareError if the file is gone since the index was made, ImageError if it cannot be
    read.
    """
    try:
        return read_image(member.path, name=str(member), offset=member.offset, size=member.size)
    except FileNotFoundError:
        raise PrepareError(
            f"{printable(member.path)} is gone; put it back, or delete the unfinished set and "
            "start again"
        ) from None
    except OSError as error:
        raise ImageError(f"{member} cannot be read: {error.strerror}; {READABLE}") from error


def tar_files(
    path: Path, report: Report, *, start: int = 0, end: int | None = None
) -> Iterator[tuple[str, int, int]]:
    """Yields (name, offset, size) of the files in the tar that begins at byte `start` of `path`.

    Offsets count from the beginning of `path`, so a tar inside a tar needs no unpacking. `end` is
    where the tar must stop. Nothing is ever extracted; still, a member that points outside its
    archive (absolute, `..`, a link) is reported as the sign of a tampered file. Hidden files and
    what systems leave in archives are passed over.
    """
    where = printable(f"{path} at byte {start:,}" if start else path)
    try:
        end = end or path.stat().st_size
        with open(path, "rb") as file:
            file.seek(start)
            tar = tarfile.TarFile(fileobj=file)
            while (entry := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # else it grows by a kilobyte per image
                stop = entry.offset_data + entry.size
                if entry.size < 0:  # Python before 3.11.13 would read the same member for ever
                    raise tarfile.ReadError(f"{entry.name} has a size below 0")
                if entry.isdir():
                    continue
                if not entry.isreg() or os.path.isabs(entry.name) or ".." in entry.name.split("/"):
                    report(printable(f"{path}: {entry.name}"), _OUTSIDE)
                elif any(map(is_litter, entry.name.split("/"))):
                    continue
                elif stop > end:
                    raise tarfile.ReadError("unexpected end of data")
                else:
                    yield entry.name, entry.offset_data, entry.size
            # tarfile takes a damaged or missing header for the end; the real end is a block of 0.
            file.seek(tar.offset)  # type: ignore[attr-defined]
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f"no end mark at byte {file.tell():,}")
    except PrepareError:  # of `report`
        raise
    except BAD_TAR as error:
        report(where, f"not a whole tar file ({first_line(error)}); download it again")
    except OSError as error:
        report(where, f"cannot be read ({error.strerror}); {READABLE}")


_OUTSIDE = "a member that points outside its archive; the file was tampered with, download it again"


def synset_tar(
    path: Path, label: int, report: Report, *, start: int = 0, end: int | None = None
) -> Iterator[Member]:
    """Yields the images of one class's tar, all with `label`."""
    for name, offset, size in tar_files(path, report, start=start, end=end):
        yield Member(os.path.basename(name), label, str(path), offset, size)


def synset_tars(path: Path, classes: dict[str, int], report: Report) -> Iterator[Member]:
    """Yields the images of a tar of class tars (`n01440764.tar`, ...), labelled by `classes`."""
    for name, offset, size in tar_files(path, report):
        synset = Path(name).stem
        if synset not in classes:
            report(
                printable(f"{path}: {name}"),
                f"unknown class; this data set has {len(classes)} others: give its own tar",
            )
        else:
            yield from synset_tar(path, classes[synset], report, start=offset, end=offset + size)


def numbered_tar(
    path: Path, labels: list[int] | None, report: Report, *, owner: object = "the data set"
) -> Iterator[Member]:
    """Yields the images of `path`; image `..._00000293.JPEG` has the label `labels[292]`.

    The number in the name decides, never the position: a missing image shifts no label.
    Without `labels` every label is -1. `owner` is what they were read from, for the message.
    """
    for name, offset, size in tar_files(path, report):
        name = os.path.basename(name)
        label = -1
        if labels is not None:
            number = re.search(r"_(\d+)\.\w+$", name)
            if number is None or not 1 <= int(number[1]) <= len(labels):
                report(
                    printable(f"{path}: {name}"),
                    f"no number from 1 to {len(labels)} to find its label by in {owner}",
                )
                continue
            label = labels[int(number[1]) - 1]
        yield Member(name, label, str(path), offset, size)


def require(manual_dir: Path, names: list[str], what_to_do: str) -> list[Path]:
    """The paths of `names` in `manual_dir`; raises PrepareError naming those that are missing."""
    missing = [name for name in names if not (manual_dir / name).exists()]
    if missing:
        raise PrepareError(f"{manual_dir} lacks {', '.join(missing)}; {what_to_do}")
    return [manual_dir / name for name in names]


def fingerprint(path: Path) -> str:
    """What tells whether an archive has changed, for the eyes too."""
    status = path.stat()
    return f"of {status.st_size:,} bytes (changed at {status.st_mtime_ns} ns)"
