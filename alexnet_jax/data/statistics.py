"""The training set's mean image and the principal axes of its colours (sections 2, 4.1).

One pass with integer accumulators: exact, so no order and no number of threads changes a bit.
"""

import dataclasses
import hashlib
import io
import os
import zipfile
from pathlib import Path
from typing import NamedTuple

import grain
import numpy as np
from absl import logging
from etils import epath
from tensorflow_datasets.core import utils
from tqdm import tqdm

from alexnet_jax.data.sets import Dataset

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
    eigenvectors: np.ndarray  # float32 [3, 3], principal axes of RGB, one a column
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
    """The statistics of `dataset` at its stored size, from its folder if they are there already.

    Otherwise one pass over it, kept beside the data set (or, where that is read-only, in the
    user's cache folder) with a fingerprint of the set they belong to.
    """
    fingerprint = fingerprint_of(dataset)
    for path in _places(dataset):
        sums = _read(path, fingerprint)
        if sums is not None:
            return derive(sums)
    sums = compute_moments(dataset)
    for path in _places(dataset):
        try:
            _write(path, sums, fingerprint)
        except OSError:
            continue
        logging.info("Statistics of %s %s kept in %s", dataset.name, dataset.split, path)
        break
    return derive(sums)


def compute_moments(dataset: Dataset) -> Moments:
    """One pass over `dataset`, read and summed by one thread a core."""
    size = len(dataset)
    starts = range(0, size, BATCH)

    def batch_moments(start: int) -> Moments:
        indices = np.arange(start, min(start + BATCH, size))
        return moments(np.asarray(dataset.source.read(indices)["image"]))

    threads = len(os.sched_getaffinity(0))
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
    """Digest of what the statistics depend on: the set, its shards, the split, the stored size."""
    digest = hashlib.sha256()
    digest.update(f"{dataset.name} {dataset.split} {dataset.image_size} {len(dataset)}".encode())
    for file in sorted(dataset.path.iterdir()):
        if file.name in ("dataset_info.json", "manifest.json"):
            digest.update(file.read_bytes())
        elif ".array_record" in file.name:
            digest.update(f"{file.name} {file.stat().st_size}".encode())
    return digest.hexdigest()


def _places(dataset: Dataset) -> list[Path]:
    """Where statistics may be kept, best first; never in `ALEXNET_DATA_DIR`."""
    split = "".join(letter if letter.isalnum() else "_" for letter in dataset.split)
    file = f"statistics-{split}-{dataset.image_size}.npz"
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    places = [home / "alexnet_jax" / dataset.name / file]
    read_only = os.environ.get("ALEXNET_DATA_DIR")
    if not read_only or not dataset.path.resolve().is_relative_to(Path(read_only).resolve()):
        places.insert(0, dataset.path / file)
    return places


def _read(path: Path, fingerprint: str) -> Moments | None:
    """The sums kept in `path`, unless there are none, or those of another data set."""
    try:
        with np.load(path) as file:
            if str(file["fingerprint"]) != fingerprint:
                logging.info("%s belongs to another state of the data set; computed anew", path)
                return None
            return Moments(int(file["count"]), file["pixels"], file["products"])
    except FileNotFoundError:
        return None
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        logging.warning("%s cannot be read (%s); computed anew", path, error)
        return None


def _write(path: Path, sums: Moments, fingerprint: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    np.savez_compressed(content, fingerprint=fingerprint, **dataclasses.asdict(sums))
    with utils.incomplete_file(epath.Path(path)) as temporary:  # renamed into place when whole
        temporary.write_bytes(content.getvalue())
