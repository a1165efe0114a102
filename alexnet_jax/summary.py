"""`python -m alexnet_jax.summary`: what a net consists of and what its towers exchange.

The layer table is section 3.5 and figure 2; `--collectives` is section 3.2, read from the
compiled training step.
"""

import ast
from collections.abc import Sequence

import jax
import jax.extend
from absl import flags

from alexnet_jax.command import run
from alexnet_jax.communication import (
    Collective,
    DeviceBytes,
    collectives,
    compile_train_step,
    device_bytes,
)
from alexnet_jax.models.alexnet import AlexNet
from alexnet_jax.models.layer_table import format_table, layer_table, towers_exchange
from alexnet_jax.models.presets import PRESETS, alexnet
from alexnet_jax.parallel import make_mesh
from alexnet_jax.wording import align


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
