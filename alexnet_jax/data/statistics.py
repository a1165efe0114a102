"""The training set's mean image and the principal axes of its colours (sections 2, 4.1).

One pass with integer accumulators: exact, so no order and no number of threads changes a bit.
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import NamedTuple

import grain
import numpy as np
from absl import logging
from tqdm import tqdm

from alexnet_jax.data.sets import Dataset
from alexnet_jax.data.shards import DESCRIPTION, MANIFEST
from alexnet_jax.files import cache_folder, whole_file
from alexnet_jax.machine import cores

BATCH = 32  # images read and summed at a time


@dataclasses.dataclass(frozen=True)
class Moments:
    """Exact sums over a set of images, pixels 0-255; sums of disjoint sets are added by `+`."""

    count: int  # images
    pixels: np.ndarray  # int64 [S, S, 3], sum of the images
    products: np.ndarray  # int64 [3, 3], sum over all pixels of channel x channel

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            self.count + other.count,
            self.pixels + other.pixels,
            self.products + other.products,
        )


class Statistics(NamedTuple):
    """What the augmentation needs; the names are `Augmentation`'s fields."""

    mean: np.ndarray  # float32 [S, S, 3], pixels 0-255
    eigenvectors: np.ndarray  # float32 [3, 3], principal axes of RGB, one per column
    deviations: np.ndarray  # float32 [3], standard deviation along each, smallest first


def moments(images: np.ndarray) -> Moments:
    """The sums over `images`, uint8 [B, S, S, 3]."""
    products = np.zeros((3, 3), np.int64)
    for image in images:  # one at a time stays in the cache and is exact: 256² x 255² < 2^53
        colours = image.reshape(-1, 3).astype(np.float64)
        products += (colours.T @ colours).astype(np.int64)
    return Moments(len(images), images.sum(0, dtype=np.int64), products)


def derive(sums: Moments) -> Statistics:
    """Mean image, eigenvectors and deviations from the sums; each axis points to its larger side.

    The covariance is that of all RGB pixels around their common mean. Source: AlexNet §4.1.
    """
    size = sums.pixels.shape[0]
    pixels = sums.count * size**2
    total = [int(value) for value in sums.pixels.sum((0, 1))]
    # In whole numbers, as two large terms almost cancel.
    scaled = [
        [pixels * int(sums.products[i, j]) - total[i] * total[j] for j in range(3)]
        for i in range(3)
    ]
    covariance = np.array([[value / pixels**2 for value in row] for row in scaled])
    variances, axes = np.linalg.eigh(covariance)
    axes *= np.sign(axes[np.abs(axes).argmax(0), range(3)])
    return Statistics(
        mean=(sums.pixels / sums.count).astype(np.float32),
        eigenvectors=axes.astype(np.float32),
        deviations=np.sqrt(variances.clip(0)).astype(np.float32),
    )


def load_statistics(dataset: Dataset) -> Statistics:
    """The statistics of `dataset` at its stored size, kept in the user's cache folder.

    Kept with a fingerprint of the set they belong to; those of another, and damaged ones, are
    computed anew by one pass. Where nothing can be kept they are computed each time.
    """
    fingerprint = fingerprint_of(dataset)
    cache = cache_folder()
    kept = None if cache is None else cache / dataset.name / _file_name(dataset)
    sums = None if kept is None else _read(kept, fingerprint, dataset)
    if sums is not None:
        return derive(sums)
    sums = compute_moments(dataset)
    try:
        if kept is None:
            raise FileNotFoundError("there is no home folder")
        _write(kept, sums, fingerprint)
        logging.info("Statistics of %s %s kept in %s", dataset.name, dataset.split, kept)
    except OSError as error:
        logging.warning(
            "Statistics of %s cannot be kept (%s) and are computed each time; set XDG_CACHE_HOME "
            "to a folder that can be written to",
            dataset.name,
            error,
        )
    return derive(sums)


def compute_moments(dataset: Dataset) -> Moments:
    """One pass over `dataset`, read and summed by one thread per core."""
    size = len(dataset)
    starts = range(0, size, BATCH)

    def batch_moments(start: int) -> Moments:
        indices = np.arange(start, min(start + BATCH, size))
        return moments(np.asarray(dataset.source.read(indices)["image"]))

    threads = cores()
    parts = (
        grain.MapDataset.source(starts)
        .map(batch_moments)
        .to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))
    )
    side = dataset.image_size
    sums = Moments(0, np.zeros((side, side, 3), np.int64), np.zeros((3, 3), np.int64))
    with tqdm(total=size, desc=f"Mean image of {dataset.name}", unit=" img", disable=None) as bar:
        for part in parts:
            sums += part
            bar.update(part.count)
    return sums


def fingerprint_of(dataset: Dataset) -> str:
    """Digest of what the statistics depend on: the images, what is noted of them, their size."""
    digest = hashlib.sha256(f"{dataset.digest()} {dataset.image_size}".encode())
    for name in (DESCRIPTION, MANIFEST):
        if (file := dataset.path / name).exists():
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _file_name(dataset: Dataset) -> str:
    split = "".join(letter if letter.isalnum() else "_" for letter in dataset.split)
    return f"statistics-{split}-{dataset.image_size}.npz"


def _read(path: Path, fingerprint: str, dataset: Dataset) -> Moments | None:
    """The sums kept in `path`, unless there are none, or those of another data set."""
    shape = (dataset.image_size, dataset.image_size, 3)
    try:
        with np.load(path) as file:
            if str(file["fingerprint"]) != fingerprint:
                logging.info("%s belongs to another state of the data set; computed anew", path)
                return None
            sums = Moments(int(file["count"]), file["pixels"], file["products"])
            found = (sums.count, sums.pixels.shape, sums.products.shape)
            if found != (len(dataset), shape, (3, 3)):
                raise ValueError(f"sums of {found}, not of {len(dataset)} images {shape}")
            if sums.pixels.dtype != np.int64 or sums.products.dtype != np.int64:
                raise ValueError("sums that are no whole numbers")
            return sums
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # NumPy and zipfile raise many kinds for a damaged file
        logging.warning("%s cannot be read (%s); computed anew", path, error or repr(error))
        return None


def _write(path: Path, sums: Moments, fingerprint: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, "wb") as file:
        np.savez_compressed(file, fingerprint=fingerprint, **dataclasses.asdict(sums))
