"""Where in the image the evidence lies: what hiding a patch costs, and which pixels matter."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from alexnet_jax.augment import center_view
from alexnet_jax.compilation import compiled, made_once
from alexnet_jax.inspect.drawing import COLORS, new_figure, shorten, show_image, style
from alexnet_jax.models.network import LayeredNetwork
from alexnet_jax.runs.workdir import Run


def occlusion_map(run: Run, image: np.ndarray, label: int, *, steps: int = 12) -> np.ndarray:
    """Loss of probability of `label`, float32 [steps, steps], by where a grey square hides.

    Args:
      run: from `load_run`.
      image: uint8 [S, S, 3].
      label: the class whose probability is watched, of the centre crop.
      steps: places a side; the square's side is a quarter of the crop.
    """
    size = run.model.image_size
    margin = (len(image) - size) // 2
    side = size // 4
    grey = np.mean(
        np.asarray(run.augmentation.mean), axis=tuple(range(run.augmentation.mean.ndim - 1))
    )
    corners = margin + np.round(np.linspace(0, size - side, steps)).astype(int)
    hidden = np.repeat(image[None], steps**2 + 1, axis=0)
    for n, (top, left) in enumerate((top, left) for top in corners for left in corners):
        hidden[n, top : top + side, left : left + side] = np.round(grey)
    probabilities = run.predict(hidden, views="center", batch_size=64)[:, label]
    return (probabilities[-1] - probabilities[:-1]).reshape(steps, steps)


def gradient_map(run: Run, image: np.ndarray, label: int) -> np.ndarray:
    """How much each pixel of the centre crop moves the score of a class: float32 [s, s].

    The largest of the three colours' absolute gradients of the logit.

    Args:
      run: from `load_run`.
      image: uint8 [S, S, 3].
      label: the class.

    Source: Simonyan, Vedaldi and Zisserman 2013, "Deep inside convolutional networks", §3.
    """
    crop = center_view(image[None], run.augmentation, run.model.image_size)[0]
    return np.abs(_gradient(run.model)(run.params, crop, label)[0]).max(-1)


@made_once(8)
def _gradient(model: LayeredNetwork) -> Any:
    def logit(crop: jax.Array, params: Any, label: Any) -> jax.Array:
        logits: Any = model.apply({"params": params}, crop)
        return logits[0, label]

    return compiled(lambda params, crop, label: jax.grad(logit)(crop, params, label))


def occlusion_figure(
    images: np.ndarray,
    maps: Sequence[np.ndarray],
    labels: Sequence[int],
    class_names: Sequence[str],
) -> Figure:
    """The images uint8 [N, H, W, 3] above the same in grey under their maps."""
    with style():
        figure = new_figure(5, 2.3)
        cells = figure.subplots(2, len(images), squeeze=False)
        for column, (image, occlusion, label) in enumerate(zip(images, maps, labels, strict=True)):
            show_image(cells[0, column], image)
            cells[0, column].set_title(shorten(class_names[label], 14), fontsize=9)
            show_image(cells[1, column], overlay(image, occlusion))
    return figure


def overlay(image: np.ndarray, occlusion: np.ndarray) -> np.ndarray:
    """The image [H, W, 3] in grey, coloured where hiding it costs the most: uint8 [H, W, 3]."""
    height, width = image.shape[:2]
    side = height // 4
    # A map's value belongs to the middle of its square; the rim repeats the outermost.
    inner = Image.fromarray(np.float32(occlusion)).resize(
        (width - side, height - side), Image.Resampling.BICUBIC
    )
    strength = np.pad(np.asarray(inner), ((side // 2, side - side // 2),) * 2, mode="edge")
    strength = np.clip(strength / max(strength.max(), 0.1), 0, 1)[..., None] * 0.8
    grey = image.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    color = 255 * np.array(to_rgb(COLORS["red"]))
    return np.round((1 - strength) * grey + strength * color).astype(np.uint8)
