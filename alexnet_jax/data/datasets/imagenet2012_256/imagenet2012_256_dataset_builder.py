"""ILSVRC-2012 at 256x256, straight from its tar files (section 2, Table 2)."""

from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from alexnet_jax.data.archives import Member, Report, numbered_tar, require, synset_tars
from alexnet_jax.data.preparation import PreparedBuilder

TRAIN = "ILSVRC2012_img_train.tar"
VALIDATION = "ILSVRC2012_img_val.tar"
TEST = "ILSVRC2012_img_test.tar"  # 100,000 images without labels; some copies end in _v10102019.tar
METADATA = Path(tfds.core.tfds_path("datasets/imagenet2012"))


class Builder(PreparedBuilder):
    """1,281,167 training, 50,000 validation and, where its tar is there, 100,000 test images."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"{TRAIN}, {VALIDATION} and, if wanted, {TEST}; register at image-net.org to fetch them"
    )

    def _inputs(self, manual_dir: Path) -> list[Path]:
        advice = "register at image-net.org, download them and give their folder as --manual_dir"
        paths = require(manual_dir, [TRAIN, VALIDATION], advice)
        return paths + sorted(manual_dir.glob(f"{Path(TEST).stem}*.tar"))

    def _class_names(self, manual_dir: Path) -> list[str]:
        return (METADATA / "labels.txt").read_text().split()

    def _index(
        self, manual_dir: Path, class_names: list[str], report: Report
    ) -> dict[str, Iterator[Member]]:
        train, validation, *test = self._inputs(manual_dir)
        classes = {name: label for label, name in enumerate(class_names)}
        # Line n is the wnid of ILSVRC2012_val_<n>.JPEG.
        wnids = (METADATA / "validation_labels.txt").read_text().split()
        index = {
            "train": synset_tars(train, classes, report),
            "validation": numbered_tar(validation, [classes[wnid] for wnid in wnids], report),
        }
        if test:
            index["test"] = numbered_tar(test[0], None, report)
        return index
