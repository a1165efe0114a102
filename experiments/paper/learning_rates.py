"""Which learning rate suits the digits recipe? Five rates and three seeds with one compiled step.

    python -m experiments.paper.learning_rates

The rate is an argument of the step, so all runs share one program. Each is a short run at a
constant rate. Writes results/learning_rates.json and .png.
"""

import itertools

import numpy as np
from absl import flags
from matplotlib.figure import Figure

from alexnet_jax.configs import digits
from alexnet_jax.files import local_path
from experiments import harness
from experiments.sweep import Sweep

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", "runs/learning_rates", "folder of the runs; finished ones are kept")
flags.DEFINE_multi_float("rate", [0.002, 0.005, 0.01, 0.02, 0.05], "learning rates")
flags.DEFINE_multi_integer("seed", [0, 1, 2], "one run of each rate")
flags.DEFINE_integer("num_epochs", 15, "passes over the training images")


def main(_) -> None:
    """Trains what is not there yet and writes the results."""
    config = digits.get_config()
    config.num_epochs = FLAGS.num_epochs
    config.schedule.name = "constant"
    config.final_views = ("center",)
    sweep = Sweep(config, local_path(FLAGS.workdir))
    settings = [
        {"learning_rate": rate, "seed": seed}
        for seed, rate in itertools.product(FLAGS.seed, FLAGS.rate)
    ]
    sweep.train(settings)
    lines = [
        {
            **setting,
            "epochs": len(result["epochs"]),
            "train_loss_last_epoch": result["epochs"][-1]["train"]["loss"],
            "validation": result["epochs"][-1]["validation"],
            "seconds": result["seconds"],
        }
        for setting, result in zip(settings, sweep.results(settings), strict=True)
    ]
    harness.record("learning_rates", lines, draw(lines), origins=sweep.origins(settings))


def draw(lines: list[dict]) -> Figure:
    """Validation error over rate: a dot a seed, a line through the medians."""
    figure = Figure(figsize=(5.5, 3.4), layout="constrained")
    axes = figure.subplots()
    rates = [line["learning_rate"] for line in lines]
    errors = [harness.percent(line["validation"]["top1_error"]) for line in lines]
    tried = sorted(set(rates))
    medians = [np.median([e for r, e in zip(rates, errors, strict=True) if r == x]) for x in tried]
    axes.plot(tried, medians, color="#222222", label="median")
    axes.scatter(rates, errors, color="#4477aa", alpha=0.7, label="one seed", zorder=3)
    axes.set(xscale="log", ylim=(0, 100), xlabel="learning rate", ylabel="validation error (%)")
    axes.set_xticks(tried, [f"{rate:g}" for rate in tried])
    axes.set_xticks([], minor=True)
    axes.set_title(f"Digits, {FLAGS.num_epochs} epochs at a constant rate", fontsize=10)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    harness.run(main)
