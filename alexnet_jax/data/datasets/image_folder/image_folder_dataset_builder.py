"""Any folder of `class/image` files at 256x256, as a data set under a name of its own (section 2).

tfds has an ImageFolder too, but that one imports TensorFlow.
"""

import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etils import epath

from alexnet_jax.data.archives import Member, PrepareError, Report
from alexnet_jax.data.folders import (
    LeftOut,
    class_folders,
    find_splits,
    fingerprint,
    folder_images,
    note_beside,
)
from alexnet_jax.data.names import printable
from alexnet_jax.data.preparation import PreparedBuilder
from alexnet_jax.files import local_path


class Builder(PreparedBuilder):
    """The images of `folder`: `class/image`, or `train/class/image`, `val/class/image`, ...

    Without folders of splits 10% of the images, chosen by a hash of the name, become the validation
    split. Hidden files and what systems leave behind are passed over; other files that are not
    taken are counted (`Plan.notes`).
    """

    VALIDATION_SHARE = 0.1
    EVERY_CLASS = True

    def __init__(self, *, folder: epath.PathLike, name: str, **kwargs: Any):
        self.name = name
        self._folder = local_path(folder).absolute()
        self._splits: dict[str, Path] = {}
        self._left_out = LeftOut()
        super().__init__(**kwargs)
        if Path(self.data_dir).resolve().is_relative_to(self._folder.resolve()):
            raise PrepareError(
                f"the set would lie in --folder={printable(self._folder)} and be taken for a "
                "class; choose another --data_dir or --name"
            )
        self._original_state |= {"folder": folder, "name": name}

    def _options(self) -> dict[str, str]:
        return super()._options() | {"--folder": printable(self._folder.resolve())}

    def _fingerprints(self, manual_dir: Path) -> dict[str, str]:
        folders = [
            split / name
            for split in find_splits(self._folder).values()
            for name in class_folders(split)
        ]
        return super()._fingerprints(manual_dir) | {
            printable(folder): fingerprint(folder) for folder in folders
        }

    def _class_names(self, manual_dir: Path) -> list[str]:
        self._splits = find_splits(self._folder)
        return list(_classes(self._splits["train"]))

    def _place(self, split: str, manual_dir: Path) -> Path:
        return self._splits[split]

    def _index(
        self, manual_dir: Path, class_names: list[str], report: Report
    ) -> dict[str, Iterator[Member]]:
        labels = {name: label for label, name in enumerate(class_names)}
        splits = self._splits
        classes = {split: _classes(folder) for split, folder in splits.items()}
        self._left_out = LeftOut()
        for folder in {self._folder, *splits.values()}:
            note_beside(folder, report, self._left_out)
        for split, found in classes.items():
            for name in sorted(found.keys() - labels.keys()):
                problem = (
                    "unknown class: it has no folder of training images; rename it as its "
                    "training folder"
                )
                report(printable(splits[split] / found.pop(name)), problem)
        return {
            split: folder_images(
                folder,
                {name: labels[known] for known, name in classes[split].items()},
                report,
                self._left_out,
            )
            for split, folder in splits.items()
        }

    def _notes(self) -> list[str]:
        return [str(self._left_out)] if str(self._left_out) else []


def _classes(folder: Path) -> dict[str, str]:
    """The class folders in `folder`: their names in Unicode's composed form, and as they are."""
    classes: dict[str, str] = {}
    for name in class_folders(folder):
        composed = unicodedata.normalize("NFC", name)
        if classes.setdefault(composed, name) != name:
            raise PrepareError(
                f"{printable(folder)} has two folders {printable(name)}, whose names differ in "
                "their Unicode form alone; put their images into one"
            )
    return classes
