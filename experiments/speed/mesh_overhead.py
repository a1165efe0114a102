"""A mesh of one device costs nothing against no mesh: the whole training step, in turns.

    python -m experiments.speed.mesh_overhead

A turn is one step, after one that is not counted. Flags that are not given suit the device: a GPU
runs the paper's size and batch, a CPU small ones (`DEFAULTS`). The median of the ratios of
neighbours is what a busy machine disturbs least. Writes results/mesh_overhead_PLATFORM.json.
"""

import json
import statistics
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh

from alexnet_jax import alexnet, create_train_state, make_mesh, make_train_step
from experiments import harness

DEFAULTS = {
    "cpu": {"image_size": 64, "batch_size": 16, "turns": 40},
    "gpu": {"image_size": 224, "batch_size": 128, "turns": 15},
}
FLAGS = flags.FLAGS
flags.DEFINE_string("preset", "paper", "named net")
flags.DEFINE_integer("image_size", None, "side of the crops in pixels")
flags.DEFINE_integer("batch_size", None, "images a step")
flags.DEFINE_integer("turns", None, "counted turns of each")


def contender(batch: dict[str, jax.Array], mesh: Mesh | None) -> Callable[[], float]:
    """A turn of the step."""
    fields = {"image_size": FLAGS.image_size, **(harness.TINY if harness.quick() else {})}
    model = alexnet(FLAGS.preset, **fields)
    step = make_train_step(model, mesh=mesh)
    state = create_train_state(model, jax.random.key(0), mesh=mesh)
    return harness.turn_of(step, state, batch)


def main(_) -> None:
    """Measures and writes the result."""
    harness.defaults(**DEFAULTS)
    harness.shorten(image_size=64, batch_size=4, turns=2)
    rng = np.random.default_rng(0)
    images, side = FLAGS.batch_size, max(FLAGS.image_size + 8, 72)
    batch = {
        "image": rng.integers(0, 256, (images, side, side, 3), np.uint8),
        "label": rng.integers(0, 1000, images).astype(np.int32),
    }
    batch = jax.device_put(batch, jax.devices()[0])
    meshes = {"no mesh": None, "1x1 mesh": make_mesh(1, 1)}
    turns = {name: contender(batch, mesh) for name, mesh in meshes.items()}
    seconds = harness.interleaved(turns, turns=FLAGS.turns)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ratios = [b / a for a, b in zip(*seconds.values(), strict=True)]
    result: dict[str, Any] = {
        "median_seconds": medians,
        "fastest_seconds": {name: min(times) for name, times in seconds.items()},
        "ratio_of_medians": medians["1x1 mesh"] / medians["no mesh"],
        "median_of_ratios": statistics.median(ratios),
    }
    print(json.dumps(result, indent=1))
    harness.record(f"mesh_overhead_{jax.default_backend()}", result)


if __name__ == "__main__":
    harness.run(main)
