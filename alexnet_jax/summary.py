"""`python -m alexnet_jax.summary`: the layer table of any net (section 3.5, figure 2)."""

import ast
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from absl import app, flags, logging

from alexnet_jax.models.alexnet import PRESETS, AlexNet, Product, alexnet

_PRESET = flags.DEFINE_string("preset", "paper", f"Named net: {', '.join(PRESETS)}.")
_MODEL = flags.DEFINE_multi_string(
    "model", [], "Override of a field of the net: --model=num_classes=10 --model=lrn=False."
)


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
        images = jnp.zeros((1, model.image_size, model.image_size, 3))
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
    counts.append(tuple(map(sum, zip(*counts, strict=True))))
    numbers = [tuple(f"{n:,}" if n else "" for n in row) for row in counts]
    return align([head, *(a + b for a, b in zip(lines, numbers, strict=True))])


def align(lines: list[tuple[str, ...]]) -> str:
    """Columns of text under a head: numbers to the right, words to the left."""
    columns = list(zip(*lines, strict=True))
    widths = [max(map(len, column)) for column in columns]
    numbers = [all(not x or x.replace(",", "").isdigit() for x in column[1:]) for column in columns]

    def text(line):
        cells = zip(line, widths, numbers, strict=True)
        return "  ".join(x.rjust(w) if n else x.ljust(w) for x, w, n in cells).rstrip()

    head, *rest = map(text, lines)
    return "\n".join([head, "-" * (sum(widths) + 2 * len(widths) - 2), *rest])


def _net() -> AlexNet:
    overrides = {}
    for text in _MODEL.value:
        field, _, value = text.partition("=")
        try:
            overrides[field] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            overrides[field] = value
    return alexnet(_PRESET.value, **overrides)


def main(_) -> None:
    logging.set_verbosity(logging.WARNING)
    try:
        model = _net()
    except (TypeError, ValueError) as error:
        raise SystemExit(f"summary: {error}") from error
    print(format_table(layer_table(model)))


if __name__ == "__main__":
    app.run(main)
