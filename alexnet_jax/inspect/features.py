"""What a layer says of an image: features of a split or of a user's files (section 6.1)."""

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from alexnet_jax import augment
from alexnet_jax.augment import Augmentation
from alexnet_jax.data.batches import eval_batches
from alexnet_jax.data.images import ImageError
from alexnet_jax.data.records import Batch
from alexnet_jax.data.sets import Dataset
from alexnet_jax.inspect.files import read_images
from alexnet_jax.inspect.samples import map_batches, padded_batches
from alexnet_jax.models.layers import Network
from alexnet_jax.runs.workdir import Run
from alexnet_jax.step import compiled
from alexnet_jax.wording import suggestion

BATCH_SIZE = 64


def extract_features(
    run: Run,
    images: np.ndarray | Iterable[Batch],
    *,
    layer: str = "",
    batch_size: int = 64,
) -> np.ndarray:
    """A layer's output for the centre crop of every image, float32 [N, D], in order.

    The output is what the next layer reads: after ReLU and, of fc6 and fc7, after dropout's x 0.5
    at test, which changes no ranking by distance. Maps are flattened in [H, W, C] order.

    Args:
      run: from `load_run`.
      images: uint8 [N, S, S, 3], or batches with a "mask", such as `eval_batches` gives.
      layer: "conv1" to "fc8", or "pool1", "pool2", "pool5"; "" is the last before the head, fc7. A
        convolution's output is what the next layer reads, so that of conv5, which is pooled, and
        that of pool5 are the same.
      batch_size: images at a time, where `images` is an array.

    Raises:
      ValueError: the network has no such layer.

    Source: AlexNet §6.1 (fc7).
    """
    step = _feature_step(run.model, run.augmentation, layer_named(run.model, layer))
    batches = padded_batches(images, batch_size) if isinstance(images, np.ndarray) else images
    return map_batches(lambda image: step(run.state.params, image), batches)


def layer_named(model: Network, name: str) -> str:
    """The row whose output `name` is: a layer's, or that of the pooling after it.

    "" is the last row before the head (fc7).

    Raises:
      ValueError: the network has no such layer.
    """
    rows = {row.name: row.name for row in model.layers}
    rows[""] = model.layers[-2:][0].name
    for row in model.layers:
        if any(operation.window for operation in row.operations):
            rows[f"pool{row.number}"] = row.name
    if name not in rows:
        raise ValueError(
            f"the network has no layer {name!r}; {suggestion(name, filter(None, rows))}"
        )
    return rows[name]


@functools.lru_cache(maxsize=8)
def _feature_step(model: Network, augmentation: Augmentation, layer: str):
    def features(params, images):
        crops = augment.center_view(images, augmentation, model.image_size)[0]
        _, sown = model.apply({"params": params}, crops, mutable=["intermediates"])
        output = sown["intermediates"][f"{layer}_output"][0]
        return output.reshape(len(output), -1).astype(jnp.float32)

    return compiled(features)


def file_features(
    run: Run, files: Sequence[Path], layer: str = ""
) -> tuple[dict[str, np.ndarray], list[ImageError]]:
    """{"features": float32 [N, D], "files": str [N]} of what can be read, and what is wrong else.

    Raises:
      ValueError: the network has no such layer, or no file can be read.
    """
    rows, names, problems = [], [], []
    size = run.config.stored_size
    bar = tqdm(total=len(files), unit=" images", disable=None)
    for batch in read_images(files, size, batch_size=BATCH_SIZE):
        good = [(file, image) for file, image in batch if not isinstance(image, ImageError)]
        problems += [image for _, image in batch if isinstance(image, ImageError)]
        if good:
            names += [str(file) for file, _ in good]
            rows.append(extract_features(run, np.stack([x for _, x in good]), layer=layer))
        bar.update(len(batch))
    bar.close()
    if not rows:
        raise ValueError(f"none of {len(files)} images could be read, the first: {problems[0]}")
    return {"features": np.concatenate(rows), "files": np.array(names)}, problems


def split_features(run: Run, dataset: Dataset, layer: str = "") -> dict[str, np.ndarray]:
    """{"features": float32 [N, D], "labels": int32 [N], "class_names": str [K]} of a split.

    Raises:
      ValueError: the network has no such layer.
    """
    labels = []

    def batches():
        for batch in eval_batches(dataset, batch_size=BATCH_SIZE):
            labels.append(batch["label"][batch["mask"] > 0])
            yield batch

    total = -(-len(dataset) // BATCH_SIZE)
    bar = tqdm(batches(), total=total, unit=" batches", disable=None)
    features = extract_features(run, bar, layer=layer)
    names = np.array(dataset.class_names)
    return {"features": features, "labels": np.concatenate(labels), "class_names": names}
