"""What a mesh of one device costs against no mesh: the whole training step, interleaved.

    python experiments/mesh_overhead.py [--preset=paper --image_size=224 --batch_size=128]

The two compiled steps take turns of a few steps each; the first step of a turn is not counted.
Prints the ratio of the median times, and the median of the ratios of neighbours, which a busy
machine disturbs less; writes results/mesh_overhead_PLATFORM.json.
"""

import json
import statistics
import time
from pathlib import Path

import jax
import numpy as np
from absl import app, flags

from alexnet_jax import Hyperparameters, alexnet, create_train_state, make_mesh, make_train_step

_PRESET = flags.DEFINE_string("preset", "paper", "Named net.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 224, "Side of the crops in pixels.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Images a step.")
_TURNS = flags.DEFINE_integer("turns", 40, "Turns of each step.")
_STEPS = flags.DEFINE_integer("steps", 1, "Timed steps a turn.")
RESULTS = Path(__file__).parent / "results"


class Contender:
    """A training step with its state."""

    def __init__(self, model, batch, mesh):
        self.step = make_train_step(model, mesh=mesh)
        self.state = create_train_state(model, jax.random.key(0), mesh=mesh)
        self.batch = batch
        self.seconds: list[float] = []

    def run(self, steps: int) -> None:
        """One turn."""
        for turn in range(steps + 1):
            started = time.perf_counter()
            self.state, metrics = self.step(self.state, self.batch, Hyperparameters())
            jax.block_until_ready((self.state, metrics))
            if turn:
                self.seconds.append(time.perf_counter() - started)


def main(_) -> None:
    """Measures and writes the result."""
    model = alexnet(_PRESET.value, image_size=_IMAGE_SIZE.value)
    rng = np.random.default_rng(0)
    side = max(model.image_size + 8, 72)
    batch = {
        "image": rng.integers(0, 256, (_BATCH_SIZE.value, side, side, 3), np.uint8),
        "label": rng.integers(0, model.num_classes, _BATCH_SIZE.value).astype(np.int32),
    }
    batch = jax.device_put(batch, jax.devices()[0])
    contenders = {"no mesh": Contender(model, batch, None)}
    contenders["1x1 mesh"] = Contender(model, batch, make_mesh(1, 1))
    for contender in contenders.values():
        contender.run(1)
        contender.seconds.clear()
    for turn in range(_TURNS.value):
        order = list(contenders.values())
        for contender in order if turn % 2 else reversed(order):
            contender.run(_STEPS.value)
    medians = {name: statistics.median(one.seconds) for name, one in contenders.items()}
    device = jax.devices()[0]
    result = {
        "device": device.device_kind,
        "jax": jax.__version__,
        "preset": _PRESET.value,
        "image_size": model.image_size,
        "batch_size": _BATCH_SIZE.value,
        "timed_steps_each": _TURNS.value * _STEPS.value,
        "median_seconds": medians,
        "fastest_seconds": {name: min(one.seconds) for name, one in contenders.items()},
        "ratio_of_medians": medians["1x1 mesh"] / medians["no mesh"],
        "median_of_ratios": statistics.median(
            b / a for a, b in zip(*(one.seconds for one in contenders.values()), strict=True)
        ),
    }
    print(json.dumps(result, indent=2))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"mesh_overhead_{device.platform}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)
