"""Section 5: hidden biases of 1 accelerate the early stages of learning. What else decides there?

    python -m experiments.paper.plateau

Every net begins near the loss of guessing, and some stay there for long. The digits recipe at a
constant rate with each of: the weights of conv3 to conv5 from the deviation printed in the paper,
0.01, or from that of the authors' files, 0.03; the hidden biases 1, Caffe's 0.1, or 0; pixels of 0
to 255, as here, or those divided by 57, the deviation of photographs, as in most of today's code
(the digits' is 96). Counted is the update at which the training loss is down to 2.0 (guessing gives
2.30), by the means of epochs and between two by a straight line. Writes results/plateau.json and
.png.
"""

import itertools
import math

import numpy as np
from absl import flags
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from alexnet_jax.configs import digits
from alexnet_jax.files import local_path
from alexnet_jax.runs.recipe import Recipe
from experiments import harness
from experiments.sweep import Sweep

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", "runs/plateau", "folder of the runs; finished ones are kept")
flags.DEFINE_multi_integer("seed", [0, 1, 2], "one run of each start")
flags.DEFINE_integer("num_epochs", 40, "passes over the training images at most")
TARGET, GUESSING = 2.0, math.log(10)  # losses
WEIGHTS = {"original": "conv3 to conv5: 0.03", "paper": "0.01 everywhere"}
BIASES = (1.0, 0.1, 0.0)
PIXELS = {"0 to 255": 1.0, "divided by 57": 1 / 57}


def configuration() -> ConfigDict:
    """What all runs share."""
    config = digits.get_config()
    config.num_epochs = FLAGS.num_epochs
    config.schedule.name = "constant"
    config.test_split = ""  # how well they do is not asked
    config.final_views = ()
    return config


def main(_) -> None:
    """Trains what is not there yet and writes the results."""
    config = configuration()
    # It ends a run that learns the digits; validation images are never scaled, so no other.
    sweep = Sweep(config, local_path(FLAGS.workdir), target=0.5)
    harness.shorten(seed=FLAGS.seed[:1])
    starts = [*itertools.product(PIXELS, WEIGHTS, BIASES)][: 2 if harness.quick() else None]
    settings = [setting(*start, seed) for seed in FLAGS.seed for start in starts]
    sweep.train(settings)
    found = iter(sweep.results(settings))
    runs = [
        described(start, seed, next(found)) for seed, start in itertools.product(FLAGS.seed, starts)
    ]
    steps = Recipe(sweep.base).epoch_steps
    result = summary(runs, starts, steps)
    for row in result["starts"]:
        print(f"{row['pixels']:15} {row['weights']:22} biases {row['bias']:3g}: {row['updates']}")
    harness.record("plateau", result, draw(runs), origins=sweep.origins(settings))


def setting(pixels: str, weights: str, bias: float, seed: int) -> dict:
    """The fields in which one run differs."""
    return {
        "augmentation.scale": PIXELS[pixels],
        "model.initialization": weights,
        "model.hidden_bias": bias,
        "seed": seed,
    }


def described(start: tuple[str, str, float], seed: int, result: dict) -> dict:
    """A run as the result file has it."""
    losses = [line["train"]["loss"] for line in result["epochs"]]
    return {
        "start": list(start),
        "seed": seed,
        "training_loss": losses,
        "epochs": harness.epochs_to(losses, TARGET, start=GUESSING),
        "seconds": result["seconds"],
    }


def summary(runs: list[dict], starts: list[tuple], steps: int) -> dict:
    """Updates until the plateau is left, by start and seed; None: not within the run."""
    updates = {
        start: {
            run["seed"]: None if run["epochs"] is None else round(steps * run["epochs"])
            for run in runs
            if tuple(run["start"]) == start
        }
        for start in starts
    }
    return {
        "claim": "AlexNet §5: biases of 1 accelerate the early stages of learning",
        "data": "digits",
        "epochs_at_most": FLAGS.num_epochs,
        "updates_an_epoch": steps,
        "left_at_a_loss_of": TARGET,
        "starts": [
            {"pixels": pixels, "weights": weights, "bias": bias, "updates": found}
            for (pixels, weights, bias), found in updates.items()
        ],
        "runs": runs,
    }


def draw(runs: list[dict]) -> Figure:
    """Training loss by epoch; a panel for each scale of the pixels and each deviation."""
    figure = Figure(figsize=(7.5, 5.2), layout="constrained")
    panels = [*itertools.product(PIXELS, WEIGHTS)]
    every = figure.subplots(2, 2, sharex=True, sharey=True).ravel()
    for axes, (pixels, weights) in zip(every, panels, strict=True):
        for bias, color in zip(BIASES, ("#225588", "#cc6644", "#777777"), strict=True):
            for run in runs:
                if run["start"] == [pixels, weights, bias]:
                    losses = [GUESSING, *(loss or np.nan for loss in run["training_loss"])]
                    label = f"biases {bias:g}" if run["seed"] == FLAGS.seed[0] else None
                    axes.plot(losses, color=color, lw=1.1, alpha=0.8, label=label)
        axes.axhline(TARGET, color="#bbbbbb", lw=0.8)
        axes.set_title(f"pixels: {pixels}; {WEIGHTS[weights]}", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    every[0].legend(frameon=False, fontsize=8)
    figure.supxlabel("epochs", fontsize=10)
    figure.supylabel("training loss", fontsize=10)
    return figure


if __name__ == "__main__":
    harness.run(main)
