"""What layers put out for images: one pass for all that are asked for (section 6.1)."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax import augment
from alexnet_jax.augment import Augmentation
from alexnet_jax.compilation import compiled, made_once
from alexnet_jax.data.records import Batch
from alexnet_jax.models.network import LayeredNetwork, sown_name
from alexnet_jax.wording import suggestion

# What is kept of a convolution's maps [B, H, W, C].
MAPS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "whole": lambda x: x,
    "mean": lambda x: x.mean((1, 2)),
    "max": lambda x: x.max((1, 2)),
}
Outputs = dict[str, np.ndarray]


def known_outputs(model: LayeredNetwork) -> dict[str, str]:
    """Every name that `layers` may hold -> where the network sows it.

    "conv1" is what the next layer reads; "conv1.linear" the products with their bias, and
    "conv1.relu", "conv1.lrn", "conv1.pool", "fc6.dropout" … what follows in the network's order.
    "pool1" is "conv1.pool".
    """
    found = {}
    for row in model.layers:
        found[row.name] = f"{row.name}_output"
        found[f"{row.name}.linear"] = f"{row.name}_linear"
        for operation in row.operations:
            name = sown_name(operation)
            found[f"{row.name}.{name}"] = f"{row.name}_{name}"
            if operation.window:
                found[f"pool{row.number}"] = f"{row.name}_{name}"
    return found


def layers_named(model: LayeredNetwork, names: str | Sequence[str]) -> tuple[str, ...]:
    """The names (or one alone), "all" as every row and none as the last before the head, fc7.

    Raises:
      ValueError: the network has no such layer.
    """
    if not names:
        return (model.layers[-2:][0].name,)
    rows = tuple(row.name for row in model.layers)
    known = known_outputs(model)
    spelled: dict[str, None] = {}
    for name in [names] if isinstance(names, str) else names:
        if name != "all" and name not in known:
            ours = re.sub(r"^norm(\d)$", r"conv\1.lrn", str(name))  # as Caffe calls it
            raise ValueError(f"the network has no layer {name!r}; {suggestion(ours, known)}")
        spelled |= dict.fromkeys(rows if name == "all" else (name,))
    return tuple(spelled)


def outputs_of_batches(
    model: LayeredNetwork,
    augmentation: Augmentation,
    params: Mapping[str, Any],
    batches: Iterable[Batch],
    layers: str | Sequence[str] = (),
    *,
    maps: str = "whole",
) -> Iterator[Outputs]:
    """Layer -> float32 [n, H, W, C] or [n, D] of each batch's images, centre crops, at test.

    The next batch is read while this one is computed.

    Args:
      model: the network.
      augmentation: what is done to the images.
      params: its parameters, wherever they lie.
      batches: {"image": uint8 [B, S, S, 3], "mask": [B]}; what the mask leaves out is left out,
        without one nothing is.
      layers: names in `known_outputs` (or one alone), or "all"; none is the last before the head,
        fc7.
      maps: of convolutions the "whole" maps, or their "mean" or "max" over places, [n, C].

    Raises:
      ValueError: the network has no such layer, or `maps` is another word.
    """
    if maps not in MAPS:
        raise ValueError(f"maps={maps!r}; {suggestion(maps, MAPS)}")
    step = _outputs_step(model, augmentation, layers_named(model, layers), maps)

    def fetched(outputs: Mapping[str, jax.Array], mask: np.ndarray) -> Outputs:
        # Most batches are full, and are not copied.
        whole = bool(mask.all())
        return {
            name: np.asarray(output) if whole else np.asarray(output)[mask]
            for name, output in outputs.items()
        }

    running = None
    for batch in batches:
        mask = batch.get("mask", np.ones(len(batch["image"]), bool))
        ahead = step(params, batch["image"]), np.asarray(mask, bool)
        if running:
            yield fetched(*running)
        running = ahead
    if running:
        yield fetched(*running)


@made_once(8)
def _outputs_step(
    model: LayeredNetwork, augmentation: Augmentation, layers: tuple[str, ...], maps: str
) -> Callable[[Mapping[str, Any], Any], dict[str, jax.Array]]:
    places = known_outputs(model)

    def outputs(params: Mapping[str, Any], images: Any) -> dict[str, jax.Array]:
        crops = augment.center_view(images, augmentation, model.image_size)[0]
        _, sown = model.apply({"params": params}, crops, mutable=["intermediates"])
        found = {name: sown["intermediates"][places[name]][-1] for name in layers}
        return {
            name: (MAPS[maps](x) if x.ndim == 4 else x).astype(jnp.float32)
            for name, x in found.items()
        }

    return compiled(outputs)
