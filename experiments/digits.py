"""The README's picture: loss and errors of a digits run.

    python -m alexnet_jax.main --workdir runs/
    python -m experiments.digits --workdir=runs/

Writes digits.png, and the run's measurements as digits.jsonl, to the run's folder, or to --output.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
from absl import flags
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imsave

from alexnet_jax.files import local_path
from alexnet_jax.inspect.curves import curves_figure
from alexnet_jax.runs.metrics_log import read_metrics
from experiments import fitting, harness

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", "runs/", "folder of a finished run")
flags.DEFINE_string("output", None, "folder for the picture; default the run's")


def main(_) -> None:
    """Draws the run; with --quick one that takes seconds."""
    if harness.quick():
        with tempfile.TemporaryDirectory() as folder:
            draw(fitting.tiny_run(Path(folder)), harness.results_folder())
    else:
        workdir = local_path(FLAGS.workdir)
        draw(workdir, local_path(FLAGS.output) if FLAGS.output else workdir)


def draw(workdir: Path, output: Path) -> None:
    """Loss and top-1 error side by side."""
    metrics = read_metrics(workdir)
    if not metrics:
        raise ValueError(f"{workdir} holds no measurements (no metrics.jsonl)")
    pictures = []
    for quantity, label in (("loss", "loss (nats)"), ("top1_error", "top-1 error (%)")):
        canvas = FigureCanvasAgg(curves_figure(metrics, quantity, label))
        canvas.figure.set_dpi(110)
        canvas.draw()
        pictures.append(np.asarray(canvas.buffer_rgba())[..., :3])
    output.mkdir(parents=True, exist_ok=True)
    imsave(output / "digits.png", np.ascontiguousarray(np.hstack(pictures)))
    shutil.copy(workdir / "metrics.jsonl", output / "digits.jsonl")
    print(f"{output / 'digits.png'}: loss and error; {output / 'digits.jsonl'}: the log")


if __name__ == "__main__":
    harness.run(main)
