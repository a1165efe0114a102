"""The network: eight learned layers in two towers (section 3.5, figure 2)."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import flax.linen as nn

from alexnet_jax import ops
from alexnet_jax.models.fields import check_kinds
from alexnet_jax.models.layers import (
    Activation,
    Dropout,
    Layer,
    LocalResponseNorm,
    MaxPool,
    Operation,
    WithinMapNorm,
)
from alexnet_jax.models.network import PRECISIONS, LayeredNetwork
from alexnet_jax.ops.units import DROPOUT_STYLES
from alexnet_jax.wording import suggestion

# Every layer that a net can have, in order.
LAYER_NAMES = (*(f"conv{i}" for i in range(1, 7)), "fc6", "fc7", "fc8")

# The rule that sizes conv1's output, and the input size it is meant for. "ceil" is the authors':
# the last window may reach past the image and reads zeros there. "padded" has two rows of zeros on
# every side.
GEOMETRIES = {
    "ceil224": ("ceil", 224),
    "valid224": ("valid", 224),
    "caffe227": ("valid", 227),
    "torchvision224": ("padded", 224),
}
_PADDED = 2

# Standard deviation of the initial weights (section 5 has 0.01 for all; the authors' layer files
# and Caffe's solver differ in the layers named).
INITIAL_STDDEV: dict[str, dict[str, float]] = {
    "paper": {},
    "original": {"conv3": 0.03, "conv4": 0.03, "conv5": 0.03, "conv6": 0.03},
    "caffe": {"fc6": 0.005, "fc7": 0.005},
}


class AlexNet(LayeredNetwork):
    """The net of the paper; every field's default is the paper's value.

    `apply({"params": params}, images)` maps float32 images [B, S, S, 3] (RGB, 0-255 scale, mean
    subtracted) to test-time logits [B, num_classes]. In training pass `train=True` and either
    `dropout_keys` (one PRNG key per image) or `rngs={"dropout": key}`.

    Fields:
      num_classes: outputs of fc8.
      image_size: S in pixels; 0 is the geometry's own, 224 or 227. `clone` keeps the number made of
        it: give image_size=0 with another geometry.
      geometry: "ceil224" (the authors': 55-27-13-6), "valid224" (54-26-12-5), "caffe227",
        "torchvision224".
      towers: 2, or 1 for the one-GPU net.
      conv_features: kernels of conv1 to conv5, both towers together.
      conv6_features: kernels of a sixth convolution after the last pooling; 0 for none.
      fc_features: units of fc6 and fc7, both towers together.
      remove: convolutions to leave out, any of conv3, conv4, conv5 (section 7).
      exchange: layers that read both towers; the others read their own.
      activation: "relu", "tanh" or "sigmoid".
      conv1_order, conv2_order: operations after the first two convolutions, of "activation",
        "lrn", "map_norm" (the authors' within-map norm) and "pool".
      lrn: False takes both norms out.
      lrn_size, lrn_k, lrn_alpha, lrn_beta: n, k, α, β of section 3.3.
      lrn_alpha_over_n: divide α by n, as the authors' code and Caffe do.
      lrn_scope: "tower", or "all" for windows that cross the towers' border.
      pool_window, pool_stride: z and s of section 3.4.
      dropout_rate: share of units of fc6 and fc7 dropped.
      dropout_style: "paper" (x 0.5 at test) or "inverted".
      dropout_at: layers whose output is dropped, of conv5, fc6 and fc7.
      initialization: standard deviations of the weights, a key of `INITIAL_STDDEV`.
      hidden_bias: initial bias where the paper has 1 (conv2, conv4, conv5, fc6, fc7).
      precision: "float32", "tensorfloat32" or "bfloat16" products. LRN is float32 always.
      tower_axis: mesh axis that the towers are split over; `split` sets it.

    Raises:
      ValueError: a field has a value that makes no network; the message names it.
    """

    num_classes: int = 1000
    image_size: int = 0
    geometry: str = "ceil224"
    towers: int = 2
    conv_features: tuple[int, int, int, int, int] = (96, 256, 384, 384, 256)
    conv6_features: int = 0
    fc_features: tuple[int, int] = (4096, 4096)
    remove: tuple[str, ...] = ()
    exchange: tuple[str, ...] = ("conv3", "fc6", "fc7", "fc8")
    activation: str = "relu"
    conv1_order: tuple[str, ...] = ("activation", "lrn", "pool")
    conv2_order: tuple[str, ...] = ("activation", "lrn", "pool")
    lrn: bool = True
    lrn_size: int = 5
    lrn_k: float = 2.0
    lrn_alpha: float = 1e-4
    lrn_beta: float = 0.75
    lrn_alpha_over_n: bool = False
    lrn_scope: str = "tower"
    pool_window: int = 3
    pool_stride: int = 2
    dropout_rate: float = 0.5
    dropout_style: str = "paper"
    dropout_at: tuple[str, ...] = ("fc6", "fc7")
    initialization: str = "paper"
    hidden_bias: float = 1.0
    precision: str = "float32"
    tower_axis: str | None = None

    def __post_init__(self) -> None:
        check_kinds(self)
        if self.image_size == 0 and self.geometry in GEOMETRIES:
            object.__setattr__(self, "image_size", GEOMETRIES[self.geometry][1])
        _check(self)
        super().__post_init__()

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The rows of section 3.5; comments give the output of the default geometry."""
        c1, c2, c3, c4, c5 = self.conv_features
        f6, f7 = self.fc_features
        one = self.hidden_bias
        after1, after2 = self._operations(self.conv1_order), self._operations(self.conv2_order)
        relu = self._operations(("activation",))
        pool = self._operations(("activation", "pool"))
        # fmt: off
        rows = [
            Layer("conv1", c1, 11, 4, self._conv1_padding, after1),             # [B, 27, 27, 96]
            Layer("conv2", c2, 5, 1, (2, 2), after2, one),                      # [B, 13, 13, 256]
            Layer("conv3", c3, 3, 1, (1, 1), relu),                             # [B, 13, 13, 384]
            Layer("conv4", c4, 3, 1, (1, 1), relu, one),                        # [B, 13, 13, 384]
            Layer("conv5", c5, 3, 1, (1, 1), pool, one),                        # [B, 6, 6, 256]
            Layer("conv6", self.conv6_features, 3, 1, (1, 1), relu, one),       # [B, 6, 6, 256]
            Layer("fc6", f6, operations=relu, bias=one),                        # [B, 4096]
            Layer("fc7", f7, operations=relu, bias=one),                        # [B, 4096]
            Layer("fc8", self.num_classes, join="sum"),                         # [B, 1000]
        ]
        # fmt: on
        if not self.conv6_features:
            rows = [row for row in rows if row.name != "conv6"]
        if self.dropout_rate:
            drop = Dropout(self.dropout_rate, self.dropout_style)
            rows = [
                dataclasses.replace(row, operations=(*row.operations, drop))
                if row.name in self.dropout_at
                else row
                for row in rows
            ]
        exchange = set(self.exchange)
        for name in self.remove:
            rows = _without(rows, name, exchange)
        reads = {row.name: "both" if row.name in exchange else "tower" for row in rows}
        reads["conv1"] = "image"
        stddev = INITIAL_STDDEV[self.initialization]
        return tuple(
            dataclasses.replace(row, reads=reads[row.name], stddev=stddev.get(row.name, 0.01))
            for row in rows
        )

    @nn.nowrap  # so that Flax's tables take it for no part of the pass
    def _operations(self, names: tuple[str, ...]) -> tuple[Operation, ...]:
        """The operations named, without those that this net does not have."""
        alpha = self.lrn_alpha / self.lrn_size if self.lrn_alpha_over_n else self.lrn_alpha
        across = self.lrn_scope == "all"
        known: dict[str, Operation] = {
            "activation": Activation(self.activation),
            "pool": MaxPool(self.pool_window, self.pool_stride),
        }
        if self.lrn:
            known["lrn"] = LocalResponseNorm(
                self.lrn_size, self.lrn_k, alpha, self.lrn_beta, across
            )
            known["map_norm"] = WithinMapNorm()
        return tuple(known[name] for name in names if name in known)

    @property
    def _conv1_padding(self) -> tuple[int, int]:
        rule = GEOMETRIES[self.geometry][0]
        if rule == "padded":
            return (_PADDED, _PADDED)
        reach = -(-(self.image_size - 11) // 4) * 4 + 11  # end of the last window, rounded up
        return (0, reach - self.image_size) if rule == "ceil" else (0, 0)

    def check_split(self, parts: int) -> None:
        """Raises ValueError where the network cannot be split over `parts` devices."""
        super().check_split(parts)
        if self.lrn and self.lrn_scope == "all":
            raise ValueError(
                "lrn_scope='all' normalises across both towers and they are on different devices; "
                "use lrn_scope='tower' or model=1"
            )


def _without(rows: list[Layer], name: str, exchange: set[str]) -> list[Layer]:
    """Takes a convolution out; its neighbours take over what the net cannot do without.

    The next layer reads both towers if this one did; the layer before pools once more and narrows
    if this one pooled. Source: the paper's section 7 does not say; this keeps the later shapes.
    """
    at = [row.name for row in rows].index(name)
    gone, before, after = rows[at], rows[at - 1], rows[at + 1]
    if name in exchange:
        exchange.add(after.name)
    pools = tuple(operation for operation in gone.operations if operation.window)
    if pools:
        before = dataclasses.replace(
            before, features=gone.features, operations=before.operations + pools
        )
    return [*rows[: at - 1], before, *rows[at + 1 :]]


# No size or number is as large as these; what is has a slip in it.
_LARGEST_SIZE, _LARGEST_NUMBER = 1_000_000, 1e6


def _check(net: AlexNet) -> None:
    """Raises ValueError for fields that make no network: the field, and what to do."""

    def choice(field: str, allowed: Iterable[Any]) -> None:
        values = getattr(net, field)
        allowed = tuple(allowed)
        for value in values if isinstance(values, tuple) else (values,):
            if value not in allowed:
                which = f"{value!r} is none of its names, " if value is not values else ""
                instead = suggestion(str(value), map(str, allowed))
                raise ValueError(f"{field}={values!r}; {which}{instead}")

    def once(field: str) -> None:
        values = getattr(net, field)
        for value in values:
            if values.count(value) > 1:
                raise ValueError(f"{field}={values!r} names {value!r} twice; name it once")

    def within(field: str, least: float, most: float, what: str) -> None:
        if not least <= getattr(net, field) <= most:  # NaN is nowhere
            raise ValueError(f"{field}={getattr(net, field)!r}; {what}")

    after_conv = ("activation", "lrn", "map_norm", "pool")
    choice("geometry", GEOMETRIES)
    choice("towers", (1, 2))
    choice("activation", ops.ACTIVATIONS)
    choice("initialization", INITIAL_STDDEV)
    choice("precision", PRECISIONS)
    choice("lrn_scope", ("tower", "all"))
    choice("dropout_style", DROPOUT_STYLES)
    choice("dropout_at", ("conv5", "fc6", "fc7"))
    choice("remove", ("conv3", "conv4", "conv5"))
    choice("conv1_order", after_conv)
    choice("conv2_order", after_conv)
    choice("exchange", (n for n in LAYER_NAMES[1:] if n != "conv6" or net.conv6_features))
    for field in ("remove", "conv1_order", "conv2_order", "dropout_at"):
        once(field)
    if "fc8" not in net.exchange:
        raise ValueError(f"exchange={net.exchange!r}; the logits need both towers, add 'fc8'")
    if not 0 <= net.dropout_rate < 1:
        raise ValueError(f"dropout_rate={net.dropout_rate!r}; it is a share of units, in [0, 1)")

    for field, count in (("conv_features", 5), ("fc_features", 2)):
        if len(getattr(net, field)) != count:
            raise ValueError(
                f"{field}={getattr(net, field)!r}; it has {count} numbers, one per layer"
            )
    least = {"conv6_features": 0}
    for field in ("conv_features", "conv6_features", "fc_features"):
        widths = getattr(net, field)
        for width in widths if isinstance(widths, tuple) else (widths,):
            if width % net.towers or not least.get(field, 1) <= width <= _LARGEST_SIZE:
                raise ValueError(
                    f"{field} has {width}; for {net.towers} tower(s) use multiples of {net.towers} "
                    f"from {net.towers if field != 'conv6_features' else 0} to {_LARGEST_SIZE:,}"
                )
    for field in ("num_classes", "lrn_size", "pool_window", "pool_stride"):
        within(field, 1, _LARGEST_SIZE, f"use 1 to {_LARGEST_SIZE:,}")
    within("lrn_k", 1e-6, _LARGEST_NUMBER, "use a number above 0, at most 1e6")
    for field in ("lrn_alpha", "lrn_beta"):
        within(field, 0, _LARGEST_NUMBER, "use a number from 0 to 1e6")
    within("hidden_bias", -_LARGEST_NUMBER, _LARGEST_NUMBER, "use a number from -1e6 to 1e6")

    # Backwards from one pixel: what the poolings need, then what conv1 needs.
    size = 1
    for layer in net.layers:
        for operation in layer.operations:
            if operation.window:
                size = (size - 1) * net.pool_stride + net.pool_window
    beyond = {"ceil": 3, "padded": 2 * _PADDED}  # pixels of the last window that may be missing
    smallest = (size - 1) * 4 + 11 - beyond.get(GEOMETRIES[net.geometry][0], 0)
    if net.image_size < smallest:
        raise ValueError(
            f"image_size={net.image_size} leaves no pixel after the poolings "
            f"(pool_window={net.pool_window}, pool_stride={net.pool_stride}); use {smallest} or "
            "more, or smaller poolings"
        )
    within("image_size", 1, _LARGEST_SIZE, f"use at most {_LARGEST_SIZE:,} pixels")
