"""What is shown of an image that was chosen to be looked at, and the images nearest to it."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from scipy.spatial.distance import cdist
from tqdm import tqdm

from alexnet_jax.activations import Outputs
from alexnet_jax.augment import ten_views, view_offsets
from alexnet_jax.compilation import compiled, made_once
from alexnet_jax.inspect.pictures import Cut, Pictures
from alexnet_jax.inspect.saliency import gradient_map, occlusion_map, overlay
from alexnet_jax.inspect.samples import Looked
from alexnet_jax.inspect.sections import BATCH_SIZE
from alexnet_jax.models.network import LayeredNetwork
from alexnet_jax.runs.workdir import Run

GUESSES, NEAR = 5, 6


class Distances:
    """Of each chosen image the distances to all that are searched, by every layer's output.

    Maps are compared place by place. The searched images come in parts, so that the maps of no
    more than one part are held.
    """

    def __init__(self, chosen: Outputs):
        """`chosen`: a layer -> [P, ...], what it puts out for the chosen images."""
        self._chosen = {layer: values.reshape(len(values), -1) for layer, values in chosen.items()}
        self._parts: dict[str, list[np.ndarray]] = {layer: [] for layer in chosen}

    def add(self, searched: Outputs) -> None:
        """The next searched images: of each layer [n, ...]."""
        for layer, chosen in self._chosen.items():
            others = searched[layer].reshape(len(searched[layer]), -1)
            self._parts[layer].append(cdist(chosen, others))

    def nearest(self, image: int, others: np.ndarray) -> dict[str, np.ndarray]:
        """Layer -> numbers of the nearest searched images, the closest first.

        Args:
          image: number of the chosen image.
          others: bool [N], which of the searched images may be its neighbours.
        """
        found = {}
        for layer, parts in self._parts.items():
            distances = np.concatenate([part[image] for part in parts])
            order = np.argsort(distances, kind="stable")
            found[layer] = order[others[order]][:NEAR]
        return found


def photograph_rows(
    run: Run,
    searched: Looked,
    chosen: Looked,
    distances: Distances,
    names: Sequence[str],
    pictures: Pictures,
) -> list[dict[str, Any]]:
    """What is shown of each chosen image.

    Args:
      run: from `load_run`.
      searched: labelled images, among which the nearest are.
      chosen: the images.
      distances: to all that are searched.
      names: of the classes.
      pictures: of the page.
    """
    center, tested = (
        run.predict(chosen.images, views=views, batch_size=BATCH_SIZE)
        for views in ("center", run.views)
    )
    rows = []
    for n, image in enumerate(tqdm(chosen.images, desc="images", disable=None)):
        crop = chosen.crops[n]
        guesses = np.argsort(-center[n], kind="stable")[:GUESSES]
        label = int(guesses[0]) if chosen.labels is None else int(chosen.labels[n])
        hidden = overlay(crop, occlusion_map(run, image, label))
        others = (searched.images != image).any((1, 2, 3))  # it may have been searched, too
        rows.append(
            {
                "picture": pictures.whole(f"c{n}", crop),
                "name": None if chosen.labels is None else names[label],
                "watched": names[label],
                "guesses": [(names[g], float(center[n, g]), float(tested[n, g])) for g in guesses],
                "hidden": pictures.whole(f"o{n}", hidden),
                "gradient": pictures.whole(f"g{n}", _bright(gradient_map(run, image, label))),
                "views": _views(run, f"v{n}", image, label, pictures) if run.views == "ten" else [],
                "near": {
                    layer: [_searched(searched, number, names, pictures) for number in numbers]
                    for layer, numbers in distances.nearest(n, others).items()
                },
            }
        )
    return rows


def _searched(
    searched: Looked, number: int, names: Sequence[str], pictures: Pictures
) -> tuple[Cut, str]:
    """One of the searched images, and its class."""
    picture = pictures.whole(f"i{number}", searched.crops[number])
    return picture, names[int(searched.labels[number])]


def _views(
    run: Run, name: str, image: np.ndarray, label: int, pictures: Pictures
) -> list[tuple[Cut, bool, float]]:
    """The ten views: a part of the image, whether it is mirrored, and the class's probability."""
    size = run.model.image_size
    crops = ten_views(image[None], run.augmentation, size)[:, 0]
    probabilities = np.asarray(_probabilities(run.model)(run.params, crops))[:, label]
    picture = pictures.image(name, image)
    cuts = [
        Cut(picture, -x / size, -y / size, len(image) / size)
        for y, x in view_offsets(len(image) - size)
    ]
    return [
        (cuts[view % 5], view >= 5, float(probability))
        for view, probability in enumerate(probabilities)
    ]


@made_once(8)
def _probabilities(model: LayeredNetwork) -> Any:
    def probabilities(params: Mapping[str, Any], crops: jax.Array) -> jax.Array:
        logits: Any = model.apply({"params": params}, crops)
        return jax.nn.softmax(logits)

    return compiled(probabilities)


def _bright(gradients: np.ndarray) -> np.ndarray:
    """A map [H, W] as uint8 [H, W, 3]; its strongest hundredth is white."""
    shares = gradients / max(float(np.quantile(gradients, 0.99)), 1e-12)
    return np.round(255 * np.minimum(shares, 1)[..., None].repeat(3, -1)).astype(np.uint8)
