"""Section 6.1: one tower's kernels turn colour-agnostic, the other's colour-specific, in every run.

    python -m experiments.paper.specialisation

"This kind of specialization occurs during every run and is independent of any particular random
weight initialization (modulo a renumbering of the GPUs)." Measured as the share of each tower's
squared conv1 weights that lies off the grey axis, after every epoch: 2/3 at the start, 0 for grey
kernels, 1 for kernels blind to brightness. The split is the difference of the two shares. The
paper's exchange (conv3 and the full layers read both towers) against exchange at every layer and
against one tower, whose two halves stand for towers; each with LRN and without. Flags and runs are
those of `experiments.paper.ablations`; --variant chooses among these six nets. Writes
results/specialisation_SIZE.json, .png and the kernels of each net.
"""

import itertools

import numpy as np
from absl import flags
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from alexnet_jax.files import local_path
from alexnet_jax.inspect.filters import color_shares, filter_picture, splits_by_chance
from experiments import harness
from experiments.paper import ablations
from experiments.sweep import Sweep
from experiments.tables import spread

FLAGS = flags.FLAGS
NETS = {
    "the paper's exchange": ("paper", "no LRN"),
    "exchange everywhere": ("exchange everywhere", "exchange everywhere, no LRN"),
    "one tower's halves": ("one tower", "one tower, no LRN"),
}


def main(_) -> None:
    """Trains what is not there yet, and writes what there is."""
    sweep = Sweep(ablations.configuration(), local_path(FLAGS.workdir))
    nets = [name for pair in NETS.values() for name in pair]
    names = FLAGS.variant or nets
    if others := [name for name in names if name not in nets]:
        raise ValueError(f"--variant={others[0]} has no towers to compare; use {', '.join(nets)}")
    asked = [(name, seed) for seed in FLAGS.seed for name in names]
    settings = [ablations.setting(*one) for one in asked]
    sweep.train(settings)
    results = sweep.results(settings, partly=True)
    curves: dict[str, dict[int, list]] = {name: {} for name in names}
    kernels: dict[str, dict[int, np.ndarray]] = {name: {} for name in names}
    diverged = []
    for (name, seed), setting, run in zip(asked, settings, results, strict=True):
        if run and None in itertools.chain(*run["color_shares"]):
            diverged.append(f"{name}, seed {seed}")
        elif run:
            # In the order of the end, kept: the towers may change places on the way.
            order = np.argsort(run["color_shares"][-1])
            curves[name][seed] = [[one[tower] for tower in order] for one in run["color_shares"]]
            kernels[name][seed] = sweep.arrays(setting)["conv1"]
    if diverged:
        print(f"left out, as they diverged: {'; '.join(diverged)}")
    curves = {name: of_seed for name, of_seed in curves.items() if of_seed}
    if not curves:
        return
    rows = {name: summary(kernels[name], runs) for name, runs in curves.items()}
    for name, row in rows.items():
        print(f"{name:28} split {row['split']['mean']:.3f}, by chance {row['by_chance']:.3f}")
    result = {
        "claim": "AlexNet §6.1: the towers specialise in every run",
        "data": "imagenette/160px-v2",
        "image_size": FLAGS.image_size,
        "width": FLAGS.width,
        "epochs": FLAGS.num_epochs,
        "nets": rows,
        "shares_by_epoch": curves,
        **({"diverged": diverged} if diverged else {}),
    }
    name = ablations.result_name("specialisation")
    harness.record(name, result, draw(curves), origins=sweep.origins(settings))
    filters = draw_filters(
        {
            f"{net}, seed {seed}": kernel
            for net, of in kernels.items()
            for seed, kernel in of.items()
        }
    )
    with harness.result_file(f"{name}_filters.png", "wb") as file:
        filters.savefig(file, format="png", dpi=110)


def summary(kernels: dict[int, np.ndarray], curves: dict[int, list]) -> dict:
    """The split at the end by seed, and what halves drawn at random among the kernels would have.

    "p" is the share of random halves that are split at least as far, by seed.
    """
    splits = [shares[-1][1] - shares[-1][0] for shares in curves.values()]
    chance = {seed: splits_by_chance(kernel) for seed, kernel in kernels.items()}
    return harness.rounded(
        {
            "seeds": list(curves),
            "lower": spread([shares[-1][0] for shares in curves.values()]),
            "higher": spread([shares[-1][1] for shares in curves.values()]),
            "split": spread(splits),
            "by_chance": float(np.mean([splits.mean() for splits in chance.values()])),
            "p": [
                float(np.mean(chance[seed] >= split))
                for seed, split in zip(curves, splits, strict=True)
            ],
        }
    )


def draw(curves: dict[str, dict[int, list]]) -> Figure:
    """The split by epoch, a colour a seed: solid with LRN, dashed without.

    Below nought the tower that ends with less colour had more.
    """
    asked = {title: pair for title, pair in NETS.items() if any(name in curves for name in pair)}
    figure = Figure(figsize=(3 * len(asked) + 2, 3.4), layout="constrained")
    panels = figure.subplots(1, len(asked), sharey=True, squeeze=False)[0]
    for axes, (title, pair) in zip(panels, asked.items(), strict=True):
        axes.axhline(0, color="#888888", lw=0.6)
        for name, style in zip(pair, ("-", "--"), strict=True):
            for seed, shares in curves.get(name, {}).items():
                split = [0, *(more - less for less, more in shares)]
                axes.plot(split, style, color=f"C{seed}", lw=1)
        axes.set(title=title, xlabel="epochs")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("share of colour in conv1:\none tower's less the other's")
    lines = [("with LRN", "#444444", "-"), ("without", "#444444", "--")]
    lines += [
        (f"seed {n}", f"C{n}", "-") for n in sorted({n for of in curves.values() for n in of})
    ]
    figure.legend(
        [Line2D([], [], color=color, ls=style) for _, color, style in lines],
        [label for label, *_ in lines],
        fontsize=8,
        loc="outside right upper",
    )
    return figure


def draw_filters(kernels: dict[str, np.ndarray]) -> Figure:
    """The first layer of each net, tower above tower, the greyer one first."""
    rows = -(-len(kernels) // 2)
    figure = Figure(figsize=(11, 1.9 * rows), layout="constrained")
    places = figure.subplots(rows, 2, squeeze=False).ravel()
    for axes in places:
        axes.axis("off")
    for axes, (name, kernel) in zip(places, kernels.items()):  # noqa: B905
        towers = np.split(kernel.astype(np.float32), 2, axis=-1)
        ordered = np.concatenate(sorted(towers, key=lambda k: color_shares(k, towers=1)), axis=-1)
        axes.imshow(filter_picture(ordered, per_filter=True, scale=4))
        low, high = sorted(color_shares(kernel))
        axes.set_title(f"{name}: {low:.2f} and {high:.2f}", fontsize=9)
    return figure


if __name__ == "__main__":
    harness.run(main)
