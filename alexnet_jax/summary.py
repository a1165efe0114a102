"""`python -m alexnet_jax.summary`: what a net consists of and what its towers exchange.

The layer table is section 3.5 and figure 2; `--collectives` is section 3.2, read from the
compiled training step.
"""

import ast
import math
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.extend
import jax.numpy as jnp
from absl import flags

from alexnet_jax.command import run
from alexnet_jax.communication import (
    Collective,
    DeviceBytes,
    collectives,
    compile_train_step,
    device_bytes,
)
from alexnet_jax.models.alexnet import PRESETS, AlexNet, Product, alexnet
from alexnet_jax.parallel import make_mesh


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


def format_collectives(found: list[Collective], model: AlexNet, images: int) -> str:
    """Collectives as text, in bytes that one device sends, beside those of the authors' GPUs.

    Args:
      found: from `collectives`.
      model: the network.
      images: that one device works on in a step.
    """
    theirs = {
        name: f"{values:,} values " + ("one way" if name == model.layers[-1].name else "each way")
        for name, values in towers_exchange(model).items()
    }
    head = ("pass", "axis", "layer", "collective", "arrays", "bytes/step", "bytes/image", "2012")
    lines = [
        (
            one.direction,
            one.axis,
            one.layer or "all",
            one.kind,
            str(len(one.parts)),
            f"{one.sent:,}",
            f"{one.sent // images:,}",
            theirs.get(one.layer, "") if one.direction == "forward" else "",
        )
        for one in found
    ]
    return align([head, *lines])


def format_bytes(held: dict[str, DeviceBytes]) -> str:
    """Bytes a device holds, a column a mesh."""
    names = [*DeviceBytes._fields, "total"]
    columns = [[f"{n:,}" for n in (*bytes_, sum(bytes_))] for bytes_ in held.values()]
    return align([("bytes on a device", *held), *zip(names, *columns, strict=True)])


def print_collectives(model: AlexNet, batch_size: int) -> None:
    """Compiles the training step for three meshes and prints what is sent and held."""
    mesh = make_mesh(data=2, model=2)
    found = collectives(compile_train_step(model, mesh, batch_size), mesh)
    platform = mesh.devices.flat[0].platform
    print(
        f"\nWhat one device sends in a training step, batch {batch_size}, data=2 x model=2 "
        f"(compiled for {platform}); last column: between the authors' two GPUs, per image"
    )
    print(format_collectives(found, model, batch_size // 2))
    held = {}
    for towers in (1, 2):
        mesh = make_mesh(data=1, model=towers)
        compiled = compile_train_step(model, mesh, batch_size)
        held[f"1x{towers}"] = device_bytes(compiled, model, mesh)
    print(f"\nWhat one device holds at batch {batch_size}; the authors' GPUs had 3 GB each")
    print(format_bytes(held))


def _simulate_devices(count: int) -> None:
    """Uses simulated CPU devices where the machine has fewer than `count` real ones."""
    jax.config.update("jax_num_cpu_devices", count)
    if jax.device_count() < count:
        jax.extend.backend.clear_backends()
        jax.config.update("jax_platforms", "cpu")


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


def define_flags() -> None:
    """Only where the command runs: other commands have flags of the same names."""
    flags.DEFINE_string("preset", "paper", f"Named net: {', '.join(PRESETS)}.")
    flags.DEFINE_multi_string(
        "model", [], "Override of a field of the net: --model=num_classes=10 --model=lrn=False."
    )
    flags.DEFINE_bool(
        "collectives", False, "Also what devices send to each other and hold (compiles the step)."
    )
    flags.DEFINE_integer("batch_size", 128, "Images of a batch, for --collectives.")


def parse_net(preset: str, overrides: list[str]) -> AlexNet:
    """The net of a preset and of overrides "field=value". Raises ValueError as `alexnet` does."""
    fields = {}
    for text in overrides:
        field, _, value = text.partition("=")
        try:
            fields[field] = ast.literal_eval(value)
        except (SyntaxError, ValueError):  # a word
            fields[field] = value
    try:
        return alexnet(preset, **fields)
    except TypeError as error:
        raise ValueError(f"--model={' --model='.join(overrides)} makes no net: {error}") from error


def main(_: Sequence[str]) -> None:
    """Prints what the flags ask for."""
    model = parse_net(flags.FLAGS.preset, flags.FLAGS.model)
    print(format_table(layer_table(model)))
    if flags.FLAGS.collectives:
        _simulate_devices(4)
        print_collectives(model, flags.FLAGS.batch_size)


if __name__ == "__main__":
    define_flags()
    run(main)
