"""What each part of AlexNet is worth, on Imagenette: sections 3.2 to 4.2, one change at a time.

    python -m experiments.paper.ablations

The claims are in `VARIANTS`. All nets have --width of the paper's kernels and neurons and see crops
of --image_size pixels; the ten views of the test images are averaged. Trains what is not yet there,
seed by seed; several processes may share one --workdir. Writes results/ablations_SIZE.json
and .png, and the kernels of the paper's net beside them. Runs that lie there of the same size,
width, length and precision, and are not among these, stay.
"""

import numpy as np
from absl import flags
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from PIL import Image

from alexnet_jax.configs import imagenette
from alexnet_jax.files import local_path
from alexnet_jax.inspect.filters import filter_picture
from alexnet_jax.models.presets import network
from experiments import harness
from experiments.sweep import Sweep, earlier_origins, untouched_runs
from experiments.tables import shown, spread

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", "runs/ablations", "folder of the runs; finished ones are kept")
flags.DEFINE_integer("image_size", 128, "side of the crops in pixels")
flags.DEFINE_float("width", 1.0, "share of the paper's kernels and neurons")
flags.DEFINE_integer("num_epochs", 60, "passes over the training images")
flags.DEFINE_multi_integer("seed", [0, 1, 2], "one run each")
flags.DEFINE_string("precision", "tensorfloat32", "of the products; see AlexNet.precision")

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
    "no conv3": ("1, 7: worse by about 2 points", {"model.remove": ("conv3",)}),
    "no conv4": ("1, 7: worse by about 2 points", {"model.remove": ("conv4",)}),
    "no conv5": ("1, 7: worse", {"model.remove": ("conv5",)}),
    "no weight decay": ("5: decay lowers the training error too", {"weight_decay": 0.0}),
    "biases 0": ("5: biases of 1 speed up the start", {"model.hidden_bias": 0.0}),
    "biases 0.1": ("Caffe's value", {"model.hidden_bias": 0.1}),
    "0.01 everywhere": (
        "5: as printed; the authors' files differ",
        {"model.initialization": "paper"},
    ),
    "towers apart": (
        "3.2: exchange at conv3 and the full connections; here at the last alone",
        {"model.exchange": ("fc8",)},
    ),
    "exchange everywhere": ("3.2: each layer reads both", {"model.exchange": EVERYWHERE}),
    "exchange everywhere, no LRN": (
        "6.1: do the towers still specialise?",
        {"model.exchange": EVERYWHERE, "model.lrn": False},
    ),
    "one tower": ("6.1: as wide, in one piece", {"model.towers": 1}),
    "one tower, no LRN": ("6.1", {"model.towers": 1, "model.lrn": False}),
    "tanh": ("3.1: slower", {"model.activation": "tanh"}),
}
flags.DEFINE_multi_enum("variant", [], list(VARIANTS), "which; default all")


def configuration() -> ConfigDict:
    """What all runs share."""
    config = imagenette.get_config()
    # The schedule is fixed, so nothing is chosen on the validation images.
    config.stored_size = round(FLAGS.image_size * 256 / 224)
    config.model.image_size = FLAGS.image_size
    config.model.precision = FLAGS.precision
    config.num_epochs = FLAGS.num_epochs
    config.schedule.drops = (0.6, 0.85)
    return config


def setting(name: str, seed: int) -> dict:
    """The fields in which one run differs."""
    fields = {"seed": seed, **VARIANTS[name][1]}
    if FLAGS.width != 1:
        whole = network(fields.get("preset", "paper"))
        for field in ("conv_features", "fc_features"):
            numbers = getattr(whole, field)
            fields[f"model.{field}"] = tuple(round(n * FLAGS.width) for n in numbers)
    return fields


def main(_) -> None:
    """Trains, seed by seed, and writes what there is, beside what an earlier run left."""
    sweep = Sweep(configuration(), local_path(FLAGS.workdir))
    names = FLAGS.variant or list(VARIANTS)
    asked = [(name, seed) for seed in FLAGS.seed for name in names]
    settings = [setting(*one) for one in asked]
    sweep.train(settings)
    finished = zip(asked, sweep.results(settings, partly=True), strict=True)
    runs = [{"variant": name, **run} for (name, _), run in finished if run]
    if not runs:
        return
    name, origins = result_name("ablations"), sweep.origins(settings)
    pairs = _pairs(sweep, runs)
    kept, before = [], earlier(harness.recorded(name))
    if before and (kept := untouched_runs(before["result"]["runs"], runs, ("variant", "seed"))):
        origins += earlier_origins(before)
        pairs = joined_pairs(before["result"]["variants"], kept, pairs)
    result = summary(runs + kept, pairs)
    rows = result["variants"]
    print(f"{'':28} runs  centre        ten views     training    gap  loss < 2 at epoch")
    for row in rows:
        gap = harness.percent(row["gap"]["mean"])
        print(
            f"{row['variant']:28} {len(row['seeds']):4}  {shown(row['test_center'])}  "
            f"{shown(row['test_ten'])}  {shown(row['train'])}  {gap:4.1f}  "
            f"{row['left_the_plateau']}"
        )
    harness.record(name, result, draw(rows), origins=origins)
    if papers := [run["seed"] for run in runs if run["variant"] == "paper"]:
        kernels = sweep.arrays(setting("paper", papers[0]))["conv1"]
        picture = Image.fromarray(filter_picture(kernels, per_filter=True))
        with harness.result_file(f"{name}_filters.png", "wb") as file:
            picture.save(file, "PNG", optimize=True)


Pairs = dict[str, dict[int, dict[str, list[int]]]]


def _pairs(sweep: Sweep, runs: list[dict]) -> Pairs:
    """Variant -> seed -> measure -> images that only the paper's net got wrong, only this one."""
    papers = {run["seed"] for run in runs if run["variant"] == "paper"}
    pairs: Pairs = {}
    for run in runs:
        name, seed = run["variant"], run["seed"]
        if name != "paper" and seed in papers:
            nets = setting("paper", seed), setting(name, seed)
            views = {f"test_{view}": sweep.pairs(*nets, view) for view in ("center", "ten")}
            pairs.setdefault(name, {})[seed] = views
    return pairs


def joined_pairs(before: list[dict], kept: list[dict], now: Pairs) -> Pairs:
    """The pairs of now, and those of an earlier result's rows of which both runs are kept."""
    there = {(run["variant"], run["seed"]) for run in kept}
    pairs = {name: dict(of) for name, of in now.items()}
    for row in before:
        name = row["variant"]
        for text, views in (row.get("pairs") or {}).items():
            seed = int(text)
            if {(name, seed), ("paper", seed)} <= there:
                pairs.setdefault(name, {})[seed] = views
    return pairs


def summary(runs: list[dict], pairs: Pairs) -> dict:
    """What is recorded: the runs, and a row for each variant."""
    runs = sorted(runs, key=lambda run: (list(VARIANTS).index(run["variant"]), run["seed"]))
    names = dict.fromkeys(run["variant"] for run in runs)
    by_name = {name: [run for run in runs if run["variant"] == name] for name in names}
    return {
        "claims": "AlexNet §3.1 to §4.2 and §5, one change at a time",
        "data": "imagenette/160px-v2",
        "image_size": FLAGS.image_size,
        "width": FLAGS.width,
        "epochs": FLAGS.num_epochs,
        "devices": sorted({run["device"] for run in runs}),
        "precision": FLAGS.precision,
        "variants": [
            _row(name, of) | {"pairs": dict(sorted(pairs.get(name, {}).items()))}
            for name, of in by_name.items()
        ],
        "runs": runs,
    }


def earlier(before: dict) -> dict:
    """An earlier result, where it is of the same size, width, length and precision; else {}."""
    scale = {
        "image_size": FLAGS.image_size,
        "width": FLAGS.width,
        "epochs": FLAGS.num_epochs,
        "precision": FLAGS.precision,
    }
    return before if scale.items() <= before.get("result", {}).items() else {}


def result_name(experiment: str) -> str:
    """The result's name, by size, width and length: as these flags say for all who share them."""
    # The first specialisation on 64 pixels was narrower and shorter, and lies there without them.
    first = (experiment, FLAGS.image_size) == ("specialisation", 64)
    width, epochs = (0.5, 12) if first else (1, 60)
    name = f"{experiment}_{FLAGS.image_size}"
    name += f"_width_{FLAGS.width:g}" if FLAGS.width != width else ""
    return name + (f"_{FLAGS.num_epochs}_epochs" if FLAGS.num_epochs != epochs else "")


def _row(name: str, runs: list[dict]) -> dict:
    errors = {
        "test_center": [run["test"]["center"]["top1_error"] for run in runs],
        "test_ten": [run["test"]["ten"]["top1_error"] for run in runs],
        "train": [run["train"]["top1_error"] for run in runs],
    }
    errors["gap"] = [
        None if None in pair else pair[0] - pair[1]
        for pair in zip(errors["test_center"], errors["train"], strict=True)
    ]
    return {
        "variant": name,
        "claim": VARIANTS[name][0],
        "seeds": [run["seed"] for run in runs],
        **{key: spread(values) for key, values in errors.items()},
        "left_the_plateau": [_left_the_plateau(run) for run in runs],
        "color_shares": [run["color_shares"][-1] for run in runs],
    }


def _left_the_plateau(run: dict) -> int | None:
    """The first epoch with a training loss below 2; chance is 2.30."""
    for line in run["epochs"]:
        if (line["train"]["loss"] or np.inf) < 2:
            return line["epoch"]
    return None


def draw(rows: list[dict]) -> Figure:
    """Test error of every variant: mean of the ten views, a bar of one deviation."""
    figure = Figure(figsize=(7.5, 0.32 * len(rows) + 1.5), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(rows))[::-1]
    for key, color, label in (
        ("train", "#bbbbbb", "training images"),
        ("test_center", "#88aacc", "test, centre crop"),
        ("test_ten", "#225588", "test, ten views"),
    ):
        means = [harness.percent(row[key]["mean"]) for row in rows]
        spread = [100 * (row[key]["deviation"] or 0) for row in rows]
        axes.errorbar(
            means, places, xerr=spread, fmt="o", markersize=4, color=color, label=label, capsize=2
        )
    axes.axvline(
        harness.percent(rows[0]["test_ten"]["mean"]), color="#225588", linewidth=0.6, alpha=0.6
    )
    _fit_to_those_that_learned(axes, rows, places)
    axes.set_yticks(places, [row["variant"] for row in rows])
    axes.set_xlabel("top-1 error (%); bars: one deviation of the seeds")
    figure.suptitle(
        f"Imagenette, one change at a time: {FLAGS.image_size}-pixel crops, width {FLAGS.width:g}, "
        f"{FLAGS.num_epochs} epochs, seeds run: {_seeds(rows)}",
        fontsize=10,
    )
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _fit_to_those_that_learned(axes: Axes, rows: list[dict], places: np.ndarray) -> None:
    """A net that stayed at chance would squeeze the others into a corner: it is told in words."""
    stayed = [not any(row.get("left_the_plateau", [1])) for row in rows]
    if all(stayed) or not any(stayed):
        return
    errors = [
        harness.percent(row[key]["mean"])
        for row, one in zip(rows, stayed, strict=True)
        for key in ("train", "test_center", "test_ten")
        if not one
    ]
    low, high = np.nanmin(errors), np.nanmax(errors)
    axes.set_xlim(low - 0.1 * (high - low), high + 0.1 * (high - low))
    for row, place, one in zip(rows, places, stayed, strict=True):
        if one:
            told = f"never left the plateau: {harness.percent(row['test_ten']['mean']):.1f}% →"
            at = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "center"}
            axes.text(0.99, place, told, fontsize=8, color="#225588", **at)


def _seeds(rows: list[dict]) -> str:
    """How many seeds the variants were run with."""
    fewest, most = (f(len(row["seeds"]) for row in rows) for f in (min, max))
    return f"{most}" if fewest == most else f"{fewest} to {most}"


if __name__ == "__main__":
    harness.run(main)
