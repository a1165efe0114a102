"""How much sooner does the sweep runner finish than a loop that builds each setting anew?

    python -m experiments.speed.sweep

24 settings of the smallest CIFAR-10 net (four rates, two decays, three seeds), each --updates
updates of 128 images, then errors on those images, 500 validation and 500 test images. The plain
loop does what a script does: the hyper-parameters are constants of a step that is compiled for
every setting, and images are read from the disk and copied for every batch. The runner compiles
once and keeps the images on the device. Setting by setting in turns; the disk cache of compiled
programs is off. The longer the runs, the less the compilation counts: three lengths are measured.
Writes results/sweep_cpu.json.
"""

import tempfile
from functools import partial
from pathlib import Path

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from alexnet_jax import create_train_state, make_eval_step, make_train_step
from alexnet_jax.compilation import compiled
from alexnet_jax.configs import cifar10_quick
from alexnet_jax.data.batches import eval_batches, train_batches
from alexnet_jax.runs.recipe import Recipe
from experiments import harness, quick_rates
from experiments.settings import configure
from experiments.sweep import Sweep

FLAGS = flags.FLAGS
flags.DEFINE_multi_integer("updates", [2, 10, 50], "updates of a run")


def base(updates: int) -> ConfigDict:
    """What the settings share."""
    config = cifar10_quick.get_config()
    config.train_split = f"train[:{updates * config.batch_size}]"
    config.validation_split = "train[-500:]"
    config.test_split = "test[:500]"
    config.schedule.name = "constant"
    config.num_epochs = 1
    return config


def plain(config: ConfigDict) -> float:
    """One setting by a script of its own; the validation error."""
    recipe = Recipe(config)
    update = make_train_step(recipe.model, recipe.augmentation)
    hparams = recipe.hyperparameters(0)
    step = compiled(lambda state, batch: update(state, batch, hparams), donate_argnums=0)
    evaluate = make_eval_step(recipe.model, recipe.augmentation)
    state = create_train_state(recipe.model, recipe.key)
    batches = train_batches(recipe.training, batch_size=config.batch_size, seed=config.seed)
    for _ in range(recipe.num_steps):
        state, metrics = step(state, next(batches))
    errors = {}
    for name in ("train", "validation", "test"):
        sums = [
            evaluate(state, batch) for batch in eval_batches(recipe.split(name), batch_size=250)
        ]
        total = jax.device_get(jax.tree.map(lambda *values: sum(values), *sums))
        errors[name] = float(total["top1_error"] / total["count"])
    assert np.isfinite(jax.device_get(metrics["loss"]))
    return errors["validation"]


def main(_) -> None:
    """Measures both and writes the result."""
    jax.config.update("jax_enable_compilation_cache", False)
    settings = list(quick_rates.sweep())[: 3 if harness.quick() else None]
    rows = []
    for updates in FLAGS.updates:
        shared = base(2 if harness.quick() else updates)
        errors: dict[str, list[float]] = {"plain": [], "sweep": []}
        with tempfile.TemporaryDirectory() as folder:
            sweep = Sweep(shared, Path(folder))

            def swept(setting):
                (result,) = sweep.train([setting])  # noqa: B023
                errors["sweep"].append(result["epochs"][-1]["validation"]["top1_error"])  # noqa: B023

            def alone(setting):
                errors["plain"].append(plain(configure(sweep.base, setting)))  # noqa: B023

            seconds: dict[str, list[float]] = {"plain": [], "sweep": []}
            for setting in settings:
                contenders = {"plain": partial(alone, setting), "sweep": partial(swept, setting)}
                turn = harness.interleaved(contenders, turns=1, dropped=0)
                for name, times in turn.items():
                    seconds[name] += times
        np.testing.assert_allclose(errors["plain"], errors["sweep"], atol=0.005)
        total = {name: sum(times) for name, times in seconds.items()}
        rows.append(
            {
                "updates": updates,
                "settings": len(settings),
                "seconds": total,
                "times_as_fast": total["plain"] / total["sweep"],
                "median_seconds": {name: float(np.median(t)) for name, t in seconds.items()},
            }
        )
        print(rows[-1], flush=True)
    harness.record(f"sweep_{jax.default_backend()}", harness.rounded(rows))


if __name__ == "__main__":
    harness.run(main)
