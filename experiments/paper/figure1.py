"""Figure 1: a four-layer net with ReLUs reaches 25% training error on CIFAR-10 six times sooner.

    python -m experiments.paper.figure1

The net is the authors' three convolutions and a full connection (`cifar10_quick`), without decay,
crops or flips; "the learning rates for each network were chosen independently". First every rate
with one seed, then the best of each activation with the other seeds. The error is that of the whole
training set after each epoch. Writes results/figure1.json and .png.
"""

import time

import numpy as np
from absl import app, flags
from matplotlib.figure import Figure

from alexnet_jax.configs import cifar10_quick
from experiments import harness

FLAGS = flags.FLAGS
flags.DEFINE_multi_float("rate", [5e-4, 1e-3, 2e-3, 4e-3], "learning rates to choose from")
flags.DEFINE_multi_integer("seed", [0, 1, 2], "the first chooses the rate")
flags.DEFINE_integer("num_epochs", 60, "passes over the training images at most")
flags.DEFINE_integer("images", 50_000, "training images")
flags.DEFINE_string("precision", "tensorfloat32", "of the products; see AlexNet.precision")
flags.DEFINE_float("minutes", 1e6, "begin no run after so many")
TARGET = 0.25
ACTIVATIONS = ("relu", "tanh")


def configuration(activation: str, rate: float, seed: int):
    """The recipe of one run."""
    config = cifar10_quick.get_config()
    config.model.activation = activation
    config.model.precision = FLAGS.precision
    config.train_split = config.validation_split = f"train[:{FLAGS.images}]"
    config.weight_decay = 0.0
    config.learning_rate = rate
    config.schedule.name = "constant"
    config.num_epochs = FLAGS.num_epochs
    config.seed = seed
    return config


def run(activation: str, rate: float, seed: int, programs: dict) -> dict:
    """Trains until the target; the training error after each epoch."""
    config = configuration(activation, rate, seed)
    if activation not in programs:
        programs[activation] = harness.Programs(harness.Recipe(config))
    result, _ = harness.fit(
        config,
        programs=programs[activation],
        until=lambda line: line["validation"]["top1_error"] <= TARGET,
        say=lambda line: print(f"{activation} {rate:g} {line}", flush=True),
    )
    errors = [line["validation"]["top1_error"] for line in result["epochs"]]
    return {
        "activation": activation,
        "rate": rate,
        "seed": seed,
        "training_error": errors,
        "epochs_to_target": epochs_to(errors),
        "test_error": result["test"]["center"]["top1_error"],
        "seconds": result["seconds"],
    }


def epochs_to(errors: list[float | None], target: float = TARGET) -> float | None:
    """Epochs until the error is down to the target, between two epochs by a straight line."""
    before = 0.9
    for epoch, error in enumerate(errors):
        if error is not None and error <= target:
            return round(epoch + (before - target) / (before - error), 2)
        before = 0.9 if error is None else error
    return None


def main(_) -> None:
    """Trains and writes the results."""
    started, programs, runs = time.perf_counter(), {}, []
    first, *others = FLAGS.seed

    def late() -> bool:
        return time.perf_counter() - started > 60 * FLAGS.minutes

    for activation in ACTIVATIONS:
        for rate in FLAGS.rate:
            if not late():
                runs.append(run(activation, rate, first, programs))
    best = {activation: _best(runs, activation) for activation in ACTIVATIONS}
    for seed in others:
        for activation, rate in best.items():
            if rate is not None and not late():
                runs.append(run(activation, rate, seed, programs))
    result = summary(runs, best)
    print({key: value for key, value in result.items() if key != "runs"})
    harness.record("figure1", result, draw(runs, best))


def _best(runs: list[dict], activation: str) -> float | None:
    """The rate that reached the target first, or else came nearest."""
    tried = [one for one in runs if one["activation"] == activation]
    return min(tried, key=_order)["rate"] if tried else None


def _order(one: dict) -> tuple[float, float]:
    errors = [error for error in one["training_error"] if error is not None]
    return one["epochs_to_target"] or np.inf, min(errors, default=1.0)


def summary(runs: list[dict], best: dict[str, float | None]) -> dict:
    """Epochs to the target by activation and seed, and their ratio, seed by seed."""
    epochs = {
        activation: {
            one["seed"]: one["epochs_to_target"]
            for one in runs
            if one["activation"] == activation and one["rate"] == rate
        }
        for activation, rate in best.items()
    }
    ratios = [
        slow / epochs["relu"][seed]
        for seed, slow in epochs["tanh"].items()
        if slow and epochs["relu"].get(seed)
    ]
    return {
        "claim": "AlexNet §3.1, figure 1: 25% training error six times sooner with ReLUs",
        "data": f"cifar10, {FLAGS.images} training images",
        "best_rates": best,
        "epochs_to_25_percent": epochs,
        "tanh_over_relu": {
            "by_seed": [round(ratio, 2) for ratio in ratios],
            "mean": round(float(np.mean(ratios)), 2) if ratios else None,
        },
        "precision": FLAGS.precision,
        "runs": runs,
    }


def draw(runs: list[dict], best: dict[str, float | None]) -> Figure:
    """As the paper draws it: solid is ReLU, dashed tanh."""
    figure = Figure(figsize=(4.2, 4), layout="constrained")
    axes = figure.subplots()
    for activation, style, name in (("relu", "-", "ReLU"), ("tanh", "--", "tanh")):
        for one in runs:
            if one["activation"] == activation and one["rate"] == best[activation]:
                errors = [np.nan if error is None else error for error in one["training_error"]]
                label = f"{name}, rate {one['rate']:g}" if one["seed"] == FLAGS.seed[0] else None
                axes.plot(range(len(errors) + 1), [0.9, *errors], f"k{style}", lw=1.2, label=label)
    axes.axhline(TARGET, color="#aaaaaa", linewidth=0.8)
    axes.set(xlabel="epochs", ylabel="training error", ylim=(0, 0.92), xlim=(0, None))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    app.run(main)
