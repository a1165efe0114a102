"""The sections of the report: training, errors, what the network learned and where it errs."""

import platform
import statistics
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any

import jax
import numpy as np
from markupsafe import Markup
from ml_collections import ConfigDict

from alexnet_jax.activations import layers_named
from alexnet_jax.augment import view_offsets
from alexnet_jax.data.batches import eval_batches
from alexnet_jax.data.records import Batch
from alexnet_jax.data.sets import Dataset
from alexnet_jax.inspect import html, paper
from alexnet_jax.inspect.confusion import confusion_figure, confusion_matrix, worst_confusions
from alexnet_jax.inspect.curves import curves_figure, vitals_figure
from alexnet_jax.inspect.features import extract_features
from alexnet_jax.inspect.filters import color_shares, filter_picture
from alexnet_jax.inspect.predictions import (
    prediction_figure,
    shift_errors,
    shift_figure,
)
from alexnet_jax.inspect.retrieval import (
    nearest,
    retrieval_figure,
    retrieval_precision,
)
from alexnet_jax.inspect.saliency import occlusion_figure, occlusion_map
from alexnet_jax.inspect.samples import sample
from alexnet_jax.models.layer_table import layer_table
from alexnet_jax.models.presets import network
from alexnet_jax.runs.evaluation import MOST_CONFUSED
from alexnet_jax.runs.metrics_log import VITALS
from alexnet_jax.runs.throughput import training_flops
from alexnet_jax.runs.workdir import Run

BATCH_SIZE = 64
NEIGHBORS = 6
QUERIES = 5
SHIFTED_IMAGES = 200
KINDS = {
    "validation": "validation, centre",
    "test": "test, centre",
    "test_ten_views": "test, ten views",
}


def network_in_words(run: Run) -> Markup:
    """The preset, what was changed, and where it lies."""
    changed = [
        f"{name} = {value}"
        for name, value in run.config.model.items()
        if value is not None and value != getattr(network(run.config.preset), name)
    ]
    return html.text(
        "The {preset} network{changed} in {workdir}, checkpoint of step {step:,}",
        preset=html.code(run.config.preset),
        changed=f" with {', '.join(changed)}" if changed else "",
        workdir=html.code(run.workdir),
        step=run.step,
    )


def center_crops(images: np.ndarray, size: int) -> np.ndarray:
    """The pixels [N, size, size, 3] that the centre view is cut from: uint8 [N, S, S, 3]."""
    top, left = view_offsets(images.shape[1] - size)[2]
    return images[:, top : top + size, left : left + size]


def curves(metrics: list[dict[str, Any]], problem: str = "") -> Markup:
    """Loss and error against the epoch, and what is wrong with the log they are of, if anything."""
    said = f"{problem}. " if problem else ""
    if not any(row["split"] == "train" for row in metrics):
        return html.section("Training", said or "This run has no measurements yet.")
    figures = [
        html.figure(curves_figure(metrics, "loss", "loss (nats)"), "Loss against epoch"),
        html.figure(
            curves_figure(metrics, "top1_error", "top-1 error (%)"), "Top-1 error against epoch"
        ),
    ]
    watched = []
    if any(row["split"] == VITALS for row in metrics):
        watched = [
            html.figure(
                vitals_figure(metrics),
                "Vital signs of every layer against epoch",
                "What every layer put out and how its weights moved, at single batches "
                "(--config.watch_every_steps).",
            )
        ]
    return html.section(
        "Training",
        f"{said}Training figures are of augmented images with dropout, so they may lie above the "
        "validation's. Dotted rules: the learning rate changes.",
        html.columns(figures),
        *watched,
    )


def errors(run: Run, metrics: list[dict[str, Any]]) -> Markup:
    """This run's errors beside the paper's tables."""
    measured = last_of_each_split(metrics)
    own = [
        [kind, f"{row['loss']:.3f}", *_percents(row)]
        for split, kind in KINDS.items()
        if (row := measured.get(split))
    ]
    here = html.table(["split", "loss", "top-1", "top-5"], own, numbers=3, own=len(own))
    first = [[row.model, f"{row.top1:.1f}", f"{row.top5:.1f}"] for row in paper.TABLE_1]
    second = [
        [row.model, *("–" if value is None else f"{value:.1f}" for value in row[1:])]
        for row in paper.TABLE_2
    ]
    named = {split: run.config[f"{split}_split"] for split in ("validation", "test")}
    splits = Markup().join(
        html.text(" The {split} here is {name}.", split=split, name=html.code(name))
        for split, name in named.items()
        if name and name != split
    )
    table_2_head = ["model", "top-1 val", "top-5 val", "top-5 test"]
    tables = [
        html.titled(f"This run, {run.config.dataset}", here),
        html.titled(
            "Paper, table 1: ILSVRC-2010 test",
            html.table(["model", "top-1", "top-5"], first, numbers=2),
        ),
        html.titled("Paper, table 2: ILSVRC-2012", html.table(table_2_head, second, numbers=3)),
    ]
    return html.section(
        "Errors beside the paper's",
        html.text(
            "In percent. Only figures on the same data compare. CNNs: averages of that many "
            "networks; *: pre-trained on the whole Fall 2011 release.{splits}",
            splits=splits,
        ),
        html.columns(tables, narrow=True),
    )


def filters(run: Run) -> Markup:
    """The kernels of the first layer (figure 3)."""
    kernel, towers = np.asarray(run.state.params["conv1"]["kernel"]), run.model.towers
    shares = color_shares(kernel, towers=towers)
    text = " and ".join(f"{share:.0%}" for share in shares)
    place = "tower 1 above tower 2" if towers == 2 else "one tower"
    pictures = [
        html.image(filter_picture(kernel, towers=towers, per_filter=each, scale=1), caption)
        for each, caption in ((False, "One scale for all"), (True, "Each on its own scale"))
    ]
    words = f"The {kernel.shape[-1]} kernels of conv1, {place} (figure 3)."
    # Grey images have no colour axes: what weights do across channels is then left to chance.
    if np.asarray(run.augmentation.deviations)[:2].max() > 1:
        words += (
            f" The share of the weights' energy off the grey axis is {text}; weights without any "
            "preference have 67%. In the paper one tower's kernels are colour-agnostic, the "
            "other's colour-specific."
        )
    return html.section("What the first layer learned", words, html.columns(pictures))


def predictions(
    crops: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    chosen: np.ndarray,
    names: Sequence[str],
    kind: str,
) -> Markup:
    """Images with their most probable labels (figure 4, left)."""
    likely = probabilities[np.arange(len(labels)), labels]
    groups = {
        "Drawn at random": chosen[:4],
        "Least probable true label": np.argsort(likely, kind="stable")[:4],
    }
    figures = [
        html.figure(
            prediction_figure(crops[n], probabilities[n], labels[n], names, columns=2),
            f"Four images with their five most probable labels: {title.lower()}",
            title,
        )
        for title, n in groups.items()
    ]
    return html.section(
        "What it sees",
        html.text(
            "{images}, the true label under each, and the five most probable labels ({key} the "
            "true one). Bars run from 0 to 1 (figure 4, left).",
            images=f"{kind} images".capitalize(),
            key=html.key("true"),
        ),
        html.columns(figures),
    )


def retrieval(
    run: Run,
    images: np.ndarray,
    crops: np.ndarray,
    labels: np.ndarray,
    chosen: np.ndarray,
    gallery: Dataset,
    names: Sequence[str],
    kind: str,
) -> Markup:
    """The nearest training images (figure 4, right)."""
    pixels = np.empty((len(gallery), *crops.shape[1:]), np.uint8)
    gallery_labels = np.empty(len(gallery), np.int32)
    seen = 0

    def batches() -> Iterator[Batch]:
        nonlocal seen
        for batch in eval_batches(gallery, batch_size=BATCH_SIZE):
            real = int(batch["mask"].sum())
            at = slice(seen, seen + real)
            pixels[at] = center_crops(batch["image"][:real], crops.shape[1])
            gallery_labels[at] = batch["label"][:real]
            seen += real
            yield batch

    features = extract_features(run, batches())
    k = min(NEIGHBORS, len(gallery))
    by_features = nearest(extract_features(run, images), features, k).indices
    by_pixels = nearest(crops.reshape(len(crops), -1), pixels.reshape(len(pixels), -1), k).indices
    queries = of_different_classes(labels, chosen)[:QUERIES]
    figures = []
    for title, found in (
        (f"{layers_named(run.model, ())[0]} features", by_features),
        ("raw pixels", by_pixels),
    ):
        precision = retrieval_precision(gallery_labels[found], labels)
        figure = retrieval_figure(
            crops[queries], labels[queries], pixels[found[queries]],
            gallery_labels[found[queries]], names,
        )  # fmt: skip
        caption = f"By {title}: {precision:.1%} of the {k} nearest are of the query's class."
        figures.append(html.figure(figure, caption, caption))
    return html.section(
        "What it finds alike",
        html.text(
            "{images} (left) and the {k} of {gallery:,} training images at the smallest Euclidean "
            "distance (figure 4, right); framed {blue} where the class is the query's, {red} where "
            "it is not. The shares count all {queries:,} as queries.",
            images=f"{kind} images".capitalize(),
            k=k,
            gallery=len(gallery),
            blue=html.key("blue"),
            red=html.key("red"),
            queries=len(labels),
        ),
        html.columns(figures),
    )


def mistakes(
    run: Run, test: Dataset, labels: np.ndarray, probabilities: np.ndarray, names: Sequence[str]
) -> Markup:
    """What is taken for what, and the error off the centre."""
    predicted = probabilities.argmax(-1)
    if len(names) > MOST_CONFUSED:  # those that occur
        occur, both = np.unique(np.concatenate([labels, predicted]), return_inverse=True)
        labels, predicted = np.split(both, [len(labels)])
        names = [names[number] for number in occur]
    matrix = confusion_matrix(labels, predicted, len(names))
    some = sample(test, SHIFTED_IMAGES)
    size = run.model.image_size
    shifts = sorted({round(shift) for shift in np.linspace(0, size / 2, 7)})
    shifted = shift_errors(run, some, shifts, batch_size=BATCH_SIZE)
    confusion = html.svg(confusion_figure(matrix, names), "Confusion matrix", smooth=False)
    shift = html.figure(
        shift_figure(shifted, test.image_size, size),
        "Error against the shift of the crop",
        f"The crop moved off the centre, {len(some):,} images, mean of four directions. "
        "Shaded: the range of the training crops; beyond the image its edge is repeated.",
    )
    worst = [
        [html.named(names[true]), html.named(names[taken]), f"{count:,}"]
        for true, taken, count in worst_confusions(matrix, 5)
    ]
    table = html.table(["most frequent mistakes: true", "predicted", "images"], worst, numbers=1)
    return html.section(
        "Where it errs", "", html.columns([confusion, html.titled("", shift + table)])
    )


def occlusion(
    run: Run,
    images: np.ndarray,
    crops: np.ndarray,
    labels: np.ndarray,
    chosen: np.ndarray,
    names: Sequence[str],
) -> Markup:
    """Where hiding the image costs the most."""
    shown = of_different_classes(labels, chosen)[:5]
    maps = [occlusion_map(run, images[n], int(labels[n])) for n in shown]
    figure = occlusion_figure(crops[shown], maps, labels[shown], names)
    return html.section(
        "Where it looks",
        html.text(
            "A grey square, a quarter of the crop wide, hides one place after the other: {red} "
            "where the true class loses the most probability. Strongest colour: {lost} lost.",
            red=html.key("red"),
            lost=", ".join(f"{occlusion.max():.2f}" for occlusion in maps),
        ),
        html.text(
            '<div style="max-width: 720px">{picture}</div>',
            picture=html.figure(figure, "Occlusion maps of five images"),
        ),
    )


def layers(run: Run) -> Markup:
    """The layer table."""
    table = layer_table(run.model)
    rows = [
        [
            row.name,
            "×".join(map(str, row.output)),
            row.window,
            row.reads,
            row.then,
            *(f"{n:,}" if n else "" for n in (row.parameters, row.neurons, row.macs)),
        ]
        for row in table
    ]
    totals = [
        f"{sum(counts):,}"
        for counts in zip(*((r.parameters, r.neurons, r.macs) for r in table), strict=True)
    ]
    head = [
        "layer", "output", "kernel / stride / pad", "reads", "then", "parameters", "neurons", "MACs"
    ]  # fmt: skip
    return html.section(
        "Layers",
        f"Counts an image, both towers together; input {run.model.image_size} pixels."
        if run.model.towers == 2
        else f"Counts an image; input {run.model.image_size} pixels.",
        html.table(head, [*rows, ["total", "", "", "", "", *totals]], numbers=3, total=True),
    )


def configuration(run: Run) -> Markup:
    """Every field that is set."""
    return html.section("Configuration", "", html.pairs(_flat(run.config)))


def machine(run: Run, metrics: list[dict[str, Any]]) -> Markup:
    """Speed, device and versions."""
    rows: dict[str, Any] = {}
    if speed := speed_of(metrics):
        fastest = max(row["images_per_second"] for row in metrics if row["split"] == "train")
        rows |= {
            "training, median (images/s)": f"{speed:,.1f}",
            "training, best (images/s)": f"{fastest:,.1f}",
            "arithmetic at the median (GFLOP/s)": f"{training_flops(run.model) * speed / 1e9:,.1f}",
        }
    device = jax.devices()[0]
    rows |= {
        "device": f"{jax.device_count()} × {device.device_kind} ({device.platform})",
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        **{name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")},
    }
    return html.section(
        "Speed and environment",
        "The speed is the training's own; device and versions are of the machine that wrote "
        "this page.",
        html.pairs(rows),
    )


def of_different_classes(labels: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Those of the images `chosen` that are the first of their class, in order."""
    _, first = np.unique(labels[chosen], return_index=True)
    return chosen[np.sort(first)]


def last_of_each_split(metrics: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["split"]: row for row in metrics}


def _percents(row: dict[str, Any]) -> list[str]:
    return [f"{100 * row[name]:.2f}" for name in ("top1_error", "top5_error")]


def speed_of(metrics: Sequence[dict[str, Any]]) -> float | None:
    """Median images/s of training."""
    speeds = [row["images_per_second"] for row in metrics if row["split"] == "train"]
    return statistics.median(speeds) if speeds else None


def _flat(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    """The fields that are set, by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            flat |= _flat(value, f"{prefix}{name}.")
        elif value is not None:
            flat[prefix + name] = value
    return flat
