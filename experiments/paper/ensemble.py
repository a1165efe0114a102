"""Table 2: the mean of five nets is better than one (40.7 to 38.1%); here on handwritten digits.

    python -m experiments.paper.ensemble

The digits recipe (half width, 64 pixels), as long as it is: five networks take six minutes of two
cores, and err on two or three of 445 images. With --num_epochs=8 they are far from trained. Five of
the ten views are mirrored and digits are trained without: they are worse here. Writes
results/ensemble.json and .png.
"""

import numpy as np
from absl import flags
from matplotlib.figure import Figure

from alexnet_jax.configs import digits
from alexnet_jax.data.sets import open_dataset
from alexnet_jax.files import local_path
from alexnet_jax.inspect.drawing import COLORS, new_figure, style
from alexnet_jax.runs.evaluation import average
from alexnet_jax.scores import METRICS, image_scores
from experiments import harness
from experiments.sweep import Sweep

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", "runs/ensemble", "folder of the runs; finished ones are kept")
flags.DEFINE_multi_integer("seed", [0, 1, 2, 3, 4], "one network each")
flags.DEFINE_integer("num_epochs", 30, "passes over the training images")
VIEWS = {"center": "centre crop", "ten": "ten views"}


def main(_) -> None:
    """Trains the networks, evaluates them alone and averaged, writes the results."""
    config = digits.get_config()
    config.num_epochs = FLAGS.num_epochs
    config.test_split = "validation+test"  # nothing is chosen on either
    sweep = Sweep(config, local_path(FLAGS.workdir))
    settings = [{"seed": seed} for seed in FLAGS.seed]
    sweep.train(settings)
    sweep.results(settings)  # or it says which are missing
    tested = open_dataset("digits", sweep.base.test_split, stored_size=72)
    labels = tested.source.read(np.arange(len(tested)))["label"]
    splits = {"validation": slice(226), "test": slice(226, None)}
    views = {}
    for view in VIEWS:
        nets = np.stack([sweep.arrays(setting)[f"log_probs_{view}"] for setting in settings])
        nets = nets.astype(np.float32)
        mean = average(nets, np.ones(len(nets)))
        named = [*(("1 CNN", one) for one in nets), (f"{len(nets)} CNNs", mean)]
        views[view] = [
            {"row": row} | {name: errors(one[rows], labels[rows]) for name, rows in splits.items()}
            for row, one in named
        ]
    result = {
        "dataset": "digits: 1,352 training, 226 validation and 219 test images",
        "network": "half width, 64 pixels",
        "epochs": FLAGS.num_epochs,
        "seeds": FLAGS.seed,
        "views": views,
    }
    with style():
        origins = sweep.origins(settings)
        harness.record("ensemble", harness.rounded(result), draw(views), origins=origins)


def errors(log_probs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Means over images."""
    scores = image_scores(log_probs, labels)
    return {"images": len(labels)} | {name: float(scores[name].mean()) for name in METRICS}


def draw(views: dict[str, list[dict]]) -> Figure:
    """Error and loss on validation and test images together: members as dots, their mean a line."""
    figure = new_figure(6.5, 2.8)
    panels = figure.subplots(1, 2)
    for axes, metric, label, factor in zip(
        panels,
        ("top1_error", "loss"),
        ("top-1 error (%)", "loss (nats)"),
        (100, 1),
        strict=True,
    ):
        for x, rows in enumerate(views.values()):
            *alone, mean = (factor * pooled(row, metric) for row in rows)
            axes.scatter([x] * len(alone), alone, color=COLORS["blue"], label="one network")
            axes.plot([x - 0.2, x + 0.2], [mean, mean], color=COLORS["red"], label="their mean")
        axes.set_xticks(range(len(views)), VIEWS.values())
        axes.set(xlim=(-0.5, 1.5), ylim=(0, None), ylabel=label)
    handles, labels = panels[0].get_legend_handles_labels()
    panels[0].legend(handles[:2], labels[:2], loc="upper left")
    return figure


def pooled(row: dict, metric: str) -> float:
    """The metric over the images of both splits."""
    splits = [row["validation"], row["test"]]
    return sum(s[metric] * s["images"] for s in splits) / sum(s["images"] for s in splits)


if __name__ == "__main__":
    harness.run(main)
