"""The network: eight learned layers in two towers (section 3.5, figure 2)."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from alexnet_jax import ops, parallel
from alexnet_jax.wording import suggestion

# The rule that sizes conv1's output, and the input size it is meant for. "ceil" is the authors':
# the last window may reach past the image and reads zeros there.
GEOMETRIES = {"ceil224": ("ceil", 224), "valid224": ("valid", 224), "caffe227": ("valid", 227)}

# Standard deviation of the initial weights (section 5 has 0.01 for all; the authors' layer files
# and Caffe's solver differ in the layers named).
INITIAL_STDDEV = {
    "paper": {},
    "original": {"conv3": 0.03, "conv4": 0.03, "conv5": 0.03, "conv6": 0.03},
    "caffe": {"fc6": 0.005, "fc7": 0.005},
}

PRECISIONS = {
    "float32": lax.Precision.HIGHEST,  # on GPU anything less is TF32
    "tensorfloat32": lax.Precision.DEFAULT,
    "bfloat16": lax.Precision.DEFAULT,
}


@dataclasses.dataclass(frozen=True)
class Layer:
    """One row of section 3.5: a convolution, or a full connection where `kernel_size` is 0."""

    name: str
    features: int  # kernels or units, both towers together
    kernel_size: int = 0
    stride: int = 1
    padding: tuple[int, int] = (0, 0)  # (low, high), on both axes
    then: tuple[str, ...] = ()  # the operations on its output, in order
    bias: float = 0.0  # initial
    reads: str = "tower"  # "image", "tower" (its own) or "both"
    meets: str = "gather"  # how it reads both: "gather" the inputs or "sum" the products


class AlexNet(nn.Module):
    """The net of the paper; every field's default is the paper's value.

    `apply({"params": params}, images)` maps float32 images [B, S, S, 3] (RGB, 0-255 scale, mean
    subtracted) to test-time logits [B, num_classes]. In training pass `train=True` and either
    `dropout_keys` (one PRNG key an image) or `rngs={"dropout": key}`.

    Fields:
      num_classes: outputs of fc8.
      image_size: S in pixels; 0 is the geometry's own, 224 or 227.
      geometry: "ceil224" (the authors': 55-27-13-6), "valid224" (54-26-12-5), "caffe227".
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
      initialization: standard deviations of the weights, a key of `INITIAL_STDDEV`.
      hidden_bias: initial bias where the paper has 1 (conv2, conv4, conv5, fc6, fc7).
      precision: "float32", "tensorfloat32" or "bfloat16" products. LRN is float32 always.
      tower_axis: mesh axis that the towers are split over, set by the step inside `shard_map`.

    Raises:
      ValueError: a field has a value that makes no network.
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
    initialization: str = "paper"
    hidden_bias: float = 1.0
    precision: str = "float32"
    tower_axis: str | None = None

    def __post_init__(self):
        if not self.image_size and self.geometry in GEOMETRIES:
            object.__setattr__(self, "image_size", GEOMETRIES[self.geometry][1])
        _check(self)
        super().__post_init__()

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The rows of section 3.5; comments give the output of the default geometry."""
        relu = ("activation",)
        hidden = ("activation", "dropout")
        c1, c2, c3, c4, c5 = self.conv_features
        f6, f7 = self.fc_features
        one = self.hidden_bias
        # fmt: off
        rows = [
            Layer("conv1", c1, 11, 4, self._conv1_padding, self.conv1_order),  # [B, 27, 27, 96]
            Layer("conv2", c2, 5, 1, (2, 2), self.conv2_order, one),           # [B, 13, 13, 256]
            Layer("conv3", c3, 3, 1, (1, 1), relu),                            # [B, 13, 13, 384]
            Layer("conv4", c4, 3, 1, (1, 1), relu, one),                       # [B, 13, 13, 384]
            Layer("conv5", c5, 3, 1, (1, 1), (*relu, "pool"), one),            # [B, 6, 6, 256]
            Layer("conv6", self.conv6_features, 3, 1, (1, 1), relu, one),      # [B, 6, 6, 256]
            Layer("fc6", f6, then=hidden, bias=one),                           # [B, 4096]
            Layer("fc7", f7, then=hidden, bias=one),                           # [B, 4096]
            Layer("fc8", self.num_classes, meets="sum"),                       # [B, 1000]
        ]
        # fmt: on
        if not self.conv6_features:
            rows = [row for row in rows if row.name != "conv6"]
        exchange = set(self.exchange)
        for name in self.remove:
            rows = _without(rows, name, exchange)
        reads = {row.name: "both" if row.name in exchange else "tower" for row in rows}
        reads["conv1"] = "image"
        return tuple(
            dataclasses.replace(row, reads=reads[row.name], then=self._present(row.then))
            for row in rows
        )

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool = False, dropout_keys: jax.Array | None = None
    ) -> jax.Array:
        """Logits [B, num_classes] in float32 of images [B, S, S, 3]; see the class.

        Every layer's output is sown under "intermediates": `conv1_output`, `fc6_output` …
        """
        if images.shape[1:] != (self.image_size, self.image_size, 3):
            raise ValueError(
                f"images of shape {images.shape} where [B, {self.image_size}, {self.image_size}, "
                "3] is wanted; crop them or set image_size"
            )
        if train and dropout_keys is None:
            positions = jnp.arange(images.shape[0], dtype=jnp.int32)
            fold = jax.vmap(jax.random.fold_in, (None, 0))
            dropout_keys = fold(self.make_rng("dropout"), positions)
        x = images.astype(jnp.bfloat16) if self.precision == "bfloat16" else images
        for layer in self.layers:
            x = self._product(layer)(x)
            for operation in layer.then:
                x = self._apply(operation, x, layer, dropout_keys if train else None)
            self.sow("intermediates", f"{layer.name}_output", x)
        return x.astype(ops.at_least_float32(x.dtype))

    def _product(self, layer: Layer) -> "Product":
        """The convolution or full connection of a row."""
        return Product(
            layer,
            groups=self.local_towers if layer.reads == "tower" else 1,
            stddev=INITIAL_STDDEV[self.initialization].get(layer.name, 0.01),
            precision=PRECISIONS[self.precision],
            tower_axis=self.tower_axis,
            name=layer.name,
        )

    def _apply(self, operation: str, x: jax.Array, layer: Layer, dropout_keys) -> jax.Array:
        """One operation of a row; `dropout_keys` is None at test."""
        if operation == "activation":
            return ops.ACTIVATIONS[self.activation](x)
        if operation == "lrn":
            alpha = self.lrn_alpha / self.lrn_size if self.lrn_alpha_over_n else self.lrn_alpha
            towers = self.local_towers if self.lrn_scope == "tower" else 1
            size, k, beta = self.lrn_size, self.lrn_k, self.lrn_beta
            return ops.local_response_norm(x, size, k, alpha, beta, towers)
        if operation == "map_norm":
            return ops.within_map_norm(x)
        if operation == "pool":
            return ops.max_pool(x, self.pool_window, self.pool_stride)
        if operation != "dropout":
            raise ValueError(f"unknown operation {operation!r} after {layer.name}")
        mask = None
        if dropout_keys is not None:
            # Towers draw apart: the fold of the tower's number comes after image and layer.
            keys = _fold_in(dropout_keys, int(layer.name[-1]))
            numbers = parallel.tower_numbers(self.towers, self.tower_axis)
            mask = ops.dropout_mask(keys, numbers, layer.features // self.towers, self.dropout_rate)
        return ops.dropout(x, mask, self.dropout_rate, self.dropout_style)

    def _present(self, then: tuple[str, ...]) -> tuple[str, ...]:
        """The operations of a row that this net has."""
        absent = set() if self.lrn else {"lrn", "map_norm"}
        absent |= set() if self.dropout_rate else {"dropout"}
        return tuple(operation for operation in then if operation not in absent)

    @property
    def _conv1_padding(self) -> tuple[int, int]:
        rule = GEOMETRIES[self.geometry][0]
        reach = -(-(self.image_size - 11) // 4) * 4 + 11  # end of the last window, rounded up
        return (0, reach - self.image_size) if rule == "ceil" else (0, 0)

    @property
    def local_towers(self) -> int:
        """Towers held by one device."""
        return self.towers if self.tower_axis is None else 1


class Product(nn.Module):
    """A convolution or full connection with its bias, reading its own tower or both.

    Parameters: `kernel` ([kh, kw, inputs one kernel sees, outputs], or [inputs, outputs]) and
    `bias` [outputs], tower 0's outputs first. With `tower_axis` they are this device's part.
    """

    layer: Layer
    groups: int
    stddev: float
    precision: lax.Precision
    tower_axis: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        row = self.layer
        summed = row.meets == "sum"
        if row.reads == "both" and not summed:
            x = parallel.gather_towers(x, self.tower_axis)
        if not row.kernel_size and x.ndim == 4:
            x = _flatten(x, self.groups)
        features = row.features if self.tower_axis is None or summed else row.features // 2
        window = (row.kernel_size,) * 2 if row.kernel_size else ()
        shape = (*window, x.shape[-1] // self.groups, features)
        kernel = self.param("kernel", nn.initializers.normal(self.stddev), shape, jnp.float32)
        bias = self.param("bias", nn.initializers.constant(row.bias), (features,), jnp.float32)
        if x.dtype == jnp.bfloat16:
            kernel, bias = kernel.astype(x.dtype), bias.astype(x.dtype)
        if row.kernel_size:
            x = ops.convolution(
                x,
                kernel,
                stride=row.stride,
                padding=(row.padding, row.padding),
                groups=self.groups,
                precision=self.precision,
            )
        else:
            x = ops.dense(x, kernel, groups=self.groups, precision=self.precision)
        if summed:
            x = parallel.sum_towers(x, self.tower_axis)
        return ops.add_bias(x, bias)


def _flatten(x: jax.Array, groups: int) -> jax.Array:
    """[B, H, W, C] to [B, HWC] in that order, one group of channels after the other."""
    parts = jnp.split(x, groups, axis=-1)
    return jnp.concatenate([part.reshape(part.shape[0], -1) for part in parts], axis=-1)


def _fold_in(keys: jax.Array, number: int) -> jax.Array:
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def _without(rows: list[Layer], name: str, exchange: set[str]) -> list[Layer]:
    """Takes a convolution out; its neighbours take over what the net cannot do without.

    The next layer reads both towers if this one did; the layer before pools once more and narrows
    if this one pooled. Source: the paper's section 7 does not say; this keeps the later shapes.
    """
    at = [row.name for row in rows].index(name)
    gone, before, after = rows[at], rows[at - 1], rows[at + 1]
    if name in exchange:
        exchange.add(after.name)
    if "pool" in gone.then:
        before = dataclasses.replace(before, features=gone.features, then=(*before.then, "pool"))
    return [*rows[: at - 1], before, *rows[at + 1 :]]


# The type of a field's default -> what its values may be.
_KINDS: dict[type, tuple[type, ...]] = {
    bool: (bool,),
    int: (int, np.integer),
    float: (int, float, np.integer, np.floating),
    str: (str,),
    tuple: (tuple,),
}


def _check(net: AlexNet) -> None:
    """Raises ValueError for fields that make no network, naming the field and the mend."""

    def choice(field: str, allowed) -> None:
        values = getattr(net, field)
        for value in values if isinstance(values, tuple) else (values,):
            if value not in allowed:
                raise ValueError(f"{field}={value!r}; {suggestion(str(value), map(str, allowed))}")

    for name, default in ((field.name, field.default) for field in dataclasses.fields(net)):
        kinds, value = _KINDS.get(type(default), ()), getattr(net, name)
        if kinds and (not isinstance(value, kinds) or isinstance(value, bool) != (bool in kinds)):
            wanted = type(default).__name__
            raise ValueError(f"{name}={value!r}; it is of type {wanted}, such as {default!r}")
    after_conv = ("activation", "lrn", "map_norm", "pool")
    choice("geometry", GEOMETRIES)
    choice("towers", (1, 2))
    choice("activation", ops.ACTIVATIONS)
    choice("initialization", INITIAL_STDDEV)
    choice("precision", PRECISIONS)
    choice("lrn_scope", ("tower", "all"))
    choice("dropout_style", ("paper", "inverted"))
    choice("remove", ("conv3", "conv4", "conv5"))
    choice("conv1_order", after_conv)
    choice("conv2_order", after_conv)
    choice("exchange", (*(f"conv{i}" for i in range(2, 7)), "fc6", "fc7", "fc8"))
    if "fc8" not in net.exchange:
        raise ValueError("exchange lacks 'fc8': the logits need both towers; add it")
    if len(set(net.remove)) < len(net.remove):
        raise ValueError(f"remove={net.remove} names a layer twice")
    if not 0 <= net.dropout_rate < 1:
        raise ValueError(f"dropout_rate={net.dropout_rate}; it is a share of units, in [0, 1)")
    for field in ("conv_features", "conv6_features", "fc_features"):
        widths = getattr(net, field)
        for width in widths if isinstance(widths, tuple) else (widths,):
            if width % net.towers or width < 0 or (width == 0 and field != "conv6_features"):
                raise ValueError(
                    f"{field} has {width}: {net.towers} tower(s) take a positive multiple of "
                    f"{net.towers}"
                )
    if net.num_classes < 1:
        raise ValueError(f"num_classes={net.num_classes}; there is at least one")
    if net.pool_window < 1 or net.pool_stride < 1:
        raise ValueError(
            f"pool_window={net.pool_window}, pool_stride={net.pool_stride}; both are at least 1"
        )
    # Backwards from one pixel after three poolings: what those need, then what conv1 needs.
    size = 1
    for _ in range(3):
        size = (size - 1) * net.pool_stride + net.pool_window
    smallest = (size - 1) * 4 + 11 - (3 if GEOMETRIES[net.geometry][0] == "ceil" else 0)
    if net.image_size < smallest:
        raise ValueError(
            f"image_size={net.image_size} leaves no pixel after the poolings; use {smallest} or "
            "more"
        )
