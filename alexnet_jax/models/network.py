"""The pass over a network's rows, shared by all networks (section 3.5).

A network is a `LayeredNetwork` with fields of its own and a list of rows.
"""

import re
from collections.abc import Iterable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from alexnet_jax.models.layers import (
    DRAWING_NOTHING,
    Dropout,
    Layer,
    Network,
    Operation,
    Product,
    Towers,
)

PRECISIONS = {
    "float32": lax.Precision.HIGHEST,  # on GPU anything less is TF32
    "tensorfloat32": lax.Precision.DEFAULT,
    "bfloat16": lax.Precision.DEFAULT,
}


class LayeredNetwork(nn.Module):
    """A `Network` that is a list of rows: subclasses add fields and the property `layers`.

    Fields as in `Network`, and:
      precision: "float32", "tensorfloat32" or "bfloat16" products.
      tower_axis: mesh axis that the towers are split over; `split` sets it.
    """

    num_classes: int = 1000
    image_size: int = 224
    towers: int = 1
    precision: str = "float32"
    tower_axis: str | None = None

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The rows, in order."""
        raise NotImplementedError

    @property
    def head(self) -> str:
        """Name of the last layer."""
        return self.layers[-1].name

    def split(self, axis: str | None) -> Network:
        """The part that one device of mesh axis `axis` has; None: all of it."""
        return self.clone(tower_axis=axis)

    def check_split(self, parts: int) -> None:
        """Raises ValueError where the network cannot be split over `parts` devices."""
        if self.towers != parts:
            towers = f"{self.towers} tower{'s' if self.towers > 1 else ''}"
            raise ValueError(
                f"a net of {towers} cannot be split over model={parts}; use model=1 or a preset "
                f"with {parts} towers"
            )

    def split_axis(self, layer: str, parameter: str) -> int | None:
        """The axis of a parameter that is divided over the towers; None: all of it everywhere.

        Outputs are divided; of a layer that sums the towers' products the inputs are.
        """
        for row in self.layers:
            if row.name == layer and row.join == "sum":
                return 0 if parameter == "kernel" else None
            if row.name == layer and parameter in ("kernel", "bias"):
                return -1
        return None

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool = False, dropout_keys: jax.Array | None = None
    ) -> jax.Array:
        """Logits [B, num_classes] in float32 of float32 images [B, S, S, 3].

        Every layer's output is sown under "intermediates", as `conv1_output` and so on, and what
        leads to it as `conv1_linear`, `conv1_relu`, … (`sown_name`).

        Args:
          images: RGB, 0-255 scale, mean subtracted.
          train: drop units.
          dropout_keys: [B] PRNG keys, one per image; by default drawn from rngs "dropout". A net
            whose operations draw nothing needs neither.

        Raises:
          ValueError: images of another size or dtype, or not one key for each.
        """
        self._check_images(images)
        _check_draws(self.layers)
        dropout_keys = self._dropout_keys(dropout_keys, images.shape[0]) if train else None
        towers = Towers(self.towers, self.tower_axis)
        x = images.astype(jnp.bfloat16) if self.precision == "bfloat16" else images
        for row in self.layers:
            x = Product(row, towers, PRECISIONS[self.precision], name=row.name)(x)
            self.sow("intermediates", f"{row.name}_linear", x)
            with jax.named_scope(row.name):
                keys = _fold_in(dropout_keys, row.number)
                for operation in row.operations:
                    x = operation(x, towers, keys)
                    self.sow("intermediates", f"{row.name}_{sown_name(operation)}", x)
            self.sow("intermediates", f"{row.name}_output", x)
        return x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x

    def _dropout_keys(self, keys: jax.Array | None, count: int) -> jax.Array | None:
        """Keys [count]: those given, or drawn from rngs "dropout"; None where none are needed."""
        if keys is None:
            if not self.has_rng("dropout"):
                operations = (operation for row in self.layers for operation in row.operations)
                if all(isinstance(operation, DRAWING_NOTHING) for operation in operations):
                    return None
                raise ValueError(
                    "train=True draws which units are dropped; give dropout_keys=[B] keys, or "
                    "rngs={'dropout': key}"
                )
            positions = jnp.arange(count, dtype=jnp.int32)
            keys = jax.vmap(jax.random.fold_in, (None, 0))(self.make_rng("dropout"), positions)
        if keys.shape[:1] != (count,):
            raise ValueError(
                f"dropout_keys have the shape {list(keys.shape)} where [{count}] is wanted, one "
                "for each image; jax.random.split(key, len(images)) gives them"
            )
        return keys

    def _check_images(self, images: jax.Array) -> None:
        side = self.image_size
        if images.shape[1:] != (side, side, 3):
            raise ValueError(
                f"images of shape {images.shape} where [B, {side}, {side}, 3] is wanted; crop them "
                "or set image_size"
            )
        if images.dtype not in (jnp.float32, jnp.float64, jnp.bfloat16):
            raise ValueError(
                f"images are {images.dtype} where float32 without the mean is wanted; let an "
                "Augmentation prepare them"
            )


def sown_name(operation: Operation) -> str:
    """What an operation's output is sown as, after its layer's name: "relu", "lrn", "pool", …"""
    return re.sub(r"\W+", "_", operation.name.lower())


def _fold_in(keys: jax.Array | None, number: int) -> jax.Array | None:
    return None if keys is None else jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def _check_draws(layers: Iterable[Layer]) -> None:
    drawing: dict[int, str] = {}
    for row in layers:
        if any(isinstance(operation, Dropout) for operation in row.operations):
            other = drawing.setdefault(row.number, row.name)
            if other != row.name:
                raise ValueError(
                    f"layers {other!r} and {row.name!r} draw with the same number {row.number}; "
                    "give one of them another number="
                )
