"""Figure 1: a four-layer net with ReLUs reaches 25% training error on CIFAR-10 six times sooner.

    python -m experiments.paper.figure1

The net is the authors' three convolutions and a full connection (`cifar10_quick`), without decay,
crops or flips; "the learning rates for each network were chosen independently". First every rate
with one seed, then the best of each activation with the other seeds. The error is that of the whole
training set after each epoch. Several processes may share a --workdir. Writes results/figure1.json
and .png, in which runs of an earlier result with the same images, length and precision stay, where
they are of an --activation, --rate or --seed that is not asked for now.
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
from experiments.sweep import Sweep, earlier_origins, untouched_runs

FLAGS = flags.FLAGS
ACTIVATIONS = ("relu", "tanh")
flags.DEFINE_string("workdir", "runs/figure1", "folder of the runs; finished ones are kept")
flags.DEFINE_multi_float("rate", [5e-4, 1e-3, 2e-3, 4e-3], "learning rates to choose from")
flags.DEFINE_multi_integer("seed", [0, 1, 2], "the first chooses the rate")
flags.DEFINE_integer("num_epochs", 60, "passes over the training images at most")
flags.DEFINE_integer("images", 50_000, "training images")
flags.DEFINE_multi_enum("activation", list(ACTIVATIONS), ACTIVATIONS, "which nets")
flags.DEFINE_string("precision", "tensorfloat32", "of the products; see AlexNet.precision")
TARGET = 0.25
CHOICE = ("activation", "rate", "seed")


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
    """Trains what is asked for, and writes it beside what an earlier run left."""
    first, *further = FLAGS.seed
    sweep = Sweep(configuration(), local_path(FLAGS.workdir), target=TARGET)
    before = earlier(harness.recorded("figure1"))
    kept, best = (before["result"][of] for of in ("runs", "best_rates")) if before else ([], {})
    settings = settings_of(itertools.product(FLAGS.activation, FLAGS.rate, [first]))
    runs = joined(kept, trained(sweep, settings))
    best |= {name: best_rate(runs, name, first) for name in FLAGS.activation}
    there = {tuple(one[of] for of in CHOICE) for one in kept if one["rate"] not in FLAGS.rate}
    more = itertools.product(((name, best[name]) for name in FLAGS.activation), further)
    more = settings_of((*pair, seed) for pair, seed in more if (*pair, seed) not in there)
    runs = joined(runs, trained(sweep, more))
    settings += more
    result = summary(runs, best)
    print({key: value for key, value in result.items() if key != "runs"})
    if absent := [name for name in ACTIVATIONS if name not in best]:
        print(f"figure 1 wants {absent[0]}, too: run this again with --activation={absent[0]}")
    origins = earlier_origins(before) if len(runs) > len(settings) else []
    harness.record("figure1", result, draw(runs, best), origins=origins + sweep.origins(settings))


def earlier(before: dict) -> dict:
    """An earlier result, where it is of the same images, length and precision; else {}."""
    flags_then = before.get("environment", {}).get("flags", {})
    names = ("images", "num_epochs", "precision")
    return before if all(flags_then.get(name) == FLAGS[name].value for name in names) else {}


def settings_of(choices: Iterable[tuple[str, float, int]]) -> list[dict]:
    """Choices of activation, rate and seed as settings of a sweep."""
    names = ("model.activation", "learning_rate", "seed")
    return [dict(zip(names, choice, strict=True)) for choice in choices]


def trained(sweep: Sweep, settings: list[dict]) -> list[dict]:
    """The training error after each epoch of all of these, as the result file has it."""
    sweep.train(settings)
    return [described(*one) for one in zip(settings, sweep.results(settings), strict=True)]


def joined(before: list[dict], now: list[dict]) -> list[dict]:
    """The runs of now and those before that are none of them."""
    return untouched_runs(before, now, CHOICE) + now


def best_rate(runs: list[dict], activation: str, seed: int) -> float:
    """That with which the net is soonest at the target with this seed, or nearest to it."""
    tried = [one for one in runs_of(runs, activation) if one["seed"] == seed]
    return min(tried, key=_order)["rate"]


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
        "device": result["device"],
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
        for seed, slow in epochs.get("tanh", {}).items()
        if slow and epochs.get("relu", {}).get(seed)
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
        drawn = runs_of(runs, activation, best[activation]) if activation in best else ()
        for number, one in enumerate(drawn):
            errors = [np.nan if error is None else error for error in one["training_error"]]
            label = None if number else f"{name}, rate {one['rate']:g}"
            axes.plot(range(len(errors) + 1), [0.9, *errors], f"k{style}", lw=1.2, label=label)
    axes.axhline(TARGET, color="#aaaaaa", linewidth=0.8)
    axes.set(xlabel="epochs", ylabel="training error", ylim=(0, 0.92), xlim=(0, None))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    harness.run(main)
