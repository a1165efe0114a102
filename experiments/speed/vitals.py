"""What it costs to watch a network's vital signs: the whole training step, in turns.

    python -m experiments.speed.vitals

Three steps: of a program that does not watch, and of one that does at updates where it is and is
not due. A turn is one step, after one that is not counted. The cost at an interval is that of both
together. Flags that are not given suit the device. Writes results/vitals_PLATFORM.json.
"""

import json
import statistics
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import flags

from alexnet_jax import alexnet, create_train_state, make_train_step
from experiments import harness

DEFAULTS = {
    "cpu": {"batch_size": 16, "turns": 12},
    "gpu": {"batch_size": 128, "turns": 15},
}
INTERVALS = (10, 100, 1000)
FLAGS = flags.FLAGS
flags.DEFINE_string("preset", "paper", "named net")
flags.DEFINE_integer("batch_size", None, "images a step")
flags.DEFINE_integer("turns", None, "counted turns of each")


def contender(batch: dict[str, jax.Array], watch_every: int) -> Callable[[], float]:
    """A turn of the step. 1 is always due, a large number at the first update only."""
    model = alexnet(FLAGS.preset, **(harness.TINY if harness.quick() else {}))
    step = make_train_step(model, watch_every=watch_every)
    state = create_train_state(model, jax.random.key(0))
    return harness.turn_of(step, state, batch)


def main(_) -> None:
    """Measures and writes the result."""
    harness.defaults(**DEFAULTS)
    harness.shorten(batch_size=4, turns=2)
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (FLAGS.batch_size, 256, 256, 3), np.uint8),
        "label": rng.integers(0, 1000, FLAGS.batch_size).astype(np.int32),
    }
    batch = jax.device_put(batch, jax.devices()[0])
    programs = {"not watched": 0, "not due": 10**6, "due": 1}
    turns = {name: contender(batch, every) for name, every in programs.items()}
    seconds = harness.interleaved(turns, turns=FLAGS.turns)
    plain = seconds["not watched"]
    ratios = {
        name: statistics.median(b / a for a, b in zip(plain, times, strict=True))
        for name, times in seconds.items()
    }
    more = {
        every: ratios["not due"] + (ratios["due"] - ratios["not due"]) / every - 1
        for every in INTERVALS
    }
    result: dict[str, Any] = {
        "median_seconds": {name: statistics.median(times) for name, times in seconds.items()},
        "median_of_ratios": ratios,
        "more_time_by_interval": more,
    }
    print(json.dumps(result, indent=1))
    harness.record(f"vitals_{jax.default_backend()}", harness.rounded(result))


if __name__ == "__main__":
    harness.run(main)
