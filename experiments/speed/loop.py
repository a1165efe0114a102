"""What the training loop adds to its steps: reading, logging, metrics, checkpoints.

    python -m experiments.speed.loop

The digits recipe and the paper's net at its size (digits at 256 pixels, 32 a batch), as the command
trains them, and the same updates with nothing around them: the same compiled step on the same
batches, which lie ready. Times are those from one call of the step to the next. A line of the log
comes with every epoch and a checkpoint with every third or every one; validations are put off to
the end. Fails where the step is compiled again after its first calls; the first checkpoint's small
programs are part of what is measured. Writes results/loop_PLATFORM.json.
"""

import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import jax
from absl import flags
from ml_collections import ConfigDict

from alexnet_jax import create_train_state, make_mesh
from alexnet_jax.configs import default, digits
from alexnet_jax.runs import training
from alexnet_jax.runs.launch import train
from alexnet_jax.runs.recipe import Recipe
from experiments import fitting, harness

FLAGS = flags.FLAGS
flags.DEFINE_integer("turns", 3, "counted turns of each")
UNCOUNTED = 2  # the first calls compile and fill caches


class Calls:
    """A step that remembers when it was called, with what, and what was compiled before."""

    def __init__(self, step: Any, compiled: list[str]):
        self.step, self.compiled = step, compiled
        self.times: list[float] = []
        self.given: list[Any] = []
        self.programs: list[int] = []

    def __call__(self, state: Any, *given: Any) -> Any:
        """One update."""
        self.times.append(time.perf_counter())
        self.given.append(given)
        self.programs.append(len(self.compiled))
        return self.step(state, *given)

    def intervals(self) -> list[float]:
        """Seconds from each counted call to the next."""
        times = self.times[UNCOUNTED:]
        return [after - before for before, after in itertools.pairwise(times)]

    def seconds(self) -> float:
        """From the first counted call to the last."""
        return sum(self.intervals())

    def compiled_between(self) -> list[str]:
        """What was compiled from the first counted call to the last."""
        return self.compiled[self.programs[UNCOUNTED] : self.programs[-1]]


def recipes() -> dict[str, ConfigDict]:
    """Name -> configuration of the runs."""
    small, full = digits.get_config(), digits.get_config()
    small.num_epochs, small.checkpoint_every_steps = 9, 63
    full.stored_size, full.batch_size, full.num_epochs = 256, 32, 2
    full.log_every_steps = full.checkpoint_every_steps = 42
    full.model = default.get_config().model
    configs = {"digits": small, "paper": full}
    for name, config in configs.items():
        if harness.quick():
            configs[name] = config = fitting.shortened(config)
        config.validate_every_epochs = config.num_epochs
        config.test_split = None
    return configs


def measured(config: ConfigDict) -> dict[str, Any]:
    """What the loop of one run adds."""
    loops: list[Calls] = []

    def loop() -> float:
        """A run of the command, its step timed."""
        make = training.make_train_step

        def timed(*args: Any, **how: Any) -> Calls:
            loops.append(Calls(make(*args, **how), compiled))
            return loops[-1]

        with (
            harness.compilations() as compiled,
            tempfile.TemporaryDirectory() as folder,
            mock.patch.object(training, "make_train_step", timed),
        ):
            train(config, Path(folder) / "run")
        again = [name for name in loops[-1].compiled_between() if "train_step" in name]
        assert not again, f"compiled while the loop ran: {again}"
        return loops[-1].seconds()

    loop()
    first = loops[0]
    recipe, mesh = Recipe(config), make_mesh(config.mesh.data, config.mesh.model)

    def bare() -> float:
        """The same calls of the step that the first run compiled, one after the other."""
        calls = Calls(first.step, [])
        state = create_train_state(recipe.model, recipe.key, mesh=mesh)
        for given in first.given:
            state, _ = jax.block_until_ready(calls(state, *given))
        return calls.seconds()

    seconds = harness.interleaved({"loop": loop, "bare": bare}, turns=FLAGS.turns)
    more = [a / b - 1 for a, b in zip(seconds["loop"], seconds["bare"], strict=True)]
    steps = len(first.times) - UNCOUNTED - 1
    milliseconds = {name: statistics.median(s) / steps * 1e3 for name, s in seconds.items()}
    typical = [statistics.median(one.intervals()) * 1e3 for one in loops[1:]]
    return {
        "steps": steps,
        "milliseconds": milliseconds,
        "milliseconds_of_the_median_step": statistics.median(typical),
        "more": statistics.median(more),
        "more_of_each_turn": sorted(more),
        "compiled_in_the_loop": sorted(set(first.compiled_between())),
    }


def main(_) -> None:
    """Measures and writes the result."""
    harness.shorten(turns=1)
    result = {name: measured(config) for name, config in recipes().items()}
    print(json.dumps(result, indent=1))
    harness.record(f"loop_{jax.default_backend()}", harness.rounded(result))


if __name__ == "__main__":
    harness.run(main)
