"""Many updates in one compiled call pay where a step is short: the digits recipe, in turns.

    python -m experiments.speed.steps_per_call

The images lie on the device (`--config.cache=device`). The contenders: a loop of updates, each with
its batch gathered and its step called from Python, and `--config.steps_per_call` of them as one
call. Flags that are not given suit the device: on a GPU an epoch, on a CPU, where one call is
slower, few (`DEFAULTS`). Writes results/steps_per_call_PLATFORM.json.
"""

import json
import statistics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from alexnet_jax import Hyperparameters, create_train_state, make_train_step, make_train_steps
from alexnet_jax.configs import digits
from alexnet_jax.data.batches import batch_indices
from alexnet_jax.runs.recipe import Recipe
from experiments import fitting, harness

DEFAULTS = {"cpu": {"updates": 3, "turns": 3}, "gpu": {"updates": 21, "turns": 20}}
FLAGS = flags.FLAGS
flags.DEFINE_integer("updates", None, "updates a turn: 21 are an epoch")
flags.DEFINE_integer("turns", None, "counted turns of each")


def main(_) -> None:
    """Measures and writes the result."""
    harness.defaults(**DEFAULTS)
    harness.shorten(updates=2, turns=1)
    config = digits.get_config()
    config = fitting.shortened(config) if harness.quick() else config
    config.cache = "device"
    recipe = Recipe(config)
    model, source = recipe.model, recipe.cached_training().source
    order = batch_indices(len(recipe.training), batch_size=config.batch_size, seed=0)
    indices = np.stack([order[step] for step in range(FLAGS.updates)]).astype(np.int32)
    single, many = make_train_step(model), make_train_steps(model)

    def loop(state: Any) -> Any:
        for chosen in indices:
            state, _ = single(state, source.read(chosen), Hyperparameters())
        return state

    def call(state: Any) -> Any:
        rates = jnp.full(len(indices), 0.01)
        return many(state, source.read_all(), indices, jax.vmap(Hyperparameters)(rates))[0]

    ways = {"single steps": loop, "one call": call}
    states = {name: create_train_state(model, jax.random.key(0)) for name in ways}

    def turn(name: str) -> None:
        states[name] = jax.block_until_ready(ways[name](states[name]))

    turns = {name: lambda name=name: turn(name) for name in ways}
    seconds = harness.interleaved(turns, turns=FLAGS.turns)
    ratios = [a / b for a, b in zip(*seconds.values(), strict=True)]
    result = {
        "median_seconds_an_update": {
            name: statistics.median(times) / len(indices) for name, times in seconds.items()
        },
        "times_as_fast_in_one_call": {
            "median": statistics.median(ratios),
            "least": min(ratios),
            "most": max(ratios),
        },
    }
    print(json.dumps(result, indent=1))
    harness.record(f"steps_per_call_{jax.default_backend()}", result)


if __name__ == "__main__":
    harness.run(main)
