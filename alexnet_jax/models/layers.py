"""What networks are made of: a row, its product and its operations (sections 3.1-3.5, 4.2).

Step, mesh, layer table and report know of a network what the `Network` protocol says, no more.
"""

import dataclasses
import math
import re
from typing import Any, ClassVar, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from alexnet_jax import ops, parallel
from alexnet_jax.ops.units import check_dropout
from alexnet_jax.wording import suggestion


@dataclasses.dataclass(frozen=True)
class Towers:
    """How many towers a network has, and the mesh axis that they are split over, if any."""

    count: int = 1
    axis: str | None = None

    @property
    def local(self) -> int:
        """Towers on one device."""
        return self.count if self.axis is None else 1

    def numbers(self) -> jax.Array:
        """int32 [local]: which towers this device has."""
        return parallel.tower_numbers(self.count, self.axis)


# --- operations -----------------------------------------------------------------------------------


class Operation(Protocol):
    """What is done to a layer's output; holds its own constants.

    `window` is "size / stride / padding" in pixels where it makes the maps smaller, else "".
    """

    @property
    def name(self) -> str:
        """As the layer table says it."""
        ...

    @property
    def window(self) -> str:
        """Its window as text."""
        ...

    def __call__(self, x: jax.Array, towers: Towers, keys: jax.Array | None) -> jax.Array:
        """The result for `x` [B, …, C], the local towers' channels side by side.

        `keys` are the layer's PRNG keys [B], one per image, in training; None at test.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Activation:
    """Section 3.1: "relu", or the saturating "tanh" and "sigmoid"."""

    function: str = "relu"
    window: ClassVar[str] = ""

    @property
    def name(self) -> str:
        return self.function

    def __call__(self, x: jax.Array, towers: Towers, keys: jax.Array | None) -> jax.Array:
        return ops.ACTIVATIONS[self.function](x)


@dataclasses.dataclass(frozen=True)
class LocalResponseNorm:
    """Section 3.3; `alpha` is not divided by `size`. `across`: windows cross the towers' border."""

    size: int = 5
    k: float = 2.0
    alpha: float = 1e-4
    beta: float = 0.75
    across: bool = False
    name: ClassVar[str] = "LRN"
    window: ClassVar[str] = ""

    def __call__(self, x: jax.Array, towers: Towers, keys: jax.Array | None) -> jax.Array:
        blocks = 1 if self.across else towers.local
        return ops.local_response_norm(x, self.size, self.k, self.alpha, self.beta, blocks)


@dataclasses.dataclass(frozen=True)
class WithinMapNorm:
    """The authors' norm over size x size pixels of a value's own map; see `ops`."""

    size: int = 5
    alpha: float = 0.001 / 25
    beta: float = 0.75
    name: ClassVar[str] = "within-map norm"
    window: ClassVar[str] = ""

    def __call__(self, x: jax.Array, towers: Towers, keys: jax.Array | None) -> jax.Array:
        return ops.within_map_norm(x, self.size, self.alpha, self.beta)


@dataclasses.dataclass(frozen=True)
class MaxPool:
    """Section 3.4: the maximum of size x size pixels, every `stride`; `ceil` as in `ops`."""

    size: int = 3
    stride: int = 2
    ceil: bool = False
    name: ClassVar[str] = "pool"

    @property
    def window(self) -> str:
        return window_text(self.size, self.stride, "ceil" if self.ceil else (0, 0))

    def __call__(self, x: jax.Array, towers: Towers, keys: jax.Array | None) -> jax.Array:
        return ops.max_pool(x, self.size, self.stride, self.ceil)


@dataclasses.dataclass(frozen=True)
class AveragePool:
    """The mean of size x size pixels, every `stride`, up to the map's end; see `ops`."""

    size: int = 3
    stride: int = 2
    name: ClassVar[str] = "average pool"

    @property
    def window(self) -> str:
        return window_text(self.size, self.stride, "ceil")

    def __call__(self, x: jax.Array, towers: Towers, keys: jax.Array | None) -> jax.Array:
        return ops.average_pool(x, self.size, self.stride)


@dataclasses.dataclass(frozen=True)
class Dropout:
    """Section 4.2: drops a share `rate` of the units; `style` and errors as in `ops.dropout`."""

    rate: float = 0.5
    style: str = "paper"
    name: ClassVar[str] = "dropout"
    window: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check_dropout(self.rate, self.style)

    def __call__(self, x: jax.Array, towers: Towers, keys: jax.Array | None) -> jax.Array:
        mask = None
        if keys is not None:  # towers draw apart
            space, channels = x.shape[1:-1], x.shape[-1] // towers.local
            units = math.prod(space) * channels
            mask = ops.dropout_mask(keys, towers.numbers(), units, self.rate)
            mask = mask.reshape(x.shape[0], towers.local, *space, channels)
            mask = jnp.moveaxis(mask, 1, -2).reshape(x.shape)
        return ops.dropout(x, mask, self.rate, self.style)


# The same in training and at test; one of a user's own may draw.
DRAWING_NOTHING = (Activation, LocalResponseNorm, WithinMapNorm, MaxPool, AveragePool)


def window_text(size: int, stride: int, padding: tuple[int, int] | str = (0, 0)) -> str:
    """ "size / stride / padding" in pixels, or a word for a padding that fits the map."""
    if isinstance(padding, str):
        return f"{size} / {stride} / {padding}"
    low, high = padding
    return f"{size} / {stride} / {low if low == high else f'({low}, {high})'}"


# --- a row and its product ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Layer:
    """One row of section 3.5: a convolution, or a full connection where `kernel_size` is 0.

    Raises:
      ValueError: `reads` or `join` is none of its choices, there is no `number` and the name does
        not end with one, or a full connection is to be not shared.
    """

    name: str
    features: int  # kernels or units, all towers together
    kernel_size: int = 0
    stride: int = 1
    padding: tuple[int, int] = (0, 0)  # (low, high), on both axes
    operations: tuple[Operation, ...] = ()  # on its output, in order
    bias: float = 0.0  # initial
    stddev: float = 0.01  # of the initial weights
    reads: str = "tower"  # "image", "tower" (its own) or "both"
    join: str = "gather"  # how it reads both: "gather" the inputs or "sum" the products
    shared: bool = True  # False: a convolution with kernels and biases for each output position
    number: int = -1  # what its draws fold in; by default the number its name ends with

    def __post_init__(self) -> None:
        for field, allowed in (("reads", ("image", "tower", "both")), ("join", ("gather", "sum"))):
            value = getattr(self, field)
            if value not in allowed:
                raise ValueError(
                    f"layer {self.name!r} has {field}={value!r}; {suggestion(value, allowed)}"
                )
        if self.number < 0:
            digits = re.search(r"\d+$", self.name)
            if not digits:
                raise ValueError(
                    f"layer {self.name!r} has no number; let its name end with one, or give number="
                )
            object.__setattr__(self, "number", int(digits[0]))
        if not (self.shared or self.kernel_size):
            raise ValueError(f"layer {self.name!r} is not shared; give it a kernel_size")

    @property
    def window(self) -> str:
        """The kernel's window as text; "" for a full connection."""
        return window_text(self.kernel_size, self.stride, self.padding) if self.kernel_size else ""

    def positions(self, space: tuple[int, ...]) -> tuple[int, ...]:
        """The places (H', W') of its kernel on maps of (H, W)."""
        reach = sum(self.padding) - self.kernel_size
        return tuple((side + reach) // self.stride + 1 for side in space)


class Product(nn.Module):
    """A convolution or full connection with its bias, reading its own tower or both.

    Parameters: `kernel` ([kh, kw, inputs one kernel sees, outputs], or [inputs, outputs]) and
    `bias` [outputs], tower 0's outputs first; of a convolution that is not shared both begin with
    the output's [H', W']. Where the towers are split they are this device's.
    """

    layer: Layer
    towers: Towers
    precision: lax.Precision

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        row, towers = self.layer, self.towers
        groups = towers.local if row.reads == "tower" else 1
        summed = row.join == "sum"
        if row.reads == "both" and not summed:
            x = parallel.gather_towers(x, towers.axis)
        if not row.kernel_size and x.ndim == 4:
            x = _flatten(x, groups)
        features = row.features if summed else row.features // towers.count * towers.local
        window = (row.kernel_size,) * 2 if row.kernel_size else ()
        places = () if row.shared else row.positions(x.shape[1:-1])
        shape = (*places, *window, x.shape[-1] // groups, features)
        kernel = self.param("kernel", nn.initializers.normal(row.stddev), shape, jnp.float32)
        bias = self.param(
            "bias", nn.initializers.constant(row.bias), (*places, features), jnp.float32
        )
        if row.kernel_size:
            convolve = ops.convolution if row.shared else ops.local_convolution
            x = convolve(
                x,
                kernel,
                stride=row.stride,
                padding=(row.padding, row.padding),
                groups=groups,
                precision=self.precision,
            )
        else:
            x = ops.dense(x, kernel, groups=groups, precision=self.precision)
        if summed:
            x = parallel.sum_towers(x, towers.axis)
        if not row.shared:
            return ops.add_bias(x.reshape(x.shape[0], bias.size), bias.reshape(-1)).reshape(x.shape)
        return ops.add_bias(x, bias)


def _flatten(x: jax.Array, groups: int) -> jax.Array:
    """[B, H, W, C] to [B, HWC] in that order, one group of channels after the other."""
    batch, height, width, channels = x.shape
    inputs = height * width * channels // groups
    parts = jnp.split(x, groups, axis=-1)
    return jnp.concatenate([part.reshape(batch, inputs) for part in parts], axis=-1)


# --- networks -------------------------------------------------------------------------------------


class Network(parallel.Partition, Protocol):
    """What step, mesh, layer table and report know of a network.

    Fields:
      num_classes: outputs of the last layer.
      image_size: side of the images in pixels.
      towers: columns of layers that mostly do not read each other; 1 for a plain net.
      layers: the rows, in order.
      head: name of the last layer, the one that fine-tuning renews.
    """

    @property
    def num_classes(self) -> int: ...
    @property
    def image_size(self) -> int: ...
    @property
    def towers(self) -> int: ...
    @property
    def layers(self) -> tuple[Layer, ...]: ...
    @property
    def head(self) -> str: ...

    def split(self, axis: str | None) -> "Network":
        """The part that one device of mesh axis `axis` has; None: all of it."""
        ...

    def init(self, rngs: Any, *args: Any, **kwargs: Any) -> Any:
        """As of `flax.linen.Module`."""
        ...

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        """As of `flax.linen.Module`."""
        ...
