"""The authors' published nets for CIFAR-10, of one tower each.

The paper has results on CIFAR-10 (figure 1, section 3.3) and does not say of which net.
"""

import dataclasses

from alexnet_jax import ops
from alexnet_jax.models.fields import check_kinds
from alexnet_jax.models.layers import (
    Activation,
    AveragePool,
    Layer,
    LocalResponseNorm,
    MaxPool,
    Operation,
    WithinMapNorm,
)
from alexnet_jax.models.network import PRECISIONS, LayeredNetwork
from alexnet_jax.wording import suggestion

# The size of the images each net was made for: whole, or crops of 24.
VARIANTS = {"quick": 32, "18pct": 32, "conv_local_13pct": 24, "conv_local_11pct": 24}

_LARGEST_SIZE = 4096


class CifarNet(LayeredNetwork):
    """One of the four nets, by the test error that its authors give in percent ("quick": 19).

    Convolutions are of 5 x 5 pixels with a margin of 2; poolings of 3 x 3 every 2 pixels, of which
    the last reach past the map's end. The initial biases are 0, the standard deviations those of
    the rows. `apply` is as `AlexNet`'s, but nothing is drawn: the nets have no dropout.

    Fields:
      num_classes: outputs of fc10.
      image_size: side of the images in pixels; 0 is the variant's own, 32 or 24. `clone` keeps the
        number made of it: give image_size=0 with another variant.
      variant: "quick" (three convolutions, two of the poolings averages), "18pct" (the same with
        norms within maps), "conv_local_13pct" (two convolutions, two layers of kernels for each
        position) or "conv_local_11pct" (the same with norms across maps; the first has twice the
        kernels).
      activation: "relu", "tanh" or "sigmoid", everywhere.
      norm: False takes the norms out; "quick" and "conv_local_13pct" have none.
      precision: "float32", "tensorfloat32" or "bfloat16" products. Norms are float32 always.

    Raises:
      ValueError: a field has a value that makes no network; the message names it.

    Source: the authors' `layers-19pct`, `layers-18pct`, `layers-conv-local-13pct` and
      `layers-conv-local-11pct`.
    """

    num_classes: int = 10
    image_size: int = 0
    variant: str = "quick"
    activation: str = "relu"
    norm: bool = True

    def __post_init__(self) -> None:
        check_kinds(self)
        for field, allowed in (
            ("variant", VARIANTS),
            ("activation", ops.ACTIVATIONS),
            ("precision", PRECISIONS),
        ):
            if getattr(self, field) not in allowed:
                value = getattr(self, field)
                raise ValueError(f"{field}={value!r}; {suggestion(value, allowed)}")
        if self.towers != 1:
            raise ValueError(f"towers={self.towers}; a net for CIFAR-10 has 1")
        if self.image_size == 0:
            object.__setattr__(self, "image_size", VARIANTS[self.variant])
        for field in ("num_classes", "image_size"):
            if not 1 <= getattr(self, field) <= _LARGEST_SIZE:
                raise ValueError(f"{field}={getattr(self, field)!r}; use 1 to {_LARGEST_SIZE:,}")
        super().__post_init__()

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The rows; comments give the output, after pooling, of the variant's own image size."""
        local = self.variant.startswith("conv_local")
        rows = self._local_rows() if local else self._convolution_rows()
        rows = (*rows, Layer("fc10", self.num_classes))  # [B, 10]
        return (dataclasses.replace(rows[0], stddev=1e-4, reads="image"), *rows[1:])

    def _convolution_rows(self) -> tuple[Layer, ...]:
        """Of "quick" and "18pct". The first pools before it activates, as the authors do."""
        act = Activation(self.activation)
        # Their parser divides a norm's scale by what it sums over, here 3 x 3.
        norm = self._norm(WithinMapNorm(3, 5e-5 / 9, 0.75)) if self.variant == "18pct" else ()
        # fmt: off
        return (
            Layer("conv1", 32, 5, 1, (2, 2), (MaxPool(ceil=True), act, *norm)),  # [B, 16, 16, 32]
            Layer("conv2", 32, 5, 1, (2, 2), (act, AveragePool(), *norm)),       # [B, 8, 8, 32]
            Layer("conv3", 64, 5, 1, (2, 2), (act, AveragePool())),              # [B, 4, 4, 64]
        )
        # fmt: on

    def _local_rows(self) -> tuple[Layer, ...]:
        """Of the conv-local nets; "11pct" normalises after the first pool, before the second."""
        act, pool = Activation(self.activation), MaxPool(ceil=True)
        best = self.variant == "conv_local_11pct"
        norm = self._norm(LocalResponseNorm(9, 1.0, 0.001 / 9, 0.75)) if best else ()
        wide = 64 if best else 32
        return (
            # [B, 12, 12, 64], [B, 6, 6, 64], [B, 6, 6, 32 or 64], [B, 6, 6, 32]
            Layer("conv1", 64, 5, 1, (2, 2), (act, pool, *norm)),
            Layer("conv2", 64, 5, 1, (2, 2), (act, *norm, pool)),
            Layer("local3", wide, 3, 1, (1, 1), (act,), stddev=0.04, shared=False),
            Layer("local4", 32, 3, 1, (1, 1), (act,), stddev=0.04, shared=False),
        )

    def _norm(self, operation: Operation) -> tuple[Operation, ...]:
        return (operation,) if self.norm else ()
