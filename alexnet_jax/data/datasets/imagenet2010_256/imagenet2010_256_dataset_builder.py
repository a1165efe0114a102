"""ILSVRC-2010 at 256x256, with its public test labels: the data of Table 1 (section 2)."""

import contextlib
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from alexnet_jax.data.archives import (
    Member,
    PrepareError,
    Report,
    numbered_tar,
    read_member,
    require,
    synset_tars,
    tar_files,
)
from alexnet_jax.data.devkit import kit_file, synset_numbers
from alexnet_jax.data.images import MAX_BYTES
from alexnet_jax.data.preparation import PreparedBuilder
from alexnet_jax.files import text_of

TRAIN = "ILSVRC2010_images_train.tar"
VALIDATION = "ILSVRC2010_images_val.tar"
TEST = "ILSVRC2010_images_test.tar"
DEVKIT = "devkit-1.0.tar.gz"  # some copies begin with ILSVRC2010_
VALIDATION_LABELS = "ILSVRC2010_validation_ground_truth.txt"  # in the devkit
TEST_LABELS = "ILSVRC2010_test_ground_truth.txt"  # beside the tars
PATCH = "patch_images.tar"  # images that are blank in the other tars, in train/, val/ and test/
FILES = [TRAIN, VALIDATION, TEST, DEVKIT, TEST_LABELS]


class Builder(PreparedBuilder):
    """1,261,406 training, 50,000 validation and 150,000 test images of 1,000 classes.

    A label is the official ILSVRC2010_ID less one; the class names are wnids in that order.
    """

    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"{', '.join(FILES)} and, if there, {PATCH}; register at image-net.org to fetch them"
    )

    def _inputs(self, manual_dir: Path) -> list[Path]:
        prefix = "ILSVRC2010_" if (manual_dir / f"ILSVRC2010_{DEVKIT}").exists() else ""
        names = [prefix + name if name == DEVKIT else name for name in FILES]
        advice = "register at image-net.org, download them and give their folder as --manual_dir"
        return require(manual_dir, names, advice) + sorted(manual_dir.glob(PATCH))

    def _class_names(self, manual_dir: Path) -> list[str]:
        numbers = synset_numbers(self._inputs(manual_dir)[3], 2010)
        return sorted(numbers, key=lambda synset: numbers[synset])

    def _index(
        self, manual_dir: Path, class_names: list[str], report: Report
    ) -> dict[str, Iterator[Member]]:
        train, validation, test, devkit, test_labels, *patch = self._inputs(manual_dir)
        classes = {name: label for label, name in enumerate(class_names)}
        index = {"train": synset_tars(train, classes, report)}
        for split, tar, owner, content in (
            (
                "validation",
                validation,
                f"{VALIDATION_LABELS} of {devkit}",
                kit_file(devkit, VALIDATION_LABELS),
            ),
            ("test", test, str(test_labels), test_labels.read_bytes()),
        ):
            labels = _labels(content, owner, len(classes))
            index[split] = numbered_tar(tar, labels, report, owner=owner)
        patches = {
            Path(name).name: (str(path), offset, size)
            for path in patch
            for name, offset, size in tar_files(path, report)
        }
        return {split: _patched(members, patches) for split, members in index.items()}

    def _read(self) -> Callable[[Member], bytes]:
        return _read_member


def _labels(content: bytes, name: str, num_classes: int) -> list[int]:
    """The labels, from 0, in a file of one number from 1 an image."""
    lines = text_of(content, name).split()
    numbers = {str(number): number - 1 for number in range(1, num_classes + 1)}
    if odd := next((line for line in lines if line not in numbers), None):
        raise PrepareError(
            f"{name} has labels outside 1 to {num_classes} ({odd!r:.20}); fetch it again"
        )
    return [numbers[line] for line in lines]


def _patched(
    members: Iterator[Member], patches: dict[str, tuple[str, int, int]]
) -> Iterator[Member]:
    for member in members:
        if where := patches.get(member.name):
            member = Member(member.name, member.label, *where)
        yield member


def _read_member(member: Member) -> bytes:
    data = read_member(member)
    if data.startswith(b"\x1f\x8b"):  # some images of this release are gzip files
        # Decoding it names the damage, and one that is larger.
        with (
            contextlib.suppress(OSError, EOFError, zlib.error),
            gzip.open(io.BytesIO(data)) as file,
        ):
            return file.read(MAX_BYTES + 1)
    return data
