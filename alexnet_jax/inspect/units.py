"""What a unit answers to: the images that activate it most, and where (Zeiler and Fergus 2013)."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from alexnet_jax.activations import Outputs
from alexnet_jax.models.receptive import ReceptiveField


class Strongest(NamedTuple):
    """Of each of a layer's units the K images that activate it most, the strongest first.

    Fields:
      values: float32 [units, K], the activations.
      images: int64 [units, K], the images' numbers in the order in which they came.
      places: int64 [units, K, 2], row and column on the unit's map; 0, 0 of a full connection.
    """

    values: np.ndarray
    images: np.ndarray
    places: np.ndarray


def strongest(outputs: Iterable[Outputs], count: int = 9) -> dict[str, Strongest]:
    """What activates the units of layers most, an image once a unit.

    Where two are equal the earlier image and place come first. There are fewer than `count` where
    there are fewer images. Only the best so far are kept in memory.

    Args:
      outputs: layer -> [n, H, W, C] or [n, D] of one batch after the other, as of
        `Run.features_of_batches`.
      count: K.

    Raises:
      ValueError: there is no image.
    """
    best: dict[str, Strongest] = {}
    seen = 0
    for part in outputs:
        for layer, maps in part.items():
            found = _strongest_places(maps, seen)
            joined = _joined(best[layer], found) if layer in best else found
            best[layer] = _best(joined, count)
        seen += len(maps)
    if not best:
        raise ValueError("there is no image to look at; give a split or a folder that has some")
    return best


def _strongest_places(maps: np.ndarray, seen: int) -> Strongest:
    """Of each unit and image the strongest place; the first image is number `seen`."""
    size, units, width = len(maps), maps.shape[-1], maps.shape[-2] if maps.ndim == 4 else 1
    flat = maps.reshape(size, -1, units)
    at = flat.argmax(1).T
    values = np.take_along_axis(flat, at.T[:, None], 1)[:, 0].T
    images = np.broadcast_to(np.arange(seen, seen + size), values.shape)
    return Strongest(values, images, np.stack([at // width, at % width], -1))


def _joined(one: Strongest, other: Strongest) -> Strongest:
    return Strongest(*(np.concatenate(both, 1) for both in zip(one, other, strict=True)))


def _best(found: Strongest, count: int) -> Strongest:
    order = np.argsort(-found.values, axis=1, kind="stable")[:, :count]
    return Strongest(
        np.take_along_axis(found.values, order, 1),
        np.take_along_axis(found.images, order, 1),
        np.take_along_axis(found.places, order[..., None], 1),
    )


def patch(crop: np.ndarray, field: ReceptiveField, place: tuple[int, int]) -> np.ndarray:
    """The pixels [h, w, 3] of a crop [S, S, 3] that the unit at `place` sees."""
    rows, columns = (field.pixels(at, len(crop)) for at in place)
    return crop[rows, columns]
