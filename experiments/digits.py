"""The README's picture: loss and errors of a digits run.

    python -m alexnet_jax.main --workdir runs/
    python experiments/digits.py runs/ [FOLDER]

Writes digits.png, and the run's measurements as digits.jsonl, into the run's folder, or into the
one named after it.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imsave

from alexnet_jax.inspect.curves import curves_figure
from alexnet_jax.runs.metrics_log import read_metrics


def main(workdir: Path, output: Path) -> None:
    """Draws the run in `workdir`."""
    metrics = read_metrics(workdir)
    pictures = []
    for quantity, label in (("loss", "loss (nats)"), ("top1_error", "top-1 error (%)")):
        canvas = FigureCanvasAgg(curves_figure(metrics, quantity, label))
        canvas.figure.set_dpi(110)
        canvas.draw()
        pictures.append(np.asarray(canvas.buffer_rgba())[..., :3])
    imsave(output / "digits.png", np.ascontiguousarray(np.hstack(pictures)))
    shutil.copy(workdir / "metrics.jsonl", output / "digits.jsonl")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[-1]))
