"""Which class is taken for which: the confusion matrix as numbers and as a picture."""

import functools
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from alexnet_jax.files import whole_file
from alexnet_jax.inspect.drawing import COLORS, fonts, new_figure, shorten, style
from alexnet_jax.inspect.names import readable_names
from alexnet_jax.runs.evaluation import Tally
from alexnet_jax.wording import printable

_NAMED, _COUNTED = 40, 20  # the most classes that are named, and whose counts are written


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts int64 [num_classes, num_classes]: row = true label, column = predicted label."""
    matrix = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(matrix, (np.asarray(labels), np.asarray(predicted)), 1)
    return matrix


def worst_confusions(matrix: np.ndarray, count: int) -> list[tuple[int, int, int]]:
    """(true, predicted, images) of the most frequent mistakes, at most `count` of them."""
    mistakes = np.where(np.eye(len(matrix), dtype=bool), 0, matrix)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:count]
    pairs = zip(*np.unravel_index(order, mistakes.shape), strict=True)
    return [(int(i), int(j), int(mistakes[i, j])) for i, j in pairs if mistakes[i, j]]


def draw_confusion(counts: Tally, class_names: Sequence[str], title: str, path: Path) -> None:
    """Draws what was taken for what into a PNG file, which appears whole or not at all."""
    assert counts.confusion is not None
    names = readable_names(class_names)
    figure = confusion_figure(counts.confusion, names, title)
    with style(), whole_file(path, "wb") as file:
        figure.savefig(file, format="png")
    if lacking := fonts(_written(names))[1]:
        _tell(lacking)


@functools.cache
def _tell(lacking: str) -> None:
    """Says once what the pictures show as boxes."""
    told = (
        f"warning: no font here has {shorten(lacking, 40)}, which the picture shows as boxes; "
        "install one that does, such as Noto Sans CJK for Chinese and Japanese"
    )
    print(printable(told, sys.stderr), file=sys.stderr)


def _written(class_names: Sequence[str]) -> str:
    """What is written of the names."""
    few = class_names if len(class_names) <= _NAMED else ()
    return "".join(shorten(name, 16) for name in few)


def confusion_figure(matrix: np.ndarray, class_names: Sequence[str], title: str = "") -> Figure:
    """Each row as shares of its true class; names and counts where there is room for them."""
    count = len(matrix)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    # One colour with the share as its opacity looks right on light and on dark.
    cells = np.empty((count, count, 4))
    cells[..., :3] = to_rgb(COLORS["blue"])
    cells[..., 3] = np.sqrt(shares)  # so that single images are seen
    with style(_written(class_names)):
        figure = new_figure(5, 5)
        axes = figure.subplots()
        axes.set_title(title, fontsize=9)
        # Where a class is smaller than a pixel, pixels are averages.
        axes.imshow(cells, interpolation="none" if count <= _NAMED else "antialiased")
        axes.grid(False)
        axes.set(xlabel="predicted", ylabel="true")
        axes.spines[:].set_visible(True)
        axes.spines[:].set_color(COLORS["line"])
        if count <= _NAMED:
            names = [shorten(name, 16) for name in class_names]
            turned = 90 if max(map(len, names)) > 3 else 0
            axes.set_xticks(range(count), names, rotation=turned)
            axes.set_yticks(range(count), names)
            axes.tick_params(length=0, labelsize=9 if count <= _COUNTED else 5)
        if count <= _COUNTED:
            for i, j in np.argwhere(matrix):
                color = "#ffffff" if shares[i, j] > 0.4 else COLORS["ink"]
                axes.text(j, i, str(matrix[i, j]), ha="center", va="center", color=color)
    return figure
