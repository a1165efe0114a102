"""Which images are looked at: a split of the run's data, and a part of it."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from alexnet_jax.data.records import Batch, Source
from alexnet_jax.data.sets import Dataset, match_classes, open_dataset
from alexnet_jax.runs.workdir import Run
from alexnet_jax.wording import printable


class Part:
    """Some images of a source, in the order of `indices`: a `Source`."""

    def __init__(self, source: Source, indices: np.ndarray):
        self._source, self._indices = source, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._source[int(self._indices[index])]

    def read(self, indices: np.ndarray) -> Batch:
        """The images `indices`, as `Source.read`."""
        return self._source.read(self._indices[indices])


class Looked(NamedTuple):
    """Images uint8 [N, S, S, 3] as they are stored, their centre crops, and labels int [N].

    A user's own images have no labels.
    """

    images: np.ndarray
    crops: np.ndarray
    labels: Any


def sample(dataset: Dataset, count: int, *, seed: int = 0) -> Dataset:
    """`count` images of `dataset` drawn by `seed`, in stored order; all if there are no more."""
    if count >= len(dataset):
        return dataset
    chosen = np.random.default_rng(seed).choice(len(dataset), count, replace=False)
    return dataclasses.replace(dataset, source=Part(dataset.source, np.sort(chosen)))


def split_of(
    run: Run,
    split: str,
    *,
    data_dir: str | None = None,
    classes_by_position: bool = False,
    labels: bool = True,
    flag: str = "",
) -> Dataset:
    """A split of the data that the run was trained on, its classes numbered as the run's.

    Args:
      run: from `load_run`.
      split: such as "test".
      data_dir: tfds data_dir that holds the data set; None: where the run found it.
      classes_by_position: class n of the data is the run's class n, whatever its name.
      labels: refuse a split without.
      flag: what the user names the split with, for messages.

    Raises:
      ValueError: the data set is not there, or has other classes.
    """
    config = run.config
    dataset = open_dataset(
        config.dataset,
        split,
        data_dir=data_dir or config.data_dir,
        stored_size=config.stored_size,
        labels=labels,
        flag=flag,
    )
    matched, note = match_classes(
        dataset, run.class_names, owner=str(run.workdir), by_position=classes_by_position
    )
    if note:
        print(printable(note))
    return matched
