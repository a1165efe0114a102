"""What each part of AlexNet is worth, on Imagenette: sections 3.2 to 4.2, one change at a time.

    python -m experiments.paper.ablations --out=runs/ablations
    python -m experiments.paper.ablations --out=runs/ablations --report

The claims are in `VARIANTS`. All nets have the paper's width and see crops of --image_size pixels.
The first command trains what is not yet there, seed by seed; several may run at once on one folder,
and --minutes stops each in time. The second writes results/ablations_SIZE.json and .png, and the
kernels of the paper's net beside them.
"""

import json
import os
import time
from pathlib import Path

import numpy as np
from absl import app, flags
from matplotlib.figure import Figure
from PIL import Image

from alexnet_jax.configs import imagenette
from alexnet_jax.inspect.filters import filter_picture
from experiments import harness

FLAGS = flags.FLAGS
flags.DEFINE_string("out", None, "folder of the runs", required=True)
flags.DEFINE_integer("image_size", 128, "side of the crops in pixels")
flags.DEFINE_integer("num_epochs", 60, "passes over the training images")
flags.DEFINE_multi_integer("seed", [0, 1, 2], "one run each")
flags.DEFINE_multi_string("variant", [], "names in VARIANTS; default all")
flags.DEFINE_string("precision", "tensorfloat32", "of the products; see AlexNet.precision")
flags.DEFINE_float("minutes", 1e6, "begin no run after so many")
flags.DEFINE_bool("report", False, "write the results of the runs that are there")

EVERYWHERE = ("conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
# name -> what the paper says of it, and the fields that differ.
VARIANTS = {
    "paper": ("the net of section 3.5", {}),
    "no LRN": ("3.3: worse by 1.4 / 1.2 points", {"model.lrn": False}),
    "plain pooling": (
        "3.4: worse by 0.4 / 0.3 points, and easier to overfit",
        {"model.pool_window": 2},
    ),
    "one-GPU net": ("3.2: worse by 1.7 / 1.2 points", {"preset": "one_gpu"}),
    "no dropout": (
        "4.2: overfits substantially; half the iterations to converge",
        {"model.dropout_rate": 0.0},
    ),
    "no crops, no flips": (
        "4.1: overfits substantially",
        {"augmentation.crop": "center", "augmentation.flip": False},
    ),
    "ten fixed views": ("4.1: (training set of the ten test views)", {"augmentation.crop": "ten"}),
    "no colour": ("4.1: worse by over 1 point", {"augmentation.color": "none"}),
    "no conv3": ("3.5, 7: worse by about 2 points", {"model.remove": ("conv3",)}),
    "no conv4": ("3.5, 7: worse by about 2 points", {"model.remove": ("conv4",)}),
    "no conv5": ("3.5, 7: worse by about 2 points", {"model.remove": ("conv5",)}),
    "no weight decay": ("5: decay lowers the training error too", {"weight_decay": 0.0}),
    "biases 0": ("5: biases of 1 speed up the start", {"model.hidden_bias": 0.0}),
    "biases 0.1": ("Caffe's value", {"model.hidden_bias": 0.1}),
    "0.01 everywhere": (
        "5: as printed; the authors' files differ",
        {"model.initialization": "paper"},
    ),
    "towers apart": ("3.2: exchange at conv3 only; here never", {"model.exchange": ("fc8",)}),
    "exchange everywhere": ("3.2: each layer reads both", {"model.exchange": EVERYWHERE}),
    "exchange everywhere, no LRN": (
        "6.1: do the towers still specialise?",
        {"model.exchange": EVERYWHERE, "model.lrn": False},
    ),
    "one tower": ("6.1: as wide, in one piece", {"model.towers": 1}),
    "one tower, no LRN": ("6.1", {"model.towers": 1, "model.lrn": False}),
    "tanh": ("3.1: slower", {"model.activation": "tanh"}),
}


def configuration(name: str, seed: int):
    """The recipe of one run."""
    config = imagenette.get_config()
    # A training split alone: the schedule is fixed, so nothing is chosen on the validation.
    config.stored_size = round(FLAGS.image_size * 256 / 224)
    config.model.image_size = FLAGS.image_size
    config.model.precision = FLAGS.precision
    config.num_epochs = FLAGS.num_epochs
    config.schedule.drops = (0.6, 0.85)
    config.seed = seed
    config.update_from_flattened_dict(VARIANTS[name][1])
    return config


def train(out: Path) -> None:
    """Trains what no process has begun, seed by seed."""
    out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    for seed in FLAGS.seed:
        for name in FLAGS.variant or VARIANTS:
            run = out / f"{name.replace(',', '').replace(' ', '_')}-{FLAGS.image_size}-{seed}"
            if time.perf_counter() - started > 60 * FLAGS.minutes:
                return
            try:
                run.with_suffix(".begun").touch(exist_ok=False)
            except FileExistsError:
                continue
            fields = {"variant": name, "image_size": FLAGS.image_size, "precision": FLAGS.precision}
            result, arrays = harness.fit(
                configuration(name, seed),
                views=("center", "ten"),
                say=lambda line, name=name: print(f"{name:28} {line}", flush=True),
            )
            np.savez_compressed(run.with_suffix(".npz"), **arrays)
            device = harness.environment()["device"]
            run.with_suffix(".json").write_text(json.dumps({**fields, "device": device, **result}))


def report(out: Path) -> None:
    """Writes the table and the picture of the runs in a folder."""
    found = [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]
    found = [run for run in found if run["image_size"] == FLAGS.image_size]
    rows = [row for name in VARIANTS if (row := _row(name, found))]
    print(f"{'':28} runs   centre      ten views    training    gap   loss < 2 at epoch")
    for row in rows:
        print(
            f"{row['variant']:28} {len(row['seeds']):4} "
            f"{_text(row['test_center'])}  {_text(row['test_ten'])}  {_text(row['train'])} "
            f"{100 * row['gap']['mean']:6.1f}   {row['left_the_plateau']}"
        )
    result = {
        "data": "imagenette/160px-v2",
        "image_size": FLAGS.image_size,
        "epochs": FLAGS.num_epochs,
        "devices": sorted({run["device"] for run in found}),
        "precision": sorted({run["precision"] for run in found}),
        "variants": rows,
        "runs": found,
    }
    harness.record(f"ablations_{FLAGS.image_size}", result, draw(rows))
    for path in sorted(out.glob(f"paper-{FLAGS.image_size}-*.npz"))[:1]:
        picture = filter_picture(np.load(path)["conv1"], per_filter=True)
        name = f"ablations_{FLAGS.image_size}_filters.png"
        Image.fromarray(picture).save(harness.RESULTS / name, optimize=True)


def _row(name: str, found: list[dict]) -> dict | None:
    runs = [run for run in found if run["variant"] == name]
    if not runs:
        return None
    errors = {
        "test_center": [run["test"]["center"]["top1_error"] for run in runs],
        "test_ten": [run["test"]["ten"]["top1_error"] for run in runs],
        "train": [run["train"]["top1_error"] for run in runs],
    }
    errors["gap"] = [a - b for a, b in zip(errors["test_center"], errors["train"], strict=True)]
    return {
        "variant": name,
        "claim": VARIANTS[name][0],
        "seeds": [run["seed"] for run in runs],
        **{key: _mean(values) for key, values in errors.items()},
        "left_the_plateau": [_left_the_plateau(run) for run in runs],
        "color_shares": [run["color_shares"][-1] for run in runs],
    }


def _mean(values: list[float]) -> dict:
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return harness.rounded({"mean": float(np.mean(values)), "deviation": spread})


def _text(entry: dict) -> str:
    spread = "" if entry["deviation"] is None else f"± {100 * entry['deviation']:.2f}"
    return f"{100 * entry['mean']:5.2f} {spread:7}"


def _left_the_plateau(run: dict) -> int | None:
    """The first epoch with a training loss below 2; chance is 2.30."""
    for line in run["epochs"]:
        if (line["train"]["loss"] or np.inf) < 2:
            return line["epoch"]
    return None


def draw(rows: list[dict]) -> Figure:
    """Test error of every variant: mean of the ten views, a bar of one deviation."""
    figure = Figure(figsize=(7.5, 0.32 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(rows))[::-1]
    for key, color, label in (
        ("train", "#bbbbbb", "training images"),
        ("test_center", "#88aacc", "test, centre crop"),
        ("test_ten", "#225588", "test, ten views"),
    ):
        means = [100 * row[key]["mean"] for row in rows]
        spread = [100 * (row[key]["deviation"] or 0) for row in rows]
        axes.errorbar(
            means, places, xerr=spread, fmt="o", markersize=4, color=color, label=label, capsize=2
        )
    axes.axvline(100 * rows[0]["test_ten"]["mean"], color="#225588", linewidth=0.6, alpha=0.6)
    axes.set_yticks(places, [row["variant"] for row in rows])
    axes.set_xlabel("top-1 error (%)")
    axes.set_title(
        f"Imagenette, one change at a time: {FLAGS.image_size}-pixel crops, "
        f"{FLAGS.num_epochs} epochs, seeds run: {_seeds(rows)}",
        fontsize=10,
    )
    axes.legend(frameon=False, fontsize=8, loc="upper center")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _seeds(rows: list[dict]) -> str:
    """How many seeds the variants were run with."""
    fewest, most = (f(len(row["seeds"]) for row in rows) for f in (min, max))
    return f"{most}" if fewest == most else f"{fewest} to {most}"


def main(_) -> None:
    """Trains or reports."""
    (report if FLAGS.report else train)(Path(os.path.expanduser(FLAGS.out)))


if __name__ == "__main__":
    app.run(main)
