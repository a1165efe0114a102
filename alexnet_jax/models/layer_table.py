"""The layer table: what a net consists of, counted (section 3.5, figure 2)."""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from alexnet_jax.models.alexnet import AlexNet, Product
from alexnet_jax.wording import align


class Row(NamedTuple):
    """One line of the layer table; counts are of both towers together.

    Fields:
      name: layer, or pooling.
      output: shape of one image's output, (H, W, C) or (units,).
      window: "kernel / stride / padding" in pixels; "" for a full connection.
      reads: "image", "own" tower, "both" towers, or "all" where there is only one.
      then: operations on the output, in order; the pooling also has its own row.
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


def layer_table(model: AlexNet) -> list[Row]:
    """The layers and poolings of `model` in order; computes shapes only.

    Source: AlexNet §3.5 and figure 2.
    """
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}  # layer -> input, output

    def record(call, args, kwargs, context):
        output = call(*args, **kwargs)
        if isinstance(context.module, Product):
            shapes[context.module.name] = args[0].shape[1:], output.shape[1:]
        return output

    def initialise():
        images = jnp.zeros((1, model.image_size, model.image_size, 3), jnp.float32)
        return model.init(jax.random.key(0), images)["params"]

    with nn.intercept_methods(record):
        params = jax.eval_shape(initialise)

    rows = []
    for layer, following in zip(model.layers, (*model.layers[1:], None), strict=True):
        output = shapes[layer.name][1]
        window = _window(layer.kernel_size, layer.stride, layer.padding)
        reads = "own" if layer.reads == "tower" else layer.reads
        row = Row(
            name=layer.name,
            output=output,
            window=window if layer.kernel_size else "",
            reads="all" if model.towers == 1 and layer.reads != "image" else reads,
            then=", ".join(_operation_name(name, model) for name in layer.then),
            parameters=sum(leaf.size for leaf in params[layer.name].values()),
            neurons=math.prod(output),
            macs=params[layer.name]["kernel"].size * math.prod(output[:-1]),
        )
        rows.append(row)
        if following is not None and "pool" in layer.then:
            name, window = f"pool{layer.name[-1]}", _window(model.pool_window, model.pool_stride)
            rows.append(Row(name, shapes[following.name][0], window, "", "", 0, 0, 0))
    return rows


def _window(size: int, stride: int, padding: tuple[int, int] = (0, 0)) -> str:
    low, high = padding
    return f"{size} / {stride} / {low if low == high else f'({low}, {high})'}"


def _operation_name(operation: str, model: AlexNet) -> str:
    names = {"activation": model.activation, "lrn": "LRN", "map_norm": "within-map norm"}
    return names.get(operation, operation)


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


def towers_exchange(model: AlexNet) -> dict[str, int]:
    """Layer -> values of an image that each of the authors' GPUs lacks of the layer's input.

    At the last layer only one of them is sent: all of fc8 is on one GPU.

    Source: AlexNet §3.2, figure 2.
    """
    rows = {row.name: row for row in layer_table(model)}
    inputs = dict(zip(list(rows)[1:], rows.values(), strict=False))
    both = [row.name for row in rows.values() if row.reads == "both"]
    return {name: math.prod(inputs[name].output) // 2 for name in both}
