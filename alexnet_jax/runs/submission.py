"""Test splits whose labels the ILSVRC server keeps: what it is sent, and labels kept in a file.

A line of either file is an image, in the order of the file names' numbers; a label is the
ILSVRC2012_ID of a class, 1 to 1000, which the development kit gives (not the order of the synsets
that data sets are labelled by), or for other data sets the class's position, from 1.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_jax.data.devkit import synset_numbers
from alexnet_jax.data.sets import Dataset
from alexnet_jax.files import local_path, text_of, whole_file


def file_order(dataset: Dataset) -> np.ndarray:
    """int [N]: the stored positions of a split's images in the order of their file names.

    Raises:
      ValueError: the names are numbered and a number is missing, which would shift all later lines.
    """
    source: Any = dataset.source
    names = [source.file_name(index) for index in range(len(dataset))]
    found = [re.search(r"_(\d+)\.\w+$", name) for name in names]
    if not all(found):
        return np.argsort(names, kind="stable")
    numbers = np.array([int(match[1]) for match in found if match])
    missing = sorted(set(range(1, len(numbers) + 1)) - set(numbers.tolist()))
    if missing:
        raise ValueError(
            f"{dataset.name} {dataset.split} lacks image number {missing[0]} and lines are by "
            "number; take the whole split, prepared without skipped images"
        )
    return np.argsort(numbers)


def class_numbers(class_names: Sequence[str], devkit: str | Path | None) -> np.ndarray:
    """int [K]: the number of each class in the files.

    Args:
      class_names: WordNet synsets for ImageNet, anything for other data.
      devkit: ILSVRC2012_devkit_t12.tar.gz, or None to count from 1.

    Raises:
      ValueError: the classes are synsets and there is no development kit, or it lacks one of them.
    """
    if devkit is None:
        if all(re.fullmatch(r"n\d{8}", name) for name in class_names):
            raise ValueError(
                "the server numbers ImageNet's classes as its development kit does; give it as "
                "--devkit=ILSVRC2012_devkit_t12.tar.gz (from image-net.org)"
            )
        return np.arange(1, len(class_names) + 1)
    number_of = synset_numbers(local_path(devkit), 2012)
    missing = [name for name in class_names if name not in number_of]
    if missing:
        raise ValueError(
            f"{devkit} has no class {missing[0]}; give the kit of this data set's year"
        )
    return np.array([number_of[name] for name in class_names])


def write_top5(path: Path, top5: np.ndarray, order: np.ndarray, numbers: np.ndarray) -> None:
    """Writes the file for the server: classes int [N, 5], the most probable first, stored order."""
    lines = [" ".join(map(str, row)) for row in numbers[top5[order]]]
    with whole_file(path) as file:
        file.write("\n".join(lines) + "\n")


def read_labels(path: Path, order: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Labels int32 [N], 0 to K - 1 in stored order, from a file of one number an image.

    Raises:
      ValueError: the file has another number of lines than the split images, a line is no label,
        or it is no text.
    """
    lines = text_of(path.read_bytes(), path).split()
    if len(lines) != len(order):
        raise ValueError(
            f"{path} has {len(lines):,} labels and the split {len(order):,} images; give the file "
            "of this split, one label a line"
        )
    class_of = {str(number): k for k, number in enumerate(numbers)}
    for line, label in enumerate(lines, start=1):
        if label not in class_of:
            raise ValueError(
                f"{path} line {line}: {label!r} is no label, they are {numbers.min()} to "
                f"{numbers.max()}; give the file of this data set"
            )
    labels = np.empty(len(order), np.int32)
    labels[order] = [class_of[label] for label in lines]
    return labels
