"""What the training loop adds to its steps: reading, logging, metrics, checkpoints.

    python -m experiments.speed.loop

The digits recipe and the paper's net at its size (digits at 256 pixels, 32 a batch), as the command
trains them, and the same updates with nothing around them: the same compiled step on the same
batches, which lie ready. Each has two figures: how much longer the loop takes, and for what share
of its time no step runs, between the end of one call and the next. The rest of the difference comes
from steps that share the cores with what reads and writes in the background. A line of the log
comes with every epoch and a checkpoint with every third or every one; validations are put off to
the end. Counting begins after one checkpoint and ends after another: the first also reads the
validation split, which in a usual run a validation has read by then. Fails where the step is
compiled again. Writes results/loop_PLATFORM.json.
"""

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


class Calls:
    """A step that remembers when it was called and had ended, and what it was given."""

    def __init__(self, step: Any):
        self.step = step
        self.began: list[float] = []
        self.ended: list[float] = []
        self.given: list[Any] = []

    def __call__(self, state: Any, *given: Any) -> Any:
        """One update."""
        self.began.append(time.perf_counter())
        self.given.append(given)
        state, metrics = self.step(state, *given)
        self.ended.append(time.perf_counter())
        return state, metrics

    def seconds(self, counted: slice) -> float:
        """From the first counted call to the one behind the last."""
        return self.began[counted.stop] - self.began[counted.start]

    def between(self, counted: slice) -> float:
        """Of these, those in which no step ran."""
        steps = zip(self.began[counted], self.ended[counted], strict=True)
        return self.seconds(counted) - sum(end - begin for begin, end in steps)


def recipes() -> dict[str, tuple[ConfigDict, slice]]:
    """Name -> configuration of the runs, and the counted updates."""
    small, full = digits.get_config(), digits.get_config()
    small.num_epochs, small.checkpoint_every_steps = 10, 63
    full.stored_size, full.batch_size, full.num_epochs = 256, 32, 2.1
    full.log_every_steps = full.checkpoint_every_steps = 42
    full.model = default.get_config().model
    configs = {"digits": (small, slice(63, 189)), "paper": (full, slice(42, 84))}
    for name, (config, counted) in configs.items():
        if harness.quick():
            config, counted = fitting.shortened(config), slice(0, 1)
            configs[name] = config, counted
        config.validate_every_epochs = config.num_epochs
        config.test_split = None
    return configs


def measured(config: ConfigDict, counted: slice) -> dict[str, Any]:
    """What the loop of one run adds."""
    loops: list[Calls] = []

    def loop() -> Calls:
        """A run of the command, its step timed."""
        make = training.make_train_step

        def timed(*args: Any, **how: Any) -> Calls:
            loops.append(Calls(make(*args, **how)))
            return loops[-1]

        with (
            harness.compilations() as compiled,
            tempfile.TemporaryDirectory() as folder,
            mock.patch.object(training, "make_train_step", timed),
        ):
            train(config, Path(folder) / "run")
        steps = [name for name in compiled if "train_step" in name]
        assert len(steps) <= 1, f"compiled while the loop ran: {steps}"
        return loops[-1]

    loop()
    first = loops[0]
    recipe, mesh = Recipe(config), make_mesh(config.mesh.data, config.mesh.model)

    def bare() -> Calls:
        """The same calls of the step that the first run compiled, one after the other."""
        calls = Calls(first.step)
        state = create_train_state(recipe.model, recipe.key, mesh=mesh)
        for given in first.given[: counted.stop + 1]:
            state, _ = jax.block_until_ready(calls(state, *given))
        return calls

    turns: dict[str, list[Calls]] = {"loop": [], "bare": []}
    run = {
        "loop": lambda: turns["loop"].append(loop()),
        "bare": lambda: turns["bare"].append(bare()),
    }
    harness.interleaved(run, turns=FLAGS.turns, dropped=0)
    steps = counted.stop - counted.start
    seconds = {name: [one.seconds(counted) for one in calls] for name, calls in turns.items()}
    ratios = zip(seconds["loop"], seconds["bare"], strict=True)
    more = [loop / bare - 1 for loop, bare in ratios]
    result = {
        "steps": steps,
        "milliseconds": {name: statistics.median(s) / steps * 1e3 for name, s in seconds.items()},
        "more": statistics.median(more),
        "more_of_each_turn": sorted(more),
    }
    if jax.default_backend() == "cpu":  # where a call returns when its step has ended
        shares = [one.between(counted) / one.seconds(counted) for one in turns["loop"]]
        result |= {
            "no_step_runs": statistics.median(shares),
            "no_step_runs_of_each_turn": sorted(shares),
        }
    return result


def main(_) -> None:
    """Measures and writes the result."""
    harness.shorten(turns=1)
    result = {name: measured(*recipe) for name, recipe in recipes().items()}
    print(json.dumps(result, indent=1))
    harness.record(f"loop_{jax.default_backend()}", harness.rounded(result))


if __name__ == "__main__":
    harness.run(main)
