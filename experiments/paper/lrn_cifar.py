"""Section 3.3: LRN takes a four-layer CIFAR-10 net from 13% to 11% test error.

    python -m experiments.paper.lrn_cifar

Two pairs of nets that differ by their norms alone: the authors' 11% net (two convolutions, two
layers of unshared kernels, norms across maps) with and without them, and their 18% net (norms
within maps) with and without. All 50,000 training images; the length is --num_epochs, the rate
falls to a tenth after 0.85 and 0.95 of it; nothing is chosen on the test images. Writes
results/lrn_cifar.json and .png; of the 18% net alone, lrn_cifar_18pct. Runs that lie there of as
many images and epochs and the same precision, and are not among these, stay.
"""

import numpy as np
from absl import flags
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from alexnet_jax.configs import cifar10_18pct, cifar10_conv_local_11pct
from alexnet_jax.files import local_path
from experiments import harness
from experiments.sweep import Sweep, earlier_origins, untouched_runs

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", "runs/lrn_cifar", "folder of the runs; finished ones are kept")
flags.DEFINE_multi_integer("seed", [0, 1, 2], "one run each")
flags.DEFINE_integer("num_epochs", 100, "passes over the training images")
flags.DEFINE_integer("images", 50_000, "training images")
flags.DEFINE_string("precision", "tensorfloat32", "of the products; see AlexNet.precision")
NETS = {
    "conv-local": (cifar10_conv_local_11pct, ("center", "ten")),
    "18%": (cifar10_18pct, ("center",)),
}
flags.DEFINE_multi_enum("net", list(NETS), list(NETS), "which pairs")
CHOICE = ("net", "norm", "seed")


def configuration(net: str) -> ConfigDict:
    """What both nets of a pair share."""
    recipe, views = NETS[net]
    config = recipe.get_config()
    config.model.precision = FLAGS.precision
    config.train_split = f"train[:{FLAGS.images}]"
    config.validation_split = "test"
    config.num_epochs = FLAGS.num_epochs
    config.schedule.drops = (0.85, 0.95)
    config.final_views = views
    return config


def main(_) -> None:
    """Trains seed by seed and writes what there is after every seed, beside an earlier result."""
    sweeps = {net: Sweep(configuration(net), local_path(FLAGS.workdir)) for net in FLAGS.net}
    name = "lrn_cifar_18pct" if FLAGS.net == ["18%"] else "lrn_cifar"
    before = earlier(harness.recorded(name))
    settings: list[dict] = []
    for seed in FLAGS.seed:
        settings += [{"model.norm": norm, "seed": seed} for norm in (True, False)]
        for sweep in sweeps.values():
            sweep.train(settings[-2:])
        runs, pairs, origins = [], {}, []
        for net, sweep in sweeps.items():
            results = sweep.results(settings, partly=True)
            runs += [
                {"net": net, "norm": setting["model.norm"], "views": NETS[net][1][-1], **result}
                for setting, result in zip(settings, results, strict=True)
                if result
            ]
            finished = [bool(result) for result in results]
            pairs[net] = {
                settings[at]["seed"]: sweep.pairs(settings[at + 1], settings[at], NETS[net][1][-1])
                for at in range(0, len(settings), 2)
                if all(finished[at : at + 2])
            }
            origins += sweep.origins(settings)
        if runs:
            kept = untouched_runs(before["result"]["runs"], runs, CHOICE) if before else []
            if kept:
                origins += earlier_origins(before)
                pairs = joined_pairs(before["result"]["nets"], kept, pairs)
            runs = sorted(kept + runs, key=lambda run: [list(NETS).index(run["net"]), run["seed"]])
            harness.record(name, summary(runs, pairs), draw(runs), origins=origins)


def earlier(before: dict) -> dict:
    """An earlier result, where it is of the same images, length and precision; else {}."""
    scale = {"data": data(), "num_epochs": FLAGS.num_epochs, "precision": FLAGS.precision}
    return before if scale.items() <= before.get("result", {}).items() else {}


def data() -> str:
    """What a result says that it is of."""
    return f"cifar10, {FLAGS.images} training and 10,000 test images"


Pairs = dict[str, dict[int, list[int]]]


def joined_pairs(before: dict[str, dict], kept: list[dict], now: Pairs) -> Pairs:
    """The pairs of now, and those of an earlier result's nets of which both runs are kept."""
    there = {tuple(run[field] for field in CHOICE) for run in kept}
    pairs = {net: dict(of) for net, of in now.items()}
    for net, row in before.items():
        for seed, wrong in row.get("pairs", {}).items():
            if {(net, norm, int(seed)) for norm in (True, False)} <= there:
                pairs.setdefault(net, {})[int(seed)] = wrong
    return pairs


def summary(runs: list[dict], wrong: Pairs) -> dict:
    """Test errors by net, and the difference seed by seed.

    Args:
      runs: all that are finished.
      wrong: net -> seed -> images that only the run without norms got wrong, only that with them.
    """
    nets = {}
    for net in dict.fromkeys(run["net"] for run in runs):
        errors = {
            norm: {
                run["seed"]: run["test"][run["views"]]["top1_error"]
                for run in runs
                if run["net"] == net and run["norm"] == norm
            }
            for norm in (True, False)
        }
        pairs = [(errors[False].get(seed), error) for seed, error in errors[True].items()]
        gains = [pair[0] - pair[1] for pair in pairs if None not in pair]
        nets[net] = {
            "with_norm": errors[True],
            "without": errors[False],
            "gain": [round(gain, 5) for gain in gains],
            "mean_gain": round(float(np.mean(gains)), 5) if gains else None,
            "pairs": dict(sorted(wrong.get(net, {}).items())),
        }
    return {
        "claim": "AlexNet §3.3: a four-layer net's test error falls from 13% to 11%",
        "data": data(),
        "num_epochs": FLAGS.num_epochs,
        "precision": FLAGS.precision,
        "nets": nets,
        "runs": runs,
    }


def draw(runs: list[dict]) -> Figure:
    """Test error by epoch, with norms and without."""
    nets = list(dict.fromkeys(run["net"] for run in runs))
    figure = Figure(figsize=(4 * len(nets), 3.4), layout="constrained")
    for axes, net in zip(figure.subplots(1, len(nets), squeeze=False)[0], nets, strict=True):
        for norm, color, name in ((True, "#225588", "with norms"), (False, "#cc6644", "without")):
            those = [run for run in runs if run["net"] == net and run["norm"] == norm]
            for number, run in enumerate(those):
                errors = [100 * (line["validation"]["top1_error"] or 1) for line in run["epochs"]]
                label = None if number else name
                axes.plot(range(1, len(errors) + 1), errors, color=color, lw=0.9, label=label)
        axes.set(xlabel="epochs", ylabel="test error, centre crop (%)", title=net, ylim=(0, 60))
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    harness.run(main)
