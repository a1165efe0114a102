"""The layer table: what a net consists of, counted (section 3.5, figure 2)."""

import itertools
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from alexnet_jax.models.layers import Network, Product, Towers
from alexnet_jax.wording import align


class Row(NamedTuple):
    """One line of the layer table; counts are of all towers together.

    Fields:
      name: layer, or pooling.
      output: shape of one image's output, (H, W, C) or (units,).
      window: "kernel / stride / padding" in pixels; "" for a full connection.
      reads: "image", "own" tower, "both" towers, or "all" where there is only one.
      then: operations on the output, in order; a pooling also has its own row.
      parameters: weights and biases.
      neurons: values computed by the layer for one image.
      macs: multiply-accumulates for one image.
    """

    name: str
    output: tuple[int, ...]
    window: str
    reads: str
    then: str
    parameters: int
    neurons: int
    macs: int


def layer_table(model: Network) -> list[Row]:
    """The layers and poolings of `model` in order; computes shapes only.

    Source: AlexNet §3.5 and figure 2.
    """
    outputs: dict[str, Any] = {}  # layer -> shape and dtype of what its product gives

    def record(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        output = call(*args, **kwargs)
        if isinstance(context.module, Product):
            outputs[context.module.layer.name] = jax.eval_shape(lambda: output)
        return output

    def initialise() -> Any:
        images = jnp.zeros((1, model.image_size, model.image_size, 3), jnp.float32)
        return model.init(jax.random.key(0, impl="threefry2x32"), images)["params"]

    with nn.intercept_methods(record):
        params = jax.eval_shape(initialise)

    towers = Towers(model.towers)
    rows = []
    for layer in model.layers:
        x = outputs[layer.name]
        weights = math.prod(params[layer.name]["kernel"].shape)
        reads = "own" if layer.reads == "tower" else layer.reads
        row = Row(
            name=layer.name,
            output=x.shape[1:],
            window=layer.window,
            reads="all" if model.towers == 1 and layer.reads != "image" else reads,
            then=", ".join(operation.name for operation in layer.operations),
            parameters=sum(math.prod(leaf.shape) for leaf in params[layer.name].values()),
            neurons=math.prod(x.shape[1:]),
            macs=weights * math.prod(x.shape[1:-1] if layer.shared else ()),
        )
        rows.append(row)
        for operation in layer.operations:
            x = jax.eval_shape(lambda x, apply=operation: apply(x, towers, None), x)
            if operation.window:
                rows.append(
                    Row(f"pool{layer.number}", x.shape[1:], operation.window, "", "", 0, 0, 0)
                )
    return rows


def format_table(rows: list[Row]) -> str:
    """The layer table as text, with a line of totals."""
    head = (
        "layer",
        "output",
        "kernel/stride/pad",
        "reads",
        "then",
        "parameters",
        "neurons",
        "MACs",
    )
    counts = [(row.parameters, row.neurons, row.macs) for row in rows]
    lines = [
        (row.name, "x".join(map(str, row.output)), row.window, row.reads, row.then) for row in rows
    ]
    lines.append(("total", "", "", "", ""))
    totals = tuple(map(sum, zip(*counts, strict=True)))
    numbers = [tuple(f"{n:,}" if n else "" for n in row) for row in (*counts, totals)]
    return align([head, *(a + b for a, b in zip(lines, numbers, strict=True))])


def towers_exchange(model: Network) -> dict[str, int]:
    """Layer -> values of an image that each of the authors' GPUs lacks of the layer's input.

    At the last layer only one of them is sent: all of fc8 is on one GPU.

    Source: AlexNet §3.2, figure 2.
    """
    rows = layer_table(model)
    return {
        row.name: math.prod(before.output) // 2
        for before, row in itertools.pairwise(rows)
        if row.reads == "both"
    }
