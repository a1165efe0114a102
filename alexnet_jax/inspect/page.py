"""The report page: what a run is, what it learned and where it errs, in one HTML file."""

import base64
import os
import platform
import statistics
from collections.abc import Sequence
from html import escape
from importlib import metadata, resources
from pathlib import Path
from string import Template
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from tqdm import tqdm

from alexnet_jax.augment import view_offsets
from alexnet_jax.data.batches import eval_batches
from alexnet_jax.data.cache import cached
from alexnet_jax.data.sets import Dataset, open_dataset
from alexnet_jax.inspect import drawing, paper
from alexnet_jax.inspect.confusion import confusion_figure, confusion_matrix, worst_confusions
from alexnet_jax.inspect.curves import curves_figure, read_metrics
from alexnet_jax.inspect.features import extract_features
from alexnet_jax.inspect.filters import color_shares, filter_picture
from alexnet_jax.inspect.names import readable_names
from alexnet_jax.inspect.predictions import (
    default_views,
    predict,
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
from alexnet_jax.runs.workdir import Run

# What becomes of `drawing.COLORS` on a dark page.
DARK_COLORS = {
    "ink": "#e6eaef",
    "muted": "#96a0ac",
    "line": "#2c343e",
    "blue": "#7ea2f5",
    "red": "#f0788f",
    "orange": "#e6a24b",
    "green": "#62c08c",
    "bar": "#3b4f86",
    "true": "#8f3a48",
}

BATCH_SIZE = 64
NEIGHBORS = 6
QUERIES = 5
SHIFTED_IMAGES = 200
KINDS = {
    "validation": "validation, centre",
    "test": "test, centre",
    "test_ten_views": "test, ten views",
}


def write_report(
    run: Run,
    output: Path,
    *,
    data_dir: str | None = None,
    images: int = 1000,
    gallery: int = 10_000,
) -> None:
    """Writes the page about `run` to `output`, whole or not at all.

    Args:
      run: from `load_run`.
      output: the HTML file.
      data_dir: tfds data_dir that holds the run's data set; None: where the run found it.
      images: most test images to look at.
      gallery: most training images to search for neighbours.

    Raises:
      ValueError: the data set is not there, or has other classes.
    """
    config = run.config

    def open_split(split: str) -> Dataset:
        dataset = open_dataset(
            config.dataset,
            split,
            data_dir=data_dir or config.data_dir,
            stored_size=config.stored_size,
        )
        if dataset.class_names != run.class_names:
            raise ValueError(
                f"{dataset.name} has other classes than the run in {run.workdir} "
                f"({dataset.num_classes} and {len(run.class_names)}); name the data set it was "
                "trained on with --data_dir"
            )
        return dataset

    test = open_split(config.test_split or config.validation_split)
    page = build_page(
        run,
        cached(sample(test, images), "host"),
        sample(open_split(config.train_split), gallery),
    )
    part = output.with_name(output.name + ".part")
    part.write_text(page, encoding="utf-8")
    os.replace(part, output)


def build_page(run: Run, test: Dataset, gallery: Dataset) -> str:
    """The page as HTML that needs no other file and no network.

    Args:
      run: from `load_run`.
      test: labelled images, held in memory, that the pictures are made of.
      gallery: training images, searched for neighbours.
    """
    metrics = read_metrics(run.workdir)
    names = readable_names(run.class_names)
    batch = test.source.read(np.arange(len(test)))
    images, labels = np.asarray(batch["image"]), np.asarray(batch["label"])
    probabilities = predict(run, images, views="center", batch_size=BATCH_SIZE)
    crops = center_crops(images, run.model.image_size)
    chosen = np.random.default_rng(0).permutation(len(labels))

    parts = {
        "curves": lambda: _curves(metrics),
        "errors": lambda: _errors(run, metrics),
        "filters": lambda: _filters(run),
        "predictions": lambda: _predictions(crops, labels, probabilities, chosen, names),
        "retrieval": lambda: _retrieval(run, images, crops, labels, chosen, gallery, names),
        "mistakes": lambda: _mistakes(run, test, labels, probabilities, names),
        "occlusion": lambda: _occlusion(run, images, crops, labels, chosen, names),
        "layers": lambda: _layers(run),
        "configuration": lambda: _configuration(run),
        "machine": lambda: _machine(run, metrics),
    }
    sections = [build() for build in tqdm(parts.values(), desc="report", disable=None)]
    light, dark = (
        "\n".join(f"  --{name}: {color};" for name, color in colors.items())
        for colors in (drawing.COLORS, DARK_COLORS)
    )
    page = Template((resources.files(__package__) / "page.html").read_text())
    return page.substitute(
        title=escape(f"AlexNet on {run.config.dataset}"),
        subtitle=_subtitle(run, test),
        tiles=_tiles(run, metrics),
        sections="\n".join(sections),
        footer="Written by <code>python -m alexnet_jax.report</code>.",
        light=light,
        dark=dark,
    )


def center_crops(images: np.ndarray, size: int) -> np.ndarray:
    """The pixels [N, size, size, 3] that the centre view is cut from: uint8 [N, S, S, 3]."""
    top, left = view_offsets(images.shape[1] - size)[2]
    return images[:, top : top + size, left : left + size]


def _subtitle(run: Run, test: Dataset) -> str:
    return (
        f"The <code>{escape(run.config.preset)}</code> network in "
        f"<code>{escape(str(run.workdir))}</code>, checkpoint of step {run.step:,}. "
        f"Pictures and counts below are of {len(test):,} images of the "
        f"<code>{escape(test.split)}</code> split, centre crop, unless they say otherwise."
    )


def _tiles(run: Run, metrics: Sequence[dict[str, Any]]) -> str:
    measured = _last_of_each_split(metrics)
    tiles = []
    preferred = ["test_ten_views", "test", "validation"]
    if default_views(run) == "center":
        preferred.remove("test_ten_views")
    split = next((split for split in preferred if split in measured), None)
    if split:
        row, kind = measured[split], KINDS[split]
        tiles += [
            (f"{100 * row['top1_error']:.1f}", "%", f"top-1 error ({kind})"),
            (f"{100 * row['top5_error']:.1f}", "%", f"top-5 error ({kind})"),
        ]
    table = layer_table(run.model)
    tiles.append((f"{sum(row.parameters for row in table) / 1e6:.1f}", "M", "parameters"))
    if speed := _speed(metrics):
        tiles.append((f"{speed:,.0f}", "images/s", "training, median"))
    if metrics:
        tiles.append((f"{max(row['epoch'] for row in metrics):,.0f}", "", "epochs"))
    return "\n".join(
        f'<div class="tile"><b>{value} <small>{unit}</small></b><span>{what}</span></div>'
        for value, unit, what in tiles
    )


def _curves(metrics: list[dict[str, Any]]) -> str:
    if not any(row["split"] == "train" for row in metrics):
        return _section("Training", "This run has no measurements yet.")
    figures = [
        _figure(curves_figure(metrics, "loss", "loss (nats)"), "Loss against epoch"),
        _figure(
            curves_figure(metrics, "top1_error", "top-1 error (%)"), "Top-1 error against epoch"
        ),
    ]
    return _section(
        "Training",
        "Training figures are of augmented images with dropout, so they may lie above the "
        "validation's. Dotted rules: the learning rate changes.",
        _columns(figures),
    )


def _errors(run: Run, metrics: list[dict[str, Any]]) -> str:
    measured = _last_of_each_split(metrics)
    own = [
        [kind, f"{row['loss']:.3f}", *_percents(row)]
        for split, kind in KINDS.items()
        if (row := measured.get(split))
    ]
    here = _table(["split", "loss", "top-1", "top-5"], own, numbers=3, own=len(own))
    first = [[row.model, f"{row.top1:.1f}", f"{row.top5:.1f}"] for row in paper.TABLE_1]
    second = [
        [row.model, *("–" if value is None else f"{value:.1f}" for value in row[1:])]
        for row in paper.TABLE_2
    ]
    splits = f"Validation here is <code>{escape(run.config.validation_split)}</code>"
    if run.config.test_split:
        splits += f", test <code>{escape(run.config.test_split)}</code>"
    table_2_head = ["model", "top-1 val", "top-5 val", "top-5 test"]
    tables = [
        f"<div><h3>This run, {escape(run.config.dataset)}</h3>{here}</div>",
        "<div><h3>Paper, table 1: ILSVRC-2010 test</h3>"
        f"{_table(['model', 'top-1', 'top-5'], first, numbers=2)}</div>",
        f"<div><h3>Paper, table 2: ILSVRC-2012</h3>{_table(table_2_head, second, numbers=3)}</div>",
    ]
    return _section(
        "Errors beside the paper's",
        "In percent. Only figures on the same data compare. CNNs: averages of that many networks; "
        f"*: pre-trained on the whole Fall 2011 release. {splits}.",
        _columns(tables, narrow=True),
    )


def _filters(run: Run) -> str:
    kernel, towers = np.asarray(run.state.params["conv1"]["kernel"]), run.model.towers
    shares = color_shares(kernel, towers=towers)
    text = " and ".join(f"{share:.0%}" for share in shares)
    place = "tower 1 above tower 2" if towers == 2 else "one tower"
    pictures = [
        _image(filter_picture(kernel, towers=towers, per_filter=each, scale=1), caption)
        for each, caption in ((False, "One scale for all"), (True, "Each on its own scale"))
    ]
    return _section(
        "What the first layer learned",
        f"The {kernel.shape[-1]} kernels of conv1, {place} (figure 3). The share of the weights' "
        f"energy off the grey axis is {text}; weights without any preference have 67%. "
        "In the paper one tower's kernels are colour-agnostic, the other's colour-specific.",
        _columns(pictures),
    )


def _predictions(crops, labels, probabilities, chosen, names) -> str:
    likely = probabilities[np.arange(len(labels)), labels]
    groups = {
        "Drawn at random": chosen[:4],
        "Least probable true label": np.argsort(likely, kind="stable")[:4],
    }
    figures = [
        _figure(
            prediction_figure(crops[n], probabilities[n], labels[n], names, columns=2),
            f"Four images with their five most probable labels: {title.lower()}",
            title,
        )
        for title, n in groups.items()
    ]
    return _section(
        "What it sees",
        f"Test images, the true label under each, and the five most probable labels "
        f"({_key('true')} the true one). Bars run from 0 to 1 (figure 4, left).",
        _columns(figures),
    )


def _retrieval(run, images, crops, labels, chosen, gallery, names) -> str:
    pixels = np.empty((len(gallery), *crops.shape[1:]), np.uint8)
    gallery_labels = np.empty(len(gallery), np.int32)
    seen = 0

    def batches():
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
    queries = _of_different_classes(labels, chosen)[:QUERIES]
    figures = []
    for title, found in (("fc7 features", by_features), ("raw pixels", by_pixels)):
        precision = retrieval_precision(gallery_labels[found], labels)
        figure = retrieval_figure(
            crops[queries], labels[queries], pixels[found[queries]],
            gallery_labels[found[queries]], names,
        )  # fmt: skip
        caption = f"By {title}: {precision:.1%} of the {k} nearest are of the query's class."
        figures.append(_figure(figure, caption, caption))
    return _section(
        "What it finds alike",
        f"Test images (left) and the {k} of {len(gallery):,} training images at the smallest "
        f"Euclidean distance (figure 4, right); framed {_key('blue')} where the class is the "
        f"query's, {_key('red')} where it is not. The shares count all {len(labels):,} test "
        "images as queries.",
        _columns(figures),
    )


def _mistakes(run: Run, test: Dataset, labels, probabilities, names) -> str:
    matrix = confusion_matrix(labels, probabilities.argmax(-1), len(names))
    some = sample(test, SHIFTED_IMAGES)
    size = run.model.image_size
    shifts = sorted({round(shift) for shift in np.linspace(0, size / 2, 7)})
    shifted = shift_errors(run, some, shifts, batch_size=BATCH_SIZE)
    confusion = drawing.svg(confusion_figure(matrix, names), "Confusion matrix", smooth=False)
    shift = _figure(
        shift_figure(shifted, test.image_size, size),
        "Error against the shift of the crop",
        f"The crop moved off the centre, {len(some):,} images, mean of four directions. "
        "Shaded: the range of the training crops; beyond the image its edge is repeated.",
    )
    worst = [
        [names[true], names[taken], f"{count:,}"]
        for true, taken, count in worst_confusions(matrix, 5)
    ]
    table = _table(["most frequent mistakes: true", "predicted", "images"], worst, numbers=1)
    return _section("Where it errs", "", _columns([confusion, f"<div>{shift}{table}</div>"]))


def _occlusion(run: Run, images, crops, labels, chosen, names) -> str:
    shown = _of_different_classes(labels, chosen)[:5]
    maps = [occlusion_map(run, images[n], int(labels[n])) for n in shown]
    figure = occlusion_figure(crops[shown], maps, labels[shown], names)
    return _section(
        "Where it looks",
        f"A grey square, a quarter of the crop wide, hides one place after the other: "
        f"{_key('red')} where the true class loses the most probability. Strongest colour: "
        f"{', '.join(f'{occlusion.max():.2f}' for occlusion in maps)} lost.",
        f'<div style="max-width: 720px">{_figure(figure, "Occlusion maps of five images")}</div>',
    )


def _layers(run: Run) -> str:
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
    return _section(
        "Layers",
        f"Counts an image, both towers together; input {run.model.image_size} pixels."
        if run.model.towers == 2
        else f"Counts an image; input {run.model.image_size} pixels.",
        _table(head, [*rows, ["total", "", "", "", "", *totals]], numbers=3, total=True),
    )


def _configuration(run: Run) -> str:
    return _section("Configuration", "", _pairs(_flat(run.config)))


def _machine(run: Run, metrics: list[dict[str, Any]]) -> str:
    rows: dict[str, Any] = {}
    if speed := _speed(metrics):
        # Forward, and backward twice as much, without the gradient of the image.
        table = layer_table(run.model)
        macs = 3 * sum(row.macs for row in table) - table[0].macs
        fastest = max(row["images_per_second"] for row in metrics if row["split"] == "train")
        rows |= {
            "training, median (images/s)": f"{speed:,.1f}",
            "training, best (images/s)": f"{fastest:,.1f}",
            "arithmetic at the median (GFLOP/s)": f"{2 * macs * speed / 1e9:,.1f}",
        }
    device = jax.devices()[0]
    rows |= {
        "device": f"{jax.device_count()} × {device.device_kind} ({device.platform})",
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        **{name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")},
    }
    return _section(
        "Speed and environment",
        "The speed is the training's own; device and versions are of the machine that wrote "
        "this page.",
        _pairs(rows),
    )


def _of_different_classes(labels: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Those of the images `chosen` that are the first of their class, in order."""
    _, first = np.unique(labels[chosen], return_index=True)
    return chosen[np.sort(first)]


def _last_of_each_split(metrics: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["split"]: row for row in metrics}


def _percents(row: dict[str, Any]) -> list[str]:
    return [f"{100 * row[name]:.2f}" for name in ("top1_error", "top5_error")]


def _speed(metrics: Sequence[dict[str, Any]]) -> float | None:
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


def _section(title: str, text: str, *content: str) -> str:
    paragraph = f"<p>{text}</p>" if text else ""
    return f"<section><h2>{title}</h2>{paragraph}{''.join(content)}</section>"


def _columns(parts: Sequence[str], narrow: bool = False) -> str:
    return f'<div class="columns{" narrow" if narrow else ""}">{"".join(parts)}</div>'


def _figure(figure: Figure, label: str, caption: str = "") -> str:
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{drawing.svg(figure, label)}{below}</figure>"


def _image(pixels: np.ndarray, caption: str) -> str:
    data = base64.b64encode(drawing.png(pixels)).decode()
    return (
        f'<figure><img class="pixels" alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _key(color: str) -> str:
    """A patch of colour, to name it in a sentence."""
    return f'<span class="key" style="background: var(--{color})"></span>'


def _table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numbers: int,
    own: int = 0,
    total: bool = False,
) -> str:
    """A table whose last `numbers` columns are numbers; the first `own` rows stand out."""

    def line(tag: str, cells: Sequence[str]) -> str:
        words = len(cells) - numbers
        return "".join(
            f"<{tag}{' class=n' if n >= words else ''}>{escape(cell)}</{tag}>"
            for n, cell in enumerate(cells)
        )

    body = []
    for n, row in enumerate(rows):
        kind = " class=own" if n < own else " class=total" if total and n == len(rows) - 1 else ""
        body.append(f"<tr{kind}>{line('td', row)}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr>{line("th", head)}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _pairs(rows: dict[str, Any]) -> str:
    items = (
        f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>"
        for name, value in rows.items()
    )
    return f"<dl>{''.join(items)}</dl>"
