"""Which images are looked at: a part of a split."""

import dataclasses
from typing import Any

import numpy as np

from alexnet_jax.data.records import Batch, Source
from alexnet_jax.data.sets import Dataset


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


def sample(dataset: Dataset, count: int, *, seed: int = 0) -> Dataset:
    """`count` images of `dataset` drawn by `seed`, in stored order; all if there are no more."""
    if count >= len(dataset):
        return dataset
    chosen = np.random.default_rng(seed).choice(len(dataset), count, replace=False)
    return dataclasses.replace(dataset, source=Part(dataset.source, np.sort(chosen)))
