"""Batches for the step: shuffled, read, placed (section 5).

The stream is a function of (seed, step) alone. Grain shuffles and batches record numbers; only
then are the records of a batch read, so no number of processes, threads or workers changes it.
"""

import sys
from collections.abc import Callable, Iterator

import grain
import numpy as np
from absl import flags

from alexnet_jax.data.records import Batch
from alexnet_jax.data.sets import Dataset
from alexnet_jax.machine import cores


def train_batches(
    dataset: Dataset,
    *,
    batch_size: int,
    seed: int,
    step: int = 0,
    rows: slice | None = None,
    threads: int | None = None,
    workers: int = 0,
    transform: Callable[[int, Batch], Batch] | None = None,
    place: Callable[[Batch], Batch] | None = None,
) -> grain.DatasetIterator[Batch]:
    """The endless batches of the global steps `step`, `step + 1`, …, each epoch shuffled anew.

    What does not fill a batch is left out of that epoch.

    Args:
      dataset: the split.
      batch_size: B, images per global batch.
      seed: of the order, together with the step.
      step: the first.
      rows: those of the batch that this process loads; None is all.
      threads: readers, default one per core, in each of the `workers`.
      workers: processes that read and transform; 0 is this one, as images on a device and
        `host_augment` want it.
      transform: applied there to (step, batch); `host_augment` makes one.
      place: puts a batch on the devices; called in a thread, two batches ahead, so that the copy
        overlaps the step.

    Returns:
      `{"image": uint8[B, S, S, 3], "label": int32[B]}` each, or what `transform` and `place` make.

    Raises:
      ValueError: the batch is larger than the split; from the iterator, a record that cannot be
        used.
    """
    order = batch_indices(len(dataset), batch_size=batch_size, seed=seed)
    wanted = rows or slice(None)

    def load(step: int) -> Batch:
        batch = dataset.source.read(order[step][wanted])
        return batch if transform is None else transform(step, batch)

    stream = grain.MapDataset.range(step, sys.maxsize).map(load)
    return _read(stream, threads, workers, place)


def eval_batches(
    dataset: Dataset,
    *,
    batch_size: int,
    rows: slice | None = None,
    threads: int | None = None,
    place: Callable[[Batch], Batch] | None = None,
) -> grain.DatasetIterator[Batch]:
    """Every image once, in the stored order; `rows`, `threads`, `place` as for `train_batches`.

    Args:
      dataset: the split.
      batch_size: B, images per global batch; the last is filled up with copies.

    Returns:
      `{"image": uint8[B, S, S, 3], "label": int32[B], "mask": float32[B]}` each; the mask is 0
      where the last batch is filled up.
    """
    size = len(dataset)
    wanted = rows or slice(None)

    def load(batch: int) -> Batch:
        positions = np.arange(batch * batch_size, (batch + 1) * batch_size)[wanted]
        loaded = dataset.source.read(np.minimum(positions, size - 1))
        return {**loaded, "mask": (positions < size).astype(np.float32)}

    return _read(grain.MapDataset.range(-(-size // batch_size)).map(load), threads, 0, place)


def steps_per_epoch(dataset: Dataset, batch_size: int) -> int:
    """Whole batches in an epoch. Raises ValueError where there is none."""
    _check_batch_size(len(dataset), batch_size)
    return len(dataset) // batch_size


def _check_batch_size(size: int, batch_size: int) -> None:
    if batch_size > size:
        raise ValueError(
            f"a batch of {batch_size} is larger than the data set of {size} images; "
            f"use a batch_size of at most {size}"
        )


def batch_indices(size: int, *, batch_size: int, seed: int) -> grain.MapDataset[np.ndarray]:
    """The record numbers of every global step: `[t]` is `int[B]`, each epoch a new permutation."""
    _check_batch_size(size, batch_size)
    # Grain seeds epoch e with seed + e: hashed, so that seeds 0 and 1 share no epoch.
    (hashed,) = np.random.SeedSequence(seed).generate_state(1)
    order = grain.MapDataset.range(size).shuffle(seed=int(hashed))
    return order.batch(batch_size, drop_remainder=True).repeat()


def _read(
    batches: grain.MapDataset[Batch],
    threads: int | None,
    workers: int,
    place: Callable[[Batch], Batch] | None,
) -> grain.DatasetIterator[Batch]:
    threads = threads or cores()
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
    stream = batches.to_iter_dataset(options)
    if workers:
        if not flags.FLAGS.is_parsed():  # Grain's workers read absl flags, parsed or not
            flags.FLAGS.mark_as_parsed()
        stream = stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    if place is not None:
        stream = grain.experimental.ThreadPrefetchIterDataset(
            stream.map(place), prefetch_buffer_size=2
        )
    return iter(stream)


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
