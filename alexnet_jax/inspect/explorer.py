"""A page to walk through a trained network: layers, units, and what they answer to.

Links alone move one about in it, so that it needs no script: a unit or an image is the target of
the page's address, and what is not the target is hidden.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from alexnet_jax.activations import Outputs
from alexnet_jax.data.batches import padded_batches
from alexnet_jax.data.cache import cached
from alexnet_jax.data.records import Batch
from alexnet_jax.files import whole_file
from alexnet_jax.inspect import html, sections
from alexnet_jax.inspect.files import image_files, read_images
from alexnet_jax.inspect.film import film
from alexnet_jax.inspect.filters import filter_pictures, spectra
from alexnet_jax.inspect.names import readable_names
from alexnet_jax.inspect.photographs import Distances, photograph_rows
from alexnet_jax.inspect.pictures import Cut, Pictures
from alexnet_jax.inspect.samples import Looked, sample, split_of
from alexnet_jax.inspect.units import Strongest, strongest
from alexnet_jax.inspect.visualisation import visualise
from alexnet_jax.models.layer_table import Row, layer_table
from alexnet_jax.models.network import LayeredNetwork
from alexnet_jax.models.receptive import ReceptiveField, receptive_fields
from alexnet_jax.runs.workdir import Run

PATCHES, PHOTOS = 9, 10
_FIGURE_HEIGHT = 190  # of the image in figure 2; the maps are to the same scale
_WIDTH_OF_A_MAP = 0.15


def write_explorer(
    run: Run,
    output: Path,
    *,
    photos: Sequence[str | Path] = (),
    data_dir: str | None = None,
    examples: int = 1000,
    units: int = 48,
    visualised: int = 4,
    classes_by_position: bool = False,
) -> None:
    """Writes the page about `run` to `output`, whole or not at all.

    Args:
      run: from `load_run`.
      output: the HTML file.
      photos: files and folders of images to look at; none: some of the test split.
      data_dir: tfds data_dir that holds the run's data set; None: where the run found it.
      examples: most test images that are searched for what a unit answers to.
      units: most units to show of a layer, spread evenly over each tower.
      visualised: of how many of them an image is made that activates them most.
      classes_by_position: class n of the data is the run's class n, whatever its name.

    Raises:
      ValueError: the data set is not there or has other classes, or a photo cannot be read.
    """
    split = run.config.test_split or run.config.validation_split
    test = split_of(run, split, data_dir=data_dir, classes_by_position=classes_by_position)
    data = cached(sample(test, examples), "host")
    batch = data.source.read(np.arange(len(data)))
    labels = np.asarray(batch["label"])
    searched = _looked(run, np.asarray(batch["image"]), labels)
    if photos:
        chosen = _looked(run, _photos(run, photos))
    else:
        order = np.random.default_rng(0).permutation(len(labels))
        some = sections.of_different_classes(labels, order)[:PHOTOS]
        chosen = Looked(*(part[some] for part in searched))
    page = build_explorer(run, searched, chosen, units=units, visualised=visualised)
    with whole_file(output) as file:
        file.write(page)


def _looked(run: Run, images: np.ndarray, labels: np.ndarray | None = None) -> Looked:
    return Looked(images, sections.center_crops(images, run.model.image_size), labels)


def _photos(run: Run, paths: Sequence[str | Path]) -> np.ndarray:
    """The user's own images as the run's are stored.

    Raises:
      ValueError: one cannot be read.
    """
    files = image_files(paths)
    if len(files) > PHOTOS:
        print(f"{len(files)} images are given; the first {PHOTOS} are looked at")
    found = []
    for _, image in next(read_images(files[:PHOTOS], run.config.stored_size, batch_size=PHOTOS)):
        if isinstance(image, Exception):
            raise ValueError(str(image)) from image
        found.append(image)
    return np.stack(found)


def build_explorer(
    run: Run, searched: Looked, chosen: Looked, *, units: int = 48, visualised: int = 4
) -> str:
    """The page as HTML that needs no script, no other file and no network.

    Args:
      run: from `load_run`.
      searched: labelled images in which units find what they answer to.
      chosen: images that are looked at one by one.
      units: most units to show of a layer.
      visualised: of how many of them an image is made that activates them most.
    """
    rows = [row for row in layer_table(run.model) if row.parameters]
    names = readable_names(run.class_names)
    outputs = [f"{row.name}.linear" for row in rows]  # as they are before any operation
    compared = [row.name for row in rows]  # as they are after all: what the next layer reads
    peaks: dict[str, list[np.ndarray]] = {output: [] for output in outputs}
    maps = run.features(chosen.images, outputs + compared)
    distances = Distances({layer: maps[layer] for layer in compared})
    parts = run.features_of_batches(_batches(searched), outputs + compared)
    best = strongest(_noting(parts, peaks, distances), PATCHES)
    fields = receptive_fields(run.model)
    pictures = Pictures(run.model.image_size)
    layers = []
    for row, output in zip(rows, outputs, strict=True):
        towers = _towers(run.model, row)
        shown = _spread(row.output[-1], towers, units)
        answers = np.concatenate(peaks[output])[:, shown]
        kernel = np.asarray(run.params[row.name]["kernel"])[..., shown]
        first = row is rows[0]
        shows = {
            "patches": [
                _patches(pictures, best[output], unit, searched, fields[output]) for unit in shown
            ],
            "kernel": pictures.column(filter_pictures(kernel, per_filter=True)) if first else None,
            "spectrum": pictures.column(spectra(kernel)) if kernel.ndim == 4 else None,
            "answers": _answers(answers, searched.labels, names),
            "made": _made(run, output, shown, answers, searched.labels, visualised, pictures),
            "maps": _maps(maps[output], shown, pictures),
        }
        described = [
            {"number": int(unit), "tower": int(unit) * towers // row.output[-1]}
            | {name: part and part[n] for name, part in shows.items()}
            for n, unit in enumerate(shown)
        ]
        layers.append({"row": row, "field": fields[output], "towers": towers, "units": described})
    photos = photograph_rows(run, searched, chosen, distances, names, pictures)
    return html.page(
        "explorer.html",
        title=f"Inside AlexNet on {run.config.dataset}",
        views={"ten": "ten views", "center": "centre"}[run.views],
        network=sections.network_in_words(run),
        searched=len(searched.images),
        figure=figure_2(run.model, rows),
        layers=layers,
        photos=photos,
        film=film(run, searched.images, searched.labels, names),
        sheet=pictures.css(),
    )


def _noting(
    parts: Iterable[Outputs], peaks: dict[str, list[np.ndarray]], distances: Distances
) -> Iterator[Outputs]:
    """The outputs in `peaks`, whose highest values of each image, [n, C], are put there.

    How far each image is from the chosen ones is put into `distances`.
    """
    for part in parts:
        distances.add(part)
        searched = {name: part[name] for name in peaks}
        for name, maps in searched.items():
            peaks[name].append(maps.max((1, 2)) if maps.ndim == 4 else maps)
        yield searched


def _batches(looked: Looked) -> Iterable[Batch]:
    """The images in batches, with a bar on a terminal."""
    total = -(-len(looked.images) // sections.BATCH_SIZE)
    batches = padded_batches(looked.images, sections.BATCH_SIZE)
    return tqdm(batches, desc="units", total=total, unit=" batches", disable=None)


def _towers(model: LayeredNetwork, row: Row) -> int:
    """Into how many the layer's units are shared out; those of the last are the classes."""
    return 1 if row.name == model.layers[-1].name else model.towers


def _spread(units: int, towers: int, most: int) -> np.ndarray:
    """Numbers of units, as many of each tower, evenly spread: of 96 and 8 each twelfth."""
    each, shown = units // towers, min(max(most // towers, 1), units // towers)
    inside = np.arange(shown) * each // shown
    return np.concatenate([tower * each + inside for tower in range(towers)])


def _maps(maps: np.ndarray, shown: np.ndarray, pictures: Pictures) -> list[list[Cut]]:
    """Of each unit its map on each image, of [P, H, W, C] or [P, C]; its strongest is white."""
    maps = maps if maps.ndim == 4 else maps[:, None, None]
    found = np.maximum(maps[..., shown].transpose(3, 0, 1, 2), 0)
    most = found.max((1, 2, 3), keepdims=True)
    tiles = np.round(255 * found / np.maximum(most, 1e-12)).astype(np.uint8)
    sheet = pictures.sheet(tiles)
    return [[Cut(sheet, -p, -n, len(maps)) for p in range(len(maps))] for n in range(len(shown))]


def _answers(peaks: np.ndarray, labels: Any, names: Sequence[str]) -> list[list[str]]:
    """Of each unit the three classes whose images activate it most, as means of [N, units]."""
    present = np.unique(labels)
    means = np.stack([peaks[labels == label].mean(0) for label in present])
    order = np.argsort(-means, axis=0, kind="stable")[:3]
    return [[names[present[n]] for n in column] for column in order.T]


def _made(
    run: Run,
    output: str,
    shown: np.ndarray,
    peaks: np.ndarray,
    labels: Any,
    count: int,
    pictures: Pictures,
) -> list[tuple[Cut, float] | None]:
    """For the units that tell the classes apart best an image made for it, and its activation.

    That is where the classes' means differ most for the spread inside the classes, of `peaks`
    [N, units].
    """
    if count == 0:
        return [None] * len(shown)
    present = [peaks[labels == label] for label in np.unique(labels)]
    between = np.var([part.mean(0) for part in present], axis=0)
    within = np.mean([part.var(0) for part in present], axis=0)
    chosen = np.sort(np.argsort(-between / np.maximum(within, 1e-12), kind="stable")[:count])
    images, values = visualise(run, output, shown[chosen])
    cuts = pictures.column(images)
    found: list[tuple[Cut, float] | None] = [None] * len(shown)
    for n, unit in enumerate(chosen):
        found[unit] = cuts[n], float(values[n])
    return found


def _patches(
    pictures: Pictures, best: Strongest, unit: int, searched: Looked, field: ReceptiveField
) -> list[tuple[Cut, float]]:
    """What the unit saw where it answered most, and its answers; black is beyond the image."""
    found = []
    for value, image, place in zip(
        best.values[unit], best.images[unit], best.places[unit], strict=True
    ):
        picture = pictures.image(f"i{image}", searched.crops[image])
        row, column = (field.start + int(at) * field.stride for at in place)
        zoom = searched.crops.shape[1] / field.size
        found.append((Cut(picture, -column / field.size, -row / field.size, zoom), float(value)))
    return found


def figure_2(model: LayeredNetwork, rows: Sequence[Row]) -> dict[str, Any]:
    """Figure 2: boxes (x, y, width, height, layer) and lines (x, y, x, y) of what is read.

    A map's side is to the image's scale; a full connection is as high as a square of its units.
    """
    scale = _FIGURE_HEIGHT / model.image_size
    towers = model.towers
    middles = [_FIGURE_HEIGHT * (tower + 0.5) / towers for tower in range(towers)]
    boxes: list[tuple[float, float, float, float, str]] = []
    x = _FIGURE_HEIGHT * 0.12  # the image is as wide as it is thick in figure 2
    boxes.append((0.0, 0.0, x, 1.0 * _FIGURE_HEIGHT, ""))
    lines, labels = [], [(x / 2, "image")]
    before = [(x, middle) for middle in middles]
    for row in rows:
        own = _towers(model, row)
        units = row.output[-1] // own
        side = row.output[0] if len(row.output) == 3 else units**0.5
        height = max(side * scale, 10)
        width = max(units * _WIDTH_OF_A_MAP, 8) if len(row.output) == 3 else 8
        x += 34
        ends = middles if own > 1 else [_FIGURE_HEIGHT / 2]
        for number, y in enumerate(ends):
            boxes.append((x, y - height / 2, width, height, row.name))
            for tower, (left, from_y) in enumerate(before):
                if row.reads != "own" or tower == number or own < len(before):
                    lines.append((left, from_y, x, y))
        labels.append((x + width / 2, row.name))
        before = [(x + width, y) for y in ends]
        x += width
    return {
        "width": round(x + 20),
        "height": _FIGURE_HEIGHT,
        "boxes": boxes,
        "lines": lines,
        "labels": labels,
    }
