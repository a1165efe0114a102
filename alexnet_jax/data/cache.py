"""Data sets that fit: decoded once, kept in host memory or on the devices, in the same order."""

import dataclasses
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from tqdm import tqdm

from alexnet_jax.data.batches import eval_batches
from alexnet_jax.data.records import Batch
from alexnet_jax.data.sets import Dataset

CACHES = ("none", "host", "device")
FILL = 0.8  # of the free memory; the rest is for the network and for what else runs


class InMemory:
    """A split as two arrays of the host: a `Source`."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        """`images` uint8[N, S, S, 3], `labels` int32[N]."""
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.images[index], "label": int(self.labels[index])}

    def read(self, indices: np.ndarray) -> Batch:
        """The images `indices`, as `Source.read`."""
        return {"image": self.images[indices], "label": self.labels[indices]}

    def read_all(self) -> Batch:
        """All the images, where they lie."""
        return {"image": self.images, "label": self.labels}


class OnDevice(InMemory):
    """A split as two arrays on every device of a mesh; `read` gathers there, split over `data`."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, mesh: Mesh | None):
        everywhere = None if mesh is None else NamedSharding(mesh, P())
        shared = None if mesh is None else NamedSharding(mesh, P("data"))
        if mesh is None:
            arrays = jax.device_put((images, labels))
        else:
            arrays = jax.tree.map(
                lambda x: jax.make_array_from_process_local_data(everywhere, x), (images, labels)
            )
        super().__init__(*arrays)
        self._gather = jax.jit(
            lambda arrays, indices: [jnp.take(array, indices, axis=0) for array in arrays],
            out_shardings=shared,
        )

    def __reduce__(self) -> NoReturn:
        raise ValueError("images on the devices are read by this process alone; use workers=0")

    def read(self, indices: np.ndarray) -> Batch:
        """The images `indices`, as `Source.read`, as arrays on the devices."""
        image, label = self._gather((self.images, self.labels), np.asarray(indices, np.int32))
        return {"image": image, "label": label}


def cached(dataset: Dataset, cache: str, *, mesh: Mesh | None = None) -> Dataset:
    """The same data set, read from where `cache` says: "none" (disk), "host" or "device".

    The batches are the same. Those of "device" lie on the mesh already: whole global batches, so
    leave `rows` and `place` out. Raises `ValueError` where the images do not fit.
    """
    if cache not in CACHES:
        raise ValueError(f"cache={cache!r}; use one of {', '.join(CACHES)}")
    if cache == "none":
        return dataset
    needed = len(dataset) * dataset.image_size**2 * 3
    _check_fits(dataset, needed, psutil.virtual_memory().available, "memory")
    if cache == "device":
        device = jax.local_devices()[0] if mesh is None else mesh.local_devices[0]
        if memory := device.memory_stats():
            free = memory["bytes_limit"] - memory["bytes_in_use"]
            _check_fits(dataset, needed, free, f"device {device}")
    images, labels = _decode(dataset)
    source = OnDevice(images, labels, mesh) if cache == "device" else InMemory(images, labels)
    return dataclasses.replace(dataset, source=source)


def _check_fits(dataset: Dataset, needed: int, free: int, where: str) -> None:
    if needed > FILL * free:
        raise ValueError(
            f"{dataset.name} {dataset.split} takes {needed / 1e9:.1f} GB decoded and {where} has "
            f"{free / 1e9:.1f} GB free, of which {FILL:.0%} may be filled; use a smaller cache "
            f"({', '.join(CACHES)})"
        )


def _decode(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """All images uint8[N, S, S, 3] and labels int32[N]."""
    size, side = len(dataset), dataset.image_size
    images = np.empty((size, side, side, 3), np.uint8)
    labels = np.empty(size, np.int32)
    batch_size = 64
    with tqdm(
        total=size, desc=f"Loading {dataset.name} {dataset.split}", unit=" img", disable=None
    ) as bar:
        for number, batch in enumerate(eval_batches(dataset, batch_size=batch_size)):
            rows = slice(number * batch_size, min((number + 1) * batch_size, size))
            count = rows.stop - rows.start
            images[rows], labels[rows] = batch["image"][:count], batch["label"][:count]
            bar.update(count)
    return images, labels
