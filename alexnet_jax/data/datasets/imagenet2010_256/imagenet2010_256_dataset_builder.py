"""ILSVRC-2010 at 256x256, with its public test labels: the data of Table 1 (section 2)."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import scipy.io

from alexnet_jax.data.archives import (
    Member,
    PrepareError,
    Report,
    numbered_tar,
    require,
    synset_tars,
)
from alexnet_jax.data.preparation import PreparedBuilder

TRAIN = "ILSVRC2010_images_train.tar"
VALIDATION = "ILSVRC2010_images_val.tar"
TEST = "ILSVRC2010_images_test.tar"
DEVKIT = "devkit-1.0.tar.gz"
VALIDATION_LABELS = "ILSVRC2010_validation_ground_truth.txt"  # in the devkit
TEST_LABELS = "ILSVRC2010_test_ground_truth.txt"  # beside the tars
FILES = [TRAIN, VALIDATION, TEST, DEVKIT, TEST_LABELS]


class Builder(PreparedBuilder):
    """1,261,406 training, 50,000 validation and 150,000 test images of 1,000 classes.

    A label is the official ILSVRC2010_ID less one; the class names are wnids in that order.
    """

    MANUAL_DOWNLOAD_INSTRUCTIONS = f"{', '.join(FILES)}; register at image-net.org to fetch them"

    def _inputs(self, manual_dir: Path) -> list[Path]:
        mend = "register at image-net.org, download them and give their folder as --manual_dir"
        return require(manual_dir, FILES, mend)

    def _class_names(self, manual_dir: Path) -> list[str]:
        self._inputs(manual_dir)
        meta = scipy.io.loadmat(
            io.BytesIO(_devkit_file(manual_dir, "meta.mat")),
            squeeze_me=True,
            struct_as_record=False,
        )
        # The inner nodes of the hierarchy are listed too, behind the classes.
        leaves = [synset for synset in meta["synsets"] if synset.num_children == 0]
        return [str(leaf.WNID) for leaf in sorted(leaves, key=lambda leaf: int(leaf.ILSVRC2010_ID))]

    def _index(
        self, manual_dir: Path, class_names: list[str], report: Report
    ) -> dict[str, Iterator[Member]]:
        train, validation, test, _, test_labels = self._inputs(manual_dir)
        classes = {name: label for label, name in enumerate(class_names)}
        truth = {
            VALIDATION_LABELS: _devkit_file(manual_dir, VALIDATION_LABELS),
            TEST_LABELS: test_labels.read_bytes(),
        }
        labels = {}
        for name, content in truth.items():
            labels[name] = [int(line) - 1 for line in content.split()]
            if not all(0 <= label < len(classes) for label in labels[name]):
                raise PrepareError(f"{name} has labels outside 1 to {len(classes)}; fetch it again")
        return {
            "train": synset_tars(train, classes, report),
            "validation": numbered_tar(validation, labels[VALIDATION_LABELS], report),
            "test": numbered_tar(test, labels[TEST_LABELS], report),
        }


def _devkit_file(manual_dir: Path, name: str) -> bytes:
    path = manual_dir / DEVKIT
    try:
        with tarfile.open(path) as tar:
            for entry in tar:
                if Path(entry.name).name == name and (file := tar.extractfile(entry)):
                    return file.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise PrepareError(f"{path} is damaged ({error}); download it again") from error
    raise PrepareError(f"{path} has no {name}; download the ILSVRC-2010 development kit again")
