"""Table 2: the mean of five nets is better than one (40.7 to 38.1%); here on Imagenette.

    python -m experiments.paper.ensemble --image_size=64 --width=0.5

The paper's net with each seed, alone and averaged: the mean of every subset of them, so that it
shows what the second net is worth, and what the fifth. Flags and runs are those of
`experiments.paper.ablations`. Writes results/ensemble.json and .png.
"""

import itertools

import numpy as np
from absl import flags
from matplotlib.figure import Figure

from alexnet_jax.files import local_path
from alexnet_jax.inspect.drawing import COLORS, new_figure, style
from alexnet_jax.runs.evaluation import average
from alexnet_jax.scores import METRICS, image_scores
from experiments import fitting, harness
from experiments.paper import ablations
from experiments.sweep import Sweep

FLAGS = flags.FLAGS
VIEWS = {"center": ("centre crop", COLORS["blue"]), "ten": ("ten views", COLORS["red"])}


def main(_) -> None:
    """Trains what is not there yet, averages, writes the results."""
    if FLAGS.variant:
        raise ValueError("--variant is for experiments.paper.ablations; here it is the paper's net")
    if len(FLAGS.seed) < 2:
        raise ValueError(f"--seed={FLAGS.seed[0]} alone has no mean; give --seed several times")
    sweep = Sweep(ablations.configuration(), local_path(FLAGS.workdir))
    settings = [ablations.setting("paper", seed) for seed in FLAGS.seed]
    sweep.train(settings)
    runs = sweep.results(settings)  # or it says which are missing
    if diverged := [run["seed"] for run in runs if run["train"]["top1_error"] is None]:
        raise ValueError(f"the run of --seed={diverged[0]} diverged; leave it out")
    labels = np.asarray(fitting.on_device(sweep.base, "test")["label"])
    views = {}
    for view, (name, _) in VIEWS.items():
        nets = np.stack([sweep.arrays(setting)[f"log_probs_{view}"] for setting in settings])
        views[view] = compared(nets.astype(np.float32), labels)
        for row in views[view]["means"]:
            error, loss = (np.mean(row[metric]) for metric in ("top1_error", "loss"))
            print(f"{name}, mean of {row['nets']}: {100 * error:.2f}%, loss {loss:.3f}")
    result = {
        "claim": "AlexNet §6, table 2: the mean of five nets is better than one",
        "data": "imagenette/160px-v2",
        "images": runs[0]["images"],
        "image_size": FLAGS.image_size,
        "width": FLAGS.width,
        "epochs": FLAGS.num_epochs,
        "precision": FLAGS.precision,
        "seeds": FLAGS.seed,
        "train_top1_error": [run["train"]["top1_error"] for run in runs],
        "views": views,
    }
    with style():
        origins = sweep.origins(settings)
        harness.record("ensemble", harness.rounded(result), draw(views), origins=origins)


def compared(nets: np.ndarray, labels: np.ndarray) -> dict:
    """The errors of nets alone and averaged.

    Args:
      nets: log-probabilities [M, B, K].
      labels: [B].

    Returns:
      "means": for each number of nets, the loss and errors of the mean of each such subset;
      "pairs": images that a net alone got wrong and the mean of all did not, and the reverse,
      averaged over the nets.
    """
    means, wrong = [], []
    for number in range(1, len(nets) + 1):
        subsets = itertools.combinations(nets, number)
        scores = [image_scores(average(np.stack(s), np.ones(number)), labels) for s in subsets]
        means.append({"nets": number})
        means[-1] |= {name: [float(one[name].mean()) for one in scores] for name in METRICS}
        wrong.append(np.stack([one["top1_error"] > 0.5 for one in scores]))
    alone, together = wrong[0], wrong[-1]
    pairs = [(alone & ~together).sum(1).mean(), (~alone & together).sum(1).mean()]
    return {"means": means, "pairs": [float(images) for images in pairs]}


def draw(views: dict[str, dict]) -> Figure:
    """Error and loss by the number of nets: a dot for each subset, a line through their means."""
    figure = new_figure(6.5, 2.8)
    panels = figure.subplots(1, 2)
    for axes, metric, label, factor in zip(
        panels,
        ("top1_error", "loss"),
        ("test top-1 error (%)", "test loss (nats)"),
        (100, 1),
        strict=True,
    ):
        for view, (name, color) in VIEWS.items():
            rows = views[view]["means"]
            numbers = [row["nets"] for row in rows]
            axes.plot(
                np.repeat(numbers, [len(row[metric]) for row in rows]),
                factor * np.concatenate([row[metric] for row in rows]),
                ".",
                color=color,
                alpha=0.4,
            )
            axes.plot(
                numbers, [factor * np.mean(row[metric]) for row in rows], color=color, label=name
            )
        axes.set_xticks(numbers)
        axes.set(xlabel="networks averaged", ylabel=label)
    panels[0].legend()
    return figure


if __name__ == "__main__":
    FLAGS.set_default("seed", [0, 1, 2, 3, 4])
    harness.run(main)
