"""Training as a film: kernels, mistakes and health at the checkpoints that were kept for it."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from tqdm import tqdm

from alexnet_jax.inspect import html
from alexnet_jax.inspect.confusion import confusion_figure, confusion_matrix
from alexnet_jax.inspect.filters import filter_picture
from alexnet_jax.runs.checkpoint import Checkpointer
from alexnet_jax.runs.metrics_log import VITALS, read_metrics
from alexnet_jax.runs.workdir import Run, load_run

MOST_FRAMES, MOST_CLASSES = 16, 40
_SIGNS = {
    "dead": "dead ReLUs",
    "deviation": "deviation",
    "gradient": "gradient",
    "update": "update",
}


class Frame(NamedTuple):
    """One checkpoint.

    Fields:
      step: updates done.
      epoch: passes over the training split.
      words: how many images it gets wrong.
      filters: the first layer's kernels.
      confusion: what is taken for what; empty where there are too many classes to draw.
      health: the vital signs last written before; empty where none were.
    """

    step: int
    epoch: float
    words: str
    filters: Markup
    confusion: Markup
    health: Markup


def film(run: Run, images: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> list[Frame]:
    """A frame for each kept checkpoint, at most `MOST_FRAMES`, evenly; none where fewer than 3 are.

    Args:
      run: from `load_run`.
      images: uint8 [N, S, S, 3], that each checkpoint is asked about, centre crop.
      labels: int [N].
      names: of the classes.
    """
    with Checkpointer(run.workdir / "checkpoints", read_only=True) as checkpoints:
        steps = checkpoints.steps
    if len(steps) < 3:
        return []
    chosen = np.unique(np.linspace(0, len(steps) - 1, MOST_FRAMES).round().astype(int))
    log = read_metrics(run.workdir)
    epochs = next((row["epoch"] / row["step"] for row in reversed(log) if row["step"]), 0.0)
    frames = []
    for step in tqdm([steps[n] for n in chosen], desc="film", disable=None):
        # Else this run, whose compiled prediction serves them all.
        kept = dataclasses.replace(
            run, step=step, state=load_run(run.workdir, which=step, mesh=run.mesh).state
        )
        predicted = kept.predict(images, views="center", batch_size=64).argmax(-1)
        matrix = confusion_matrix(labels, predicted, len(names))
        kernel = np.asarray(kept.params[run.model.layers[0].name]["kernel"])
        picture = filter_picture(kernel, towers=run.model.towers, per_filter=True, scale=1)
        wrong = int((predicted != labels).sum())
        frames.append(
            Frame(
                step,
                step * epochs,
                f"{wrong} of {len(labels):,} images wrong ({wrong / len(labels):.1%})",
                html.image(picture, f"Kernels of {run.model.layers[0].name}"),
                html.svg(confusion_figure(matrix, names), "Confusion matrix", smooth=False)
                if len(names) <= MOST_CLASSES
                else Markup(),
                _health(log, step),
            )
        )
    return frames


def _health(log: Sequence[dict[str, Any]], step: int) -> Markup:
    """The vital signs of every layer at the last look up to `step`."""
    looks = [row for row in log if row["split"] == VITALS and row["step"] <= step]
    if not looks:
        return Markup()
    rows = [
        [layer, *(_figure(signs.get(sign)) for sign in _SIGNS)]
        for layer, signs in looks[-1]["layers"].items()
    ]
    return html.table(["layer", *_SIGNS.values()], rows, numbers=len(_SIGNS))


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
