"""Each claim of the paper that a number can carry, and what our results make of it.

A difference between two nets is judged by its 95% interval: over the seeds, paired, where there are
several (Student's t); else from the number of test images (binomial). It is "reproduced" where the
interval lies on the paper's side of nought, "not" where it lies on the other, "inside the spread"
where it holds nought.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from experiments import harness
from experiments.sweep import spread

REPRODUCED, PARTLY, NOT, SPREAD, UNTESTED = (
    "reproduced",
    "partly",
    "not",
    "inside the spread",
    "not testable here",
)
IMAGENET = "needs ImageNet's 1.28 million images, which are not free to pass on"


class Found(NamedTuple):
    """What a claim came to."""

    ours: str
    scale: str  # data, size, length, seeds
    verdict: str
    picture: str = ""  # in results/


class Claim(NamedTuple):
    """A line of the ledger."""

    section: str
    claim: str
    paper: str
    command: str
    find: Callable[[], Found | None]  # None: it was not run


def result(name: str) -> Any:
    """The result of a file in results/; None where it is not there."""
    path = harness.RESULTS / f"{name}.json"
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    return content["result"] if isinstance(content, dict) and "result" in content else content


def log_of_one_net() -> list[dict] | None:
    """The log of the run of Imagenette at the paper's size; None where it is not there."""
    path = harness.RESULTS / "imagenette_224.jsonl"
    return [*map(json.loads, path.read_text().splitlines())] if path.exists() else None


def percent(share: float, digits: int = 2) -> str:
    """A share in per cent."""
    return f"{100 * share:.{digits}f}"


# --- a net against the paper's net ----------------------------------------------------------------


def ablation(variant: str, measure: str = "test_ten", sign: int = 1) -> Callable[[], Found | None]:
    """How much worse a variant of `experiments.paper.ablations` is; `sign` -1: claimed better."""

    def find() -> Found | None:
        tables = [table for name in ABLATIONS if (table := result(name))]
        tables = [table for table in tables if {"paper", variant} <= _names(table)]
        if not tables:
            return None
        table = max(tables, key=lambda table: len(_row(table, variant)["seeds"]))
        ours, theirs = _row(table, variant), _row(table, "paper")
        images = _images(table, measure)
        mean, half = _difference(ours, theirs, measure, images)
        seeds = len(_shared_seeds(ours, theirs))
        return Found(
            f"{100 * mean:+.2f} ± {100 * half:.2f} points "
            f"({percent(theirs[measure]['mean'])} → {percent(ours[measure]['mean'])}%)",
            _scale(table) + (f", {seeds} seeds" if seeds > 1 else ", 1 seed"),
            verdict(sign * mean, half),
            _picture(table),
        )

    return find


ABLATIONS = ("ablations_128", "ablations_64_width_0.5")


def verdict(mean: float, half: float) -> str:
    """Of a difference claimed to be above nought, and half the width of its interval."""
    return SPREAD if abs(mean) <= half else REPRODUCED if mean > 0 else NOT


def _names(table: dict) -> set[str]:
    return {row["variant"] for row in table["variants"]}


def _row(table: dict, variant: str) -> dict:
    return next(row for row in table["variants"] if row["variant"] == variant)


def _shared_seeds(*rows: dict) -> list[int]:
    return [seed for seed in rows[0]["seeds"] if all(seed in row["seeds"] for row in rows)]


def _difference(ours: dict, theirs: dict, measure: str, images: int) -> tuple[float, float]:
    """Mean and half the width of the 95% interval of the differences of two rows' errors."""
    seeds = _shared_seeds(ours, theirs)
    if len(seeds) == 1:
        pair = _of_seed(ours, theirs, measure, seeds[0])
        if measure != "gap":
            return _binomial(*pair, images)
        # As if the training images were as few as the test's: a little too wide.
        halves = [_binomial(*_of_seed(ours, theirs, of, seeds[0]), images)[1] for of in _GAP]
        return pair[0] - pair[1], float(np.hypot(*halves))
    values = [
        ours[measure]["values"][ours["seeds"].index(seed)]
        - theirs[measure]["values"][theirs["seeds"].index(seed)]
        for seed in seeds
    ]
    found = spread(values)
    return found["mean"], found["interval"]


_GAP = ("test_center", "train")  # what is subtracted


def _of_seed(ours: dict, theirs: dict, measure: str, seed: int) -> list[float]:
    found = []
    for row in (ours, theirs):
        values = row[measure].get("values", [row[measure]["mean"]])  # of one seed, in older files
        found.append(values[row["seeds"].index(seed)])
    return found


def _binomial(ours: float, theirs: float, images: int) -> tuple[float, float]:
    """Difference of two errors on so many images, and half the width of its 95% interval."""
    errors = np.array([ours, theirs])
    return ours - theirs, 1.96 * float(np.sqrt((errors * (1 - errors) / images).sum()))


def _images(table: dict, measure: str) -> int:
    images = table["runs"][0]["images"]
    return images["train" if measure == "train" else "test"]


def _scale(table: dict) -> str:
    width = table.get("width", 1)
    narrower = "" if width == 1 else f", {width:g} of the width"
    return (
        f"Imagenette, {table['image_size']} pixels{narrower}, {table['epochs']} epochs, "
        f"{table['runs'][0]['images']['test']:,} test images"
    )


def _picture(table: dict) -> str:
    return next(f"{name}.png" for name in ABLATIONS if result(name) == table)


# --- the other claims -----------------------------------------------------------------------------


def one_net() -> Found | None:
    """The whole net on real photographs."""
    log = log_of_one_net()
    if not log:
        return None
    error = {line["split"]: line for line in log}
    views = (error[name] for name in ("test_ten_views", "test"))
    ten, center = (percent(line["top1_error"]) for line in views)
    return Found(
        f"{ten}% ten views, {center}% centre crop (top-1)",
        "Imagenette (10 classes, 8,996 training photographs), 224 pixels, 90 epochs, 1 seed",
        f"{UNTESTED}: {IMAGENET}",
    )


def untested() -> Found:
    """A claim about ImageNet."""
    return Found("", "", f"{UNTESTED}: {IMAGENET}")


def figure1() -> Found | None:
    """ReLU against tanh."""
    table = result("figure1")
    if not table:
        return None
    ratios = table["tanh_over_relu"]["by_seed"]
    reached = table["epochs_to_25_percent"]
    epochs = {name: list(by_seed.values()) for name, by_seed in reached.items()}
    text = {
        name: ", ".join("never" if value is None else f"{value:g}" for value in values)
        for name, values in epochs.items()
    }
    found = f"epochs to 25%: ReLU {text['relu']}; tanh {text['tanh']}"
    if ratios:
        found = f"{np.mean(ratios):.1f} times sooner ({found})"
    if left_out := table["tanh_over_relu"].get("seeds_left_out"):
        found += f"; without seeds that never reach it: {', '.join(map(str, left_out))}"
    edge = [
        name
        for name, rates in table["rates_tried"].items()
        if table["best_rates"][name] == rates[-1]
    ]
    if edge:
        found += f"; the largest rate tried was the best of {' and of '.join(edge)}"
    sooner = bool(ratios) and min(ratios) > 1
    word = REPRODUCED if sooner and np.mean(ratios) >= 5 else PARTLY if sooner else NOT
    scale = f"{table['data']}, {len(ratios)} seed{'s' * (len(ratios) != 1)}"
    return Found(found, scale, word, "figure1.png")


def lrn_cifar() -> Found | None:
    """LRN on CIFAR-10."""
    table = result("lrn_cifar")
    if not table:
        return None
    texts, words = [], []
    for net, row in table["nets"].items():
        mean = {
            key: np.mean([error for error in row[key].values() if error is not None])
            for key in ("with_norm", "without")
        }
        found = spread(row["gain"])
        half = found["interval"] or 1.96 * np.sqrt(2 * mean["without"] * 0.8 / 10_000)
        texts.append(
            f"{net}: {percent(mean['without'])} → {percent(mean['with_norm'])}% "
            f"({-100 * found['mean']:+.2f} ± {100 * half:.2f} points)"
        )
        words.append(verdict(found["mean"], half))
    seeds = len(next(iter(table["nets"].values()))["gain"])
    scale = f"{table['data']}, {table['num_epochs']} epochs, {seeds} seed{'s' * (seeds != 1)}"
    return Found("; ".join(texts), scale, words[0], "lrn_cifar.png")  # the claim's net is the first


def specialisation() -> Found | None:
    """Colour in one tower."""
    name = next((n for n in ("specialisation_64", "specialisation_128") if result(n)), None)
    if not name:
        return None
    table = result(name)
    row, other = table["nets"]["paper"], table["nets"]["no LRN"]
    every = max(row["p"]) < 0.05
    return Found(
        f"share of colour {row['lower']['mean']:.2f} and {row['higher']['mean']:.2f}; random "
        f"halves of the kernels are split as far in {100 * max(row['p']):.1f}% at most; without "
        f"LRN {other['lower']['mean']:.2f} and {other['higher']['mean']:.2f}",
        f"Imagenette, {table['image_size']} pixels, {table['width']:g} of the width, "
        f"{table['epochs']} epochs, {len(row['seeds'])} seeds",
        REPRODUCED if every else PARTLY if min(row["p"]) < 0.05 else NOT,
        f"{name}.png",
    )


def dropout_slows() -> Found | None:
    """Epochs until the loss falls below 2, chance being 2.30."""
    table = next((t for n in ABLATIONS if (t := result(n)) and "no dropout" in _names(t)), None)
    if not table:
        return None
    with_it, without = (_row(table, name)["left_the_plateau"] for name in ("paper", "no dropout"))
    epochs = [", ".join(map(str, values)) for values in (with_it, without)]
    return Found(
        f"loss below 2 at epoch {epochs[0]} with dropout, {epochs[1]} without",
        _scale(table),
        NOT if np.mean(without) >= np.mean(with_it) else PARTLY,
        _picture(table),
    )


def ensembles() -> Found | None:
    """Several nets against one, on all images that were held out."""
    table = result("ensemble")
    if not table:
        return None
    nets = table["views"]["center"]
    splits = ("validation", "test")
    images = sum(nets[0][split]["images"] for split in splits)
    *alone, together = (
        sum(row[split]["top1_error"] * row[split]["images"] for split in splits) / images
        for row in nets
    )
    one = float(np.mean(alone))
    mean, half = _binomial(one, together, images)
    return Found(
        f"{percent(one)}% alone ({percent(min(alone))} to {percent(max(alone))}), "
        f"{percent(together)}% together",
        f"{table['dataset']}, {table['epochs']} epochs, {len(alone)} seeds",
        verdict(mean, half),
        "ensemble.png",
    )


def pre_training() -> Found | None:
    """Fine-tuning against from scratch."""
    table = result("fine_tune")
    if not table:
        return None
    errors = table["test_top1_error_after_each_third"]
    pairs = zip(errors["from scratch"], errors["fine-tuned"], strict=True)
    texts = [f"{percent(a[-1], 1)} → {percent(b[-1], 1)}%" for a, b in pairs]
    last = ([one[-1] for one in errors[name]] for name in ("from scratch", "fine-tuned"))
    better = all(b < a for a, b in zip(*last, strict=True))
    return Found(
        "; ".join(texts),
        f"five classes of Imagenette after the other five, {table['images']} training images, "
        f"{len(texts)} seeds",
        PARTLY if better else NOT,
        "fine_tune.png",
    )


def baseline(name: str) -> Callable[[], Found | None]:
    """A classic method on the data of `one_net`."""

    def find() -> Found | None:
        table, log = result(f"baseline_{name}"), log_of_one_net()
        if not table or not log:
            return None
        ten, images = log[-1], table["of"]
        mean, half = _binomial(table["top1_error"], ten["top1_error"], images)
        top1, top5 = (
            f"{percent(ten[key])} → {percent(table[key])}%" for key in ("top1_error", "top5_error")
        )
        return Found(
            f"{100 * mean:+.2f} ± {100 * half:.2f} points (our net with ten views → this: {top1}; "
            f"top-5: {top5}; of SIFT alone {percent(table['kinds']['SIFT']['top1_error'])}%)",
            f"Imagenette, {table['training images']:,} training and {images:,} test images, those "
            "of our net at 224 pixels",
            verdict(mean, half),
            f"baseline_{name}.png",
        )

    return find


_ABLATIONS = "python -m experiments.paper.ablations"
_IMAGENET = "python -m alexnet_jax.main --config={0} --workdir=runs/{0}"
CLAIMS = (
    Claim(
        "Table 1",
        "One net, ten views, ILSVRC-2010 test",
        "37.5 / 17.0%",
        _IMAGENET.format("imagenet2010"),
        one_net,
    ),
    Claim(
        "Table 1",
        "SIFT and Fisher vectors are worse than the net",
        "45.7 / 25.7%",
        "python -m experiments.baselines.sift_fisher",
        baseline("sift_fisher"),
    ),
    Claim(
        "Table 1",
        "Sparse coding is worse than the net",
        "47.1 / 28.2%",
        "python -m experiments.baselines.sparse_coding",
        baseline("sparse_coding"),
    ),
    Claim(
        "Table 2",
        "One net, ILSVRC-2012 validation",
        "40.7 / 18.2%",
        _IMAGENET.format("imagenet2012"),
        untested,
    ),
    Claim(
        "Table 2",
        "The mean of five nets is better than one",
        "40.7 → 38.1%",
        "python -m experiments.paper.ensemble",
        ensembles,
    ),
    Claim(
        "Table 2",
        "Pre-training on more classes helps (1 CNN*)",
        "40.7 → 39.0%",
        "python -m experiments.paper.fine_tune",
        pre_training,
    ),
    Claim(
        "Table 2",
        "Seven nets, two pre-trained",
        "36.7 / 15.4%",
        _IMAGENET.format("imagenet2012_pretrained") + " --config.init_from=runs/imagenet_fall2011",
        untested,
    ),
    Claim(
        "6",
        "Fall 2009 release, 10,184 classes",
        "67.4 / 40.9%",
        "–",  # no recipe: half of that release is its test
        untested,
    ),
    Claim(
        "3.1, figure 1",
        "ReLUs reach 25% training error six times sooner than tanh",
        "6 times",
        "python -m experiments.paper.figure1",
        figure1,
    ),
    Claim(
        "3.2",
        "The one-GPU net with half the kernels is worse",
        "+1.7 points",
        _ABLATIONS,
        ablation("one-GPU net"),
    ),
    Claim("3.3", "Without LRN worse", "+1.4 points", _ABLATIONS, ablation("no LRN")),
    Claim(
        "3.3",
        "LRN takes a four-layer CIFAR-10 net from 13% to 11%",
        "-2 points",
        "python -m experiments.paper.lrn_cifar",
        lrn_cifar,
    ),
    Claim(
        "3.4",
        "Without overlap of the pooling windows worse",
        "+0.4 points",
        _ABLATIONS,
        ablation("plain pooling"),
    ),
    Claim(
        "3.4",
        "… and easier to overfit: a larger gap from training to test",
        "no number",
        _ABLATIONS,
        ablation("plain pooling", "gap"),
    ),
    Claim("1, 7", "Without conv3 worse", "about +2 points", _ABLATIONS, ablation("no conv3")),
    Claim("1, 7", "Without conv4 worse", "about +2 points", _ABLATIONS, ablation("no conv4")),
    Claim("1, 7", "Without conv5 worse", "no number", _ABLATIONS, ablation("no conv5")),
    Claim(
        "4.1",
        "Without crops and flips substantial overfitting",
        "no number",
        _ABLATIONS,
        ablation("no crops, no flips"),
    ),
    Claim(
        "4.1", "Without the colour shift worse", "over +1 point", _ABLATIONS, ablation("no colour")
    ),
    Claim(
        "4.2",
        "Without dropout substantial overfitting",
        "no number",
        _ABLATIONS,
        ablation("no dropout"),
    ),
    Claim("4.2", "Dropout doubles the iterations", "2 times", _ABLATIONS, dropout_slows),
    Claim(
        "5",
        "Without weight decay the training error is higher",
        "no number",
        _ABLATIONS,
        ablation("no weight decay", "train"),
    ),
    Claim(
        "6.1, figure 3",
        "One tower turns colour-agnostic, the other colour-specific, in every run",
        "every run",
        "python -m experiments.paper.specialisation",
        specialisation,
    ),
)
