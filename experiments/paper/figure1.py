"""Figure 1: a four-layer net with ReLUs reaches 25% training error on CIFAR-10 six times sooner.

    python -m experiments.paper.figure1

The net is the authors' three convolutions and a full connection (`cifar10_quick`), without decay,
crops or flips; "the learning rates for each network were chosen independently". First every rate
with one seed, then the best of each activation with the other seeds. The error is that of the whole
training set after each epoch. Writes results/figure1.json and .png, whose runs of the same images,
length and precision stay and are not trained again; several processes may share a --workdir, and
--report writes what is there: what is not is listed under "incomplete".
"""

import itertools
from collections.abc import Iterable

import numpy as np
from absl import flags
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from alexnet_jax.configs import cifar10_quick
from alexnet_jax.files import local_path
from experiments import harness
from experiments.sweep import Sweep, earlier_origins

FLAGS = flags.FLAGS
ACTIVATIONS = ("relu", "tanh")
flags.DEFINE_string("workdir", "runs/figure1", "folder of the runs; finished ones are kept")
flags.DEFINE_multi_float("rate", [5e-4, 1e-3, 2e-3, 4e-3], "learning rates to choose from")
flags.DEFINE_multi_integer("seed", [0, 1, 2], "the first chooses the rate")
flags.DEFINE_integer("num_epochs", 60, "passes over the training images at most")
flags.DEFINE_integer("images", 50_000, "training images")
flags.DEFINE_bool("report", False, "train nothing: write what is there")
flags.DEFINE_multi_enum("activation", list(ACTIVATIONS), ACTIVATIONS, "which nets")
flags.DEFINE_string("precision", "tensorfloat32", "of the products; see AlexNet.precision")
TARGET = 0.25


def configuration() -> ConfigDict:
    """What all runs share."""
    config = cifar10_quick.get_config()
    config.model.precision = FLAGS.precision
    config.train_split = config.validation_split = f"train[:{FLAGS.images}]"
    config.weight_decay = 0.0
    config.schedule.name = "constant"
    config.num_epochs = FLAGS.num_epochs
    return config


def main(_) -> None:
    """Trains and writes the results."""
    first, *others = FLAGS.seed
    sweep = Sweep(configuration(), local_path(FLAGS.workdir), target=TARGET)
    before = harness.recorded("figure1")
    runs = earlier(before)
    settings = missing(runs, itertools.product(FLAGS.activation, FLAGS.rate, [first]))
    origins = earlier_origins(before) if runs else []
    runs += train(sweep, settings)
    tried = [one for one in runs if one["seed"] == first]
    if absent := [name for name in FLAGS.activation if not runs_of(tried, name)]:
        raise ValueError(
            f"{sweep.runs} holds no finished run of {' or '.join(absent)} with seed {first}; "
            "train them, without --report"
        )
    best = {name: min(runs_of(tried, name), key=_order)["rate"] for name in FLAGS.activation}
    more = missing(runs, ((*choice, seed) for choice in best.items() for seed in others))
    runs += train(sweep, more)
    settings += more
    if absent := [name for name in ACTIVATIONS if name not in FLAGS.activation]:
        print(f"figure 1 wants {absent[0]}, too; when it is trained, write it with --report")
        return
    result = summary(runs, best) | incomplete(runs, settings)
    print({key: value for key, value in result.items() if key != "runs"})
    harness.record("figure1", result, draw(runs, best), origins=origins + sweep.origins(settings))


def earlier(before: dict) -> list[dict]:
    """The runs of an earlier result, where it is of the same images, length and precision."""
    flags_then = before.get("environment", {}).get("flags", {})
    names = ("images", "num_epochs", "precision")
    same = all(flags_then.get(name) == FLAGS[name].value for name in names)
    return before["result"]["runs"] if same else []


def missing(runs: list[dict], choices: Iterable[tuple[str, float, int]]) -> list[dict]:
    """The settings of those choices of activation, rate and seed that are not among the runs."""
    there = {(one["activation"], one["rate"], one["seed"]) for one in runs}
    names = ("model.activation", "learning_rate", "seed")
    return [dict(zip(names, choice, strict=True)) for choice in choices if choice not in there]


def train(sweep: Sweep, settings: list[dict]) -> list[dict]:
    """The training error after each epoch; with --report of the runs that are there."""
    if not FLAGS.report:
        sweep.train(settings)
    results = sweep.results(settings, partly=FLAGS.report)  # the best rate is that of all
    pairs = zip(settings, results, strict=True)
    return [described(setting, result) for setting, result in pairs if result]


def incomplete(runs: list[dict], settings: list[dict]) -> dict:
    """What the result file says of runs that were asked for and are not there."""
    absent = missing(runs, (tuple(setting.values()) for setting in settings))
    return {"incomplete": absent} if absent else {}


def described(setting: dict, result: dict) -> dict:
    """A run as the result file has it."""
    errors = [line["validation"]["top1_error"] for line in result["epochs"]]
    return {
        "activation": setting["model.activation"],
        "rate": setting["learning_rate"],
        "seed": setting["seed"],
        "training_error": errors,
        "epochs_to_target": harness.epochs_to(errors, TARGET),
        "test_error": result["test"]["center"]["top1_error"],
        "seconds": result["seconds"],
    }


def runs_of(runs: list[dict], activation: str, rate: float | None = None) -> list[dict]:
    """Those with an activation, and a rate."""
    return [one for one in runs if one["activation"] == activation and rate in (None, one["rate"])]


def _order(one: dict) -> tuple[float, float]:
    errors = [error for error in one["training_error"] if error is not None]
    return one["epochs_to_target"] or np.inf, min(errors, default=1.0)


def summary(runs: list[dict], best: dict[str, float]) -> dict:
    """Epochs to the target by activation and seed, and their ratio, seed by seed."""
    epochs = {
        activation: {
            one["seed"]: one["epochs_to_target"] for one in runs_of(runs, activation, rate)
        }
        for activation, rate in best.items()
    }
    ratios = [
        slow / epochs["relu"][seed]
        for seed, slow in epochs["tanh"].items()
        if slow and epochs["relu"].get(seed)
    ]
    never = {
        seed for of_seed in epochs.values() for seed, reached in of_seed.items() if not reached
    }
    return {
        "claim": "AlexNet §3.1, figure 1: 25% training error six times sooner with ReLUs",
        "data": f"cifar10, {FLAGS.images} training images",
        "best_rates": best,
        "rates_tried": {
            name: sorted({one["rate"] for one in runs_of(runs, name)}) for name in best
        },
        "epochs_to_25_percent": epochs,
        "tanh_over_relu": {
            "by_seed": [round(ratio, 2) for ratio in ratios],
            "mean": round(float(np.mean(ratios)), 2) if ratios else None,
            **({"seeds_left_out": sorted(never)} if never else {}),
        },
        "precision": FLAGS.precision,
        "runs": runs,
    }


def draw(runs: list[dict], best: dict[str, float]) -> Figure:
    """As the paper draws it: solid is ReLU, dashed tanh."""
    figure = Figure(figsize=(4.2, 4), layout="constrained")
    axes = figure.subplots()
    for activation, style, name in (("relu", "-", "ReLU"), ("tanh", "--", "tanh")):
        for one in runs_of(runs, activation, best[activation]):
            errors = [np.nan if error is None else error for error in one["training_error"]]
            label = f"{name}, rate {one['rate']:g}" if one["seed"] == FLAGS.seed[0] else None
            axes.plot(range(len(errors) + 1), [0.9, *errors], f"k{style}", lw=1.2, label=label)
    axes.axhline(TARGET, color="#aaaaaa", linewidth=0.8)
    axes.set(xlabel="epochs", ylabel="training error", ylim=(0, 0.92), xlim=(0, None))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    harness.run(main)
