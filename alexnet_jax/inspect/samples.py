"""Which images are looked at: a part of a split, and batches of images that are at hand."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
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


def padded_batches(images: np.ndarray, batch_size: int) -> Iterator[Batch]:
    """{"image": uint8 [B, S, S, 3], "mask": bool [B]} of images [N, S, S, 3], in order.

    The last batch repeats an image where `mask` is False. B is smaller where N is, by powers of
    two, so that few programs are compiled.
    """
    size = min(batch_size, 1 << (len(images) - 1).bit_length())
    for start in range(0, len(images), size):
        rows = np.arange(start, start + size)
        yield {
            "image": images[np.minimum(rows, len(images) - 1)],
            "mask": rows < len(images),
        }


def map_batches(function: Callable[[Any], Any], batches: Iterable[Batch]) -> np.ndarray:
    """`function(batch["image"])` of every batch in one array, without what `mask` leaves out."""
    parts = []
    for batch in batches:
        kept = np.asarray(batch["mask"], bool)
        parts.append(np.asarray(function(batch["image"]))[kept])
    return np.concatenate(parts)
