"""Any folder of `class/image` files at 256x256, as a data set under a name of its own (section 2).

tfds has an ImageFolder too, but that one imports TensorFlow.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etils import epath

from alexnet_jax.data.archives import Member, PrepareError, Report, class_folders, folder_images
from alexnet_jax.data.preparation import PreparedBuilder

SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}


class Builder(PreparedBuilder):
    """The images of `folder`: `class/image`, or `train/class/image`, `val/class/image`, ...

    Without folders of splits 10% of the images, chosen by a hash of the name, become the validation
    split. A file whose name is not that of an image is passed over.
    """

    VALIDATION_SHARE = 0.1

    def __init__(self, *, folder: epath.PathLike, name: str, **kwargs: Any):
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise PrepareError(f'name="{name}": take small letters, digits and _, as tfds asks')
        self.name = name
        self._folder = Path(folder).expanduser().absolute()
        super().__init__(**kwargs)
        self._original_state |= {"folder": folder, "name": name}

    def _splits(self) -> dict[str, Path]:
        """The folder of each split; empty where the classes lie in `folder` itself."""
        if not self._folder.is_dir():
            raise PrepareError(f"{self._folder} is no folder; give one of class/image as --folder")
        names = class_folders(self._folder)
        if not names:
            raise PrepareError(f"{self._folder} has no folders of classes; put class/image there")
        if not set(names) <= set(SPLITS):
            return {}
        return {SPLITS[name]: self._folder / name for name in names}

    def _options(self) -> dict[str, str]:
        return {"--folder": str(self._folder)}

    def _class_names(self, manual_dir: Path) -> list[str]:
        splits = self._splits()
        return class_folders(splits.get("train", self._folder))

    def _index(
        self, manual_dir: Path, class_names: list[str], report: Report
    ) -> dict[str, Iterator[Member]]:
        classes = {name: label for label, name in enumerate(class_names)}
        splits = self._splits()
        for folder in splits.values():
            for name in class_folders(folder):
                if name not in classes:
                    report(str(folder / name), "unknown class: it has no folder in train")
        folders = splits or {"train": self._folder}
        return {split: folder_images(folder, classes, report) for split, folder in folders.items()}
