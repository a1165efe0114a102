"""Where the bytes of each image lie: tar files, tars of tars and folders, indexed without unpacking
(section 2)."""

import os
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from alexnet_jax.data.images import ImageError

Report = Callable[[str, str], None]  # (file, problem and mend): raises, or notes the skip

IMAGE_SUFFIXES = frozenset(
    [".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"]
)


class PrepareError(RuntimeError):
    """Preparing a data set cannot go on; the message names the file and the mend."""


class Member(NamedTuple):
    """One image of a data set."""

    name: str  # the file name kept with the image
    label: int  # -1: no label
    path: str  # the file that holds the bytes
    offset: int  # where they begin, bytes
    size: int  # bytes; -1: to the end of the file


def read_member(member: Member) -> bytes:
    """The encoded image of `member`.

    Raises PrepareError if the file is gone since the index was made, ImageError if it cannot be
    read.
    """
    try:
        with open(member.path, "rb") as file:
            file.seek(member.offset)
            return file.read(member.size)
    except FileNotFoundError:
        raise PrepareError(
            f"{member.path} is gone; put it back, or delete the unfinished set and start again"
        ) from None
    except OSError as error:
        raise ImageError(
            f"{member.name} ({member.path}) cannot be read: {error.strerror}; {_READABLE}"
        ) from error


_READABLE = "give leave to read it, or copy it to a sound disk"


def tar_files(
    path: Path, report: Report, *, start: int = 0, end: int | None = None
) -> Iterator[tuple[str, int, int]]:
    """Yields (name, offset, size) of the files in the tar that begins at byte `start` of `path`.

    Offsets count from the beginning of `path`, so a tar inside a tar needs no unpacking. `end` is
    where the tar must stop. Nothing is ever extracted; still, a member that points outside its
    archive (absolute, `..`, a link) is reported as the sign of a tampered file.
    """
    where = f"{path} at byte {start:,}" if start else str(path)
    try:
        end = end or path.stat().st_size
        with open(path, "rb") as file:
            file.seek(start)
            tar = tarfile.TarFile(fileobj=file)
            while (entry := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # else it grows by a kilobyte an image
                stop = entry.offset_data + entry.size
                if entry.isdir():
                    continue
                if not entry.isreg() or os.path.isabs(entry.name) or ".." in entry.name.split("/"):
                    report(f"{path}: {entry.name}", _OUTSIDE)
                elif stop > end:
                    raise tarfile.ReadError("unexpected end of data")
                else:
                    yield entry.name, entry.offset_data, entry.size
            # tarfile takes a damaged or missing header for the end; the real end is a block of 0.
            file.seek(tar.offset)  # type: ignore[attr-defined]
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f"no end mark at byte {file.tell():,}")
    except tarfile.TarError as error:
        report(where, f"not a whole tar file ({error}); download it again")
    except OSError as error:
        report(where, f"cannot be read ({error.strerror}); {_READABLE}")


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
            report(f"{path}: {name}", f"unknown class; this data set has {len(classes)} others")
        else:
            yield from synset_tar(path, classes[synset], report, start=offset, end=offset + size)


def numbered_tar(path: Path, labels: list[int] | None, report: Report) -> Iterator[Member]:
    """Yields the images of `path`; image `..._00000293.JPEG` has the label `labels[292]`.

    The number in the name decides, never the position: a missing image shifts no label.
    Without `labels` every label is -1.
    """
    for name, offset, size in tar_files(path, report):
        name = os.path.basename(name)
        label = -1
        if labels is not None:
            number = re.search(r"_(\d+)\.\w+$", name)
            if number is None or not 1 <= int(number[1]) <= len(labels):
                report(f"{path}: {name}", f"no number from 1 to {len(labels)} to find its label by")
                continue
            label = labels[int(number[1]) - 1]
        yield Member(name, label, str(path), offset, size)


def class_folders(folder: Path) -> list[str]:
    """Sorted names of the folders in `folder`, hidden ones left out."""
    return sorted(f.name for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))


def folder_images(folder: Path, classes: dict[str, int], report: Report) -> Iterator[Member]:
    """Yields the images under `folder/<class>/`, at any depth, in the order of their names."""

    def unreadable(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # a split may lack a class
            report(error.filename, f"cannot be read ({error.strerror}); {_READABLE}")

    for name, label in classes.items():
        # Not rglob: it passes over a folder that it may not read.
        tree = os.walk(folder / name, onerror=unreadable)
        for path in sorted(Path(parent, file) for parent, _, files in tree for file in files):
            if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
                relative = path.relative_to(folder).as_posix()
                yield Member(relative, label, str(path), 0, -1)


def require(manual_dir: Path, names: list[str], mend: str) -> list[Path]:
    """The paths of `names` in `manual_dir`; raises PrepareError naming those that are missing."""
    missing = [name for name in names if not (manual_dir / name).exists()]
    if missing:
        raise PrepareError(f"{manual_dir} lacks {', '.join(missing)}; {mend}")
    return [manual_dir / name for name in names]
