"""Folders of images: the split and class of each file, and what is left out (section 2)."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from alexnet_jax.data.archives import READABLE, Member, PrepareError, Report
from alexnet_jax.data.images import IMAGE_SUFFIXES
from alexnet_jax.data.names import is_litter, name_bytes, printable

# The usual names of the folders of splits, in small letters.
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


class Listing(NamedTuple):
    """The names in a folder, sorted, links followed; hidden ones and litter left out."""

    folders: list[str]
    files: list[str]
    broken: list[str]  # links that lead nowhere
    others: list[str]  # pipes, sockets, devices: never opened


def list_folder(folder: Path) -> Listing:
    """What is in `folder`. Raises OSError where it cannot be read."""
    found = Listing([], [], [], [])
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if is_litter(entry.name):
            continue
        if entry.is_symlink() and not os.path.exists(entry.path):
            found.broken.append(entry.name)
        elif os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
            found.folders.append(entry.name)
        elif entry.is_file():
            found.files.append(entry.name)
        else:
            found.others.append(entry.name)
    return found


class LeftOut:
    """Counts the files that are not taken, with an example of each reason."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def add(self, reason: str, path: Path) -> None:
        """One more file, left out for `reason`."""
        self._counts[reason] += 1
        self._examples.setdefault(reason, printable(path))

    def __str__(self) -> str:
        """One line; "" where nothing was left out."""
        parts = [
            f"{count:,} {reason} (such as {self._examples[reason]})"
            for reason, count in self._counts.items()
        ]
        return f"left out files: {', '.join(parts)}" if parts else ""


BESIDE = "beside the class folders"
NO_IMAGE = "without an image's suffix"


def find_splits(folder: Path) -> dict[str, Path]:
    """The folder of class folders of each split; `folder` itself is "train" where it has no splits.

    Raises PrepareError, naming the folders, where the layout could mean more than one thing.
    """
    where = printable(folder)
    if not folder.is_dir():
        raise PrepareError(f"{where} is not a folder; give one of class/image as --folder")
    names = _list(folder).folders
    of_splits = [name for name in names if name.casefold() in SPLITS]
    classes = [name for name in names if name not in of_splits]
    if of_splits and classes:
        raise PrepareError(
            f"{where} has folders of splits ({_some(of_splits)}) beside others "
            f"({_some(classes)}); put the class folders into those of the splits and move the rest "
            "away, or rename what is a class"
        )
    if not of_splits:
        _check_classes(folder, "CLASS/IMAGE")
        _check_several(folder)
        return {"train": folder}
    splits: dict[str, Path] = {}
    for name in of_splits:
        split = SPLITS[name.casefold()]
        if split in splits:
            raise PrepareError(
                f"{where} has two folders for split {split}, {splits[split].name} and {name}; join "
                "them, or move one away"
            )
        splits[split] = folder / name
    if "train" not in splits:
        raise PrepareError(
            f"{where} has {_some(of_splits)} and no folder of training images; name that one train"
        )
    for path in splits.values():
        _check_classes(path, f"{path.name}/CLASS/IMAGE")
    _check_several(splits["train"])
    return splits


def _check_classes(folder: Path, layout: str) -> None:
    """Raises PrepareError unless `folder` has class folders, none of them one of splits."""
    listing = _list(folder)
    if not listing.folders:
        images = sum(map(_is_image, listing.files))
        count = "1 image" if images == 1 else f"{images:,} images"
        holds = f"{count} and no class folders" if images else "no folders of classes"
        raise PrepareError(
            f"{printable(folder)} has {holds}; put each image into the folder of its class, as "
            f"{printable(layout)}"
        )
    for name in listing.folders:
        inner = _folders(folder / name)
        if inner and all(inside.casefold() in SPLITS for inside in inner):
            raise PrepareError(
                f"{printable(folder / name)} has folders of splits ({_some(inner)}), so that it is "
                "no class; give it as --folder, or put the splits above the classes, as "
                "train/CLASS/IMAGE"
            )


def _check_several(folder: Path) -> None:
    """Raises PrepareError where all training images are of one class, as of a folder too high."""
    name, *more = _list(folder).folders
    if not more:
        inner = _folders(folder / name)
        advice = (
            f"if its folders ({_some(inner)}) are the classes, give {printable(folder / name)} as "
            "--folder"
            if inner
            else "put the images of another class into a folder beside it"
        )
        raise PrepareError(f"{printable(folder)} has one class alone, {printable(name)}; {advice}")


def class_folders(folder: Path) -> list[str]:
    """Sorted names of the folders in `folder`, without hidden ones and litter."""
    return _list(folder).folders


def note_beside(folder: Path, report: Report, left_out: LeftOut) -> None:
    """Reports the broken links beside the class folders of `folder`, and counts the files there."""
    listing = _list(folder)
    for name in listing.broken:
        report(printable(folder / name), _BROKEN)
    for name in listing.files + listing.others:
        left_out.add(BESIDE, folder / name)


def folder_images(
    folder: Path, classes: Mapping[str, int], report: Report, left_out: LeftOut | None = None
) -> Iterator[Member]:
    """Yields the images under `folder/<class>/`, at any depth; a split may lack a class.

    Args:
      folder: that of the class folders.
      classes: the label of each class folder.
      report: told of folders that cannot be read, and of broken and circular links.
      left_out: told of files that are not images by their suffix.
    """
    above = tuple(map(_identity, (folder, *folder.absolute().parents, *folder.resolve().parents)))
    for name, label in classes.items():
        if not (folder / name).is_dir():
            continue
        for path in _files(folder / name, report, above):
            if _is_image(path.name) and path.is_file():
                relative = path.relative_to(folder).as_posix()
                yield Member(relative, label, str(path), 0, -1)
            elif left_out is not None:
                left_out.add(NO_IMAGE, path)


def fingerprint(folder: Path) -> str:
    """What tells whether images of a class folder came or went, for the eyes too: their names."""
    digest, count = hashlib.sha256(), 0
    for image in folder_images(folder.parent, {folder.name: 0}, lambda file, problem: None):
        digest.update(name_bytes(f"{image.name}\n"))
        count += 1
    return f"of {count:,} images (names {digest.hexdigest()[:8]})"


_BROKEN = "a link that leads nowhere; put back what it names, or remove it"
_CIRCULAR = "a link to a folder that it lies in; remove it"


def _files(folder: Path, report: Report, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """Every file and pipe below; `above` are the device and number of the folders on the way."""
    try:
        listing = list_folder(folder)
    except OSError as error:
        report(printable(folder), f"cannot be read ({error.strerror}); {READABLE}")
        return
    above += (_identity(folder),)
    for name in listing.broken:
        report(printable(folder / name), _BROKEN)
    for name in listing.files + listing.others:
        yield folder / name
    for name in listing.folders:
        if _identity(folder / name) in above:
            report(printable(folder / name), _CIRCULAR)
        else:
            yield from _files(folder / name, report, above)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def _list(folder: Path) -> Listing:
    try:
        return list_folder(folder)
    except OSError as error:
        raise PrepareError(
            f"{printable(folder)} cannot be read ({error.strerror}); {READABLE}"
        ) from error


def _folders(folder: Path) -> list[str]:
    """The folders in one that may hold a million files; none where it cannot be read."""
    try:
        entries = [entry for entry in os.scandir(folder) if entry.is_dir()]
    except OSError:  # reported when its images are looked for
        return []
    return sorted(entry.name for entry in entries if not is_litter(entry.name))


def _some(names: list[str]) -> str:
    """The first names of a list that may be long."""
    shown = ", ".join(map(printable, names[:3]))
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3:,} more"
