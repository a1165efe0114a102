"""Where one compiled call of many updates pays: the digits recipe, interleaved with single steps.

    python experiments/steps_per_call.py [--updates=21 --turns=20]

The images lie on the device (`--config.cache=device`). In turns: a loop of updates, each with its
batch gathered and its step called from Python, and `--config.steps_per_call` of them as one call.
The first turn of each compiles and is not counted. Writes results/steps_per_call_PLATFORM.json.
"""

import json
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from alexnet_jax import Hyperparameters, create_train_state, make_train_step, make_train_steps
from alexnet_jax.configs import digits
from alexnet_jax.data.batches import batch_indices
from alexnet_jax.runs.recipe import Recipe

_UPDATES = flags.DEFINE_integer("updates", 21, "Updates a turn: 21 are an epoch.")
_TURNS = flags.DEFINE_integer("turns", 20, "Counted turns of each.")
RESULTS = Path(__file__).parent / "results"


def main(_) -> None:
    """Measures and writes the result."""
    config = digits.get_config()
    config.cache = "device"
    recipe = Recipe(config)
    stored, model = recipe.training, recipe.model
    source = recipe.cached_training().source
    order = batch_indices(len(stored), batch_size=config.batch_size, seed=0)
    indices = np.stack([order[step] for step in range(_UPDATES.value)]).astype(np.int32)
    single, many = make_train_step(model), make_train_steps(model)

    def loop(state):
        for chosen in indices:
            state, metrics = single(state, source.read(chosen), Hyperparameters())
        return state, metrics

    def call(state):
        rates = jnp.full(len(indices), 0.01)
        return many(state, source.read_all(), indices, jax.vmap(Hyperparameters)(rates))

    seconds: dict[str, list[float]] = {"single steps": [], "one call": []}
    states = {name: create_train_state(model, jax.random.key(0)) for name in seconds}
    for turn in range(_TURNS.value + 1):
        for name, run in (("single steps", loop), ("one call", call)):
            started = time.perf_counter()
            states[name], _ = jax.block_until_ready(run(states[name]))
            if turn:
                seconds[name].append((time.perf_counter() - started) / len(indices))
    ratios = [a / b for a, b in zip(*seconds.values(), strict=True)]
    device = jax.devices()[0]
    result = {
        "device": device.device_kind,
        "jax": jax.__version__,
        "updates_a_call": len(indices),
        "turns": _TURNS.value,
        "median_seconds_an_update": {k: statistics.median(v) for k, v in seconds.items()},
        "times_as_fast_in_one_call": {
            "median": statistics.median(ratios),
            "least": min(ratios),
            "most": max(ratios),
        },
    }
    print(json.dumps(result, indent=2))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"steps_per_call_{device.platform}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)
