"""What the network sees in an image, and figure 4 (left): the five most probable labels."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from alexnet_jax.data.batches import eval_batches
from alexnet_jax.data.images import ImageError
from alexnet_jax.data.sets import Dataset
from alexnet_jax.eval_step import make_eval_step
from alexnet_jax.inspect.drawing import COLORS, new_figure, shorten, show_image, style
from alexnet_jax.inspect.files import image_files, read_images
from alexnet_jax.inspect.names import readable_names
from alexnet_jax.runs.workdir import Run


class Prediction(NamedTuple):
    """One image's classes.

    Fields:
      file: the image.
      classes: (class name, probability) of the most probable, in falling order.
    """

    file: Path
    classes: list[tuple[str, float]]


def predict_files(
    run: Run,
    files: Sequence[str | Path],
    *,
    views: str | None = None,
    top: int = 5,
    batch_size: int = 32,
) -> Iterator[Prediction | ImageError]:
    """For each image in order its most probable classes, or what is wrong with the file.

    Args:
      run: from `load_run`.
      files: images and folders of images.
      views: as in `Run.predict`.
      top: classes an image.
      batch_size: images at a time.

    Raises:
      ValueError: nothing is named, or a folder holds no image.
    """
    names = readable_names(run.class_names)
    found = image_files(files)
    for batch in read_images(found, run.config.stored_size, batch_size=batch_size):
        good = [image for _, image in batch if not isinstance(image, ImageError)]
        if good:
            probabilities = iter(run.predict(np.stack(good), views=views, batch_size=batch_size))
        for file, image in batch:
            if isinstance(image, ImageError):
                yield image
                continue
            row = next(probabilities)
            best = np.argsort(-row, kind="stable")[:top]
            yield Prediction(file, [(names[c], float(row[c])) for c in best])


def shift_errors(
    run: Run, dataset: Dataset, shifts: Sequence[int], *, batch_size: int = 64
) -> list[dict[str, float]]:
    """Errors of the centre crop when it is moved off the centre, one entry a shift.

    Each is the mean over moving it up, down, left and right by `shift` pixels of the stored
    image. What would lie outside repeats the image's edge. The mean image stays where it is.

    Returns:
      {"shift", "top1_error", "top5_error"} a shift; errors are shares.

    Source: AlexNet §6.1 (even off-centre objects are recognised).
    """
    step = make_eval_step(run.model, run.augmentation)
    errors = {shift: np.zeros(2) for shift in shifts}
    for batch in eval_batches(dataset, batch_size=batch_size):
        for shift in shifts:
            moves = {(shift, 0), (-shift, 0), (0, shift), (0, -shift)}
            for move in moves:
                sums = step(run.state, {**batch, "image": moved(batch["image"], *move)})
                error = np.array([sums["top1_error"], sums["top5_error"]])
                errors[shift] += error / len(moves) / len(dataset)
    return [
        {"shift": shift, "top1_error": float(top1), "top5_error": float(top5)}
        for shift, (top1, top5) in errors.items()
    ]


def moved(images: np.ndarray, down: int, right: int) -> np.ndarray:
    """The images [B, S, S, 3] seen by a window moved so many pixels; edges are repeated."""
    places = np.arange(images.shape[1])
    rows, columns = (np.clip(places + by, 0, len(places) - 1) for by in (down, right))
    return images[:, rows][:, :, columns]


def prediction_figure(
    images: np.ndarray,
    probabilities: np.ndarray,
    labels: Sequence[int] | None,
    class_names: Sequence[str],
    *,
    columns: int = 4,
    top: int = 5,
) -> Figure:
    """Images with their most probable labels as bars from 0 to 1, the highest on top.

    Args:
      images: uint8 [N, H, W, 3].
      probabilities: float [N, num_classes].
      labels: the true classes, written under the images, their bars marked; None: unknown.
      class_names: one a class.
      columns: images in a row.
      top: bars an image.

    Source: AlexNet figure 4 (left); the bars' scale and marks are the authors' code's.
    """
    top = min(top, len(class_names))
    rows = -(-len(images) // columns)
    with style():
        figure = new_figure(2.5 * columns, (1.85 + 0.19 * top) * rows)
        figure.set_layout_engine("constrained", wspace=0.08)
        cells = figure.subplots(
            2 * rows,
            columns,
            squeeze=False,
            height_ratios=[1.55, 0.19 * top] * rows,
        )
        for cell in cells.flat:
            cell.set_axis_off()
        places = itertools.product(range(rows), range(columns))
        for n, (row, column) in zip(range(len(images)), places, strict=False):
            picture, bars = cells[2 * row, column], cells[2 * row + 1, column]
            show_image(picture, images[n])
            best = np.argsort(-probabilities[n], kind="stable")[:top]
            true = None if labels is None else int(labels[n])
            if true is not None:
                title = shorten(class_names[true], 26)
                picture.set_title(title, y=-0.02, va="top", pad=0, weight="bold", fontsize=9.5)
            _draw_bars(bars, probabilities[n][best], best, true, class_names)
    return figure


def _draw_bars(axes, values, classes, true, class_names):
    colors = [COLORS["true" if c == true else "bar"] for c in classes]
    places = np.arange(len(classes))
    axes.barh(places, values, height=0.82, color=colors)
    axes.set(xlim=(0, 1), ylim=(len(classes) - 0.5, -0.5))
    axes.axvline(0, color=COLORS["muted"], linewidth=1)
    for place, value, c in zip(places, values, classes, strict=True):
        axes.text(0.02, place, shorten(class_names[c], 24), va="center", fontsize=8)
        axes.text(1.0, place, f"{value:.2f}", va="center", ha="right", fontsize=7.5)


def shift_figure(errors: Sequence[dict[str, float]], stored_size: int, image_size: int) -> Figure:
    """Error against the shift of the crop, in pixels; the band is the training crops' range."""
    with style():
        figure = new_figure(5, 3)
        axes = figure.subplots()
        shifts = [row["shift"] for row in errors]
        margin = (stored_size - image_size) // 2
        if margin:
            axes.axvspan(0, margin, color=COLORS["line"], alpha=0.5, linewidth=0)
        for name, color, label in (
            ("top1_error", COLORS["blue"], "top-1"),
            ("top5_error", COLORS["orange"], "top-5"),
        ):
            axes.plot(
                shifts, [100 * row[name] for row in errors], "o-", ms=3.5, color=color, label=label
            )
        axes.set(
            xlabel=f"crop moved off the centre by (pixels of {image_size})",
            ylabel="error (%)",
            xlim=(0, max(shifts)),
            ylim=(0, None),
        )
        axes.legend()
    return figure
