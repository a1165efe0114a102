"""`python -m alexnet_jax.summary`: what a net consists of and what its towers exchange.

The layer table is section 3.5 and figure 2; `--collectives` is section 3.2, read from the
compiled training step.
"""

import ast
from collections.abc import Sequence

import jax
import jax.extend
from absl import flags

from alexnet_jax.command import flags_alone, run
from alexnet_jax.communication import describe_collectives
from alexnet_jax.models.layer_table import format_table, layer_table
from alexnet_jax.models.network import LayeredNetwork
from alexnet_jax.models.presets import CIFAR_PRESETS, PRESETS, network


def _simulate_devices(count: int) -> None:
    """Uses simulated CPU devices where the machine has fewer than `count` real ones."""
    jax.config.update("jax_num_cpu_devices", count)
    if jax.device_count() < count:
        jax.extend.backend.clear_backends()
        jax.config.update("jax_platforms", "cpu")


def define_flags() -> None:
    """Only where the command runs: other commands have flags of the same names."""
    names = ", ".join((*PRESETS, *CIFAR_PRESETS))
    flags.DEFINE_string("preset", "paper", f"Named net: {names}.")
    flags.DEFINE_multi_string(
        "model", [], "Override of a field of the net: --model=num_classes=10 --model=lrn=False."
    )
    flags.DEFINE_bool(
        "collectives", False, "Also what devices send to each other and hold (compiles the step)."
    )
    flags.DEFINE_integer("batch_size", 128, "Images of a batch, for --collectives.", lower_bound=1)


def parse_net(preset: str, overrides: list[str]) -> LayeredNetwork:
    """The net of a preset and of overrides "field=value". Raises ValueError as `network` does."""
    fields = {}
    for text in overrides:
        field, _, value = text.partition("=")
        try:
            fields[field] = ast.literal_eval(value)
        except (SyntaxError, ValueError):  # a word
            fields[field] = value
    try:
        return network(preset, **fields)
    except TypeError as error:
        raise ValueError(f"--model={' --model='.join(overrides)} makes no net: {error}") from error


def main(argv: Sequence[str]) -> None:
    """Prints what the flags ask for."""
    flags_alone(argv)
    model = parse_net(flags.FLAGS.preset, flags.FLAGS.model)
    if flags.FLAGS.collectives:
        _simulate_devices(4)  # before the table, which begins with jax's devices
    print(format_table(layer_table(model)))
    if flags.FLAGS.collectives:
        print(f"\n{describe_collectives(model, flags.FLAGS.batch_size)}")


if __name__ == "__main__":
    define_flags()
    run(main)
