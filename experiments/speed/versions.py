"""The digits recipe as another version of this library trains it, and as this one does.

    python -m experiments.speed.versions --other=FOLDER

FOLDER is a checkout of that version (`git worktree add FOLDER COMMIT`); it runs with the packages
installed here. Each turn is the whole training command in a process of its own: its start, with
programs compiled before, the training, and the test at the end. Writes
results/versions_PLATFORM.json.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import jax
from absl import flags

from alexnet_jax.files import local_path
from experiments import harness, provenance

FLAGS = flags.FLAGS
flags.DEFINE_string("other", None, "a checkout of another version; this one where none is given")
flags.DEFINE_integer("turns", 3, "counted turns of each")
ROOT = Path(__file__).parents[2]


def main(_) -> None:
    """Measures, prints and writes."""
    other = local_path(FLAGS.other) if FLAGS.other else ROOT
    if not (other / "alexnet_jax" / "main.py").exists():
        raise ValueError(f"{other} is no checkout of this library; give --other=FOLDER")
    harness.shorten(turns=1)
    folders = {"this": ROOT, "other": other}
    seconds = harness.interleaved(
        {name: partial(train, folder) for name, folder in folders.items()}, turns=FLAGS.turns
    )
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    pairs = zip(seconds["other"], seconds["this"], strict=True)
    result = {
        "other": provenance.commit(other),
        "seconds": seconds,
        "median_seconds": medians,
        "times_as_fast": statistics.median(theirs / ours for theirs, ours in pairs),
    }
    result = harness.rounded(result, 3)
    print(result)
    harness.record(f"versions_{jax.default_backend()}", result)


def train(folder: Path) -> None:
    """The training command of a checkout. Raises ValueError where it fails."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    with tempfile.TemporaryDirectory() as workdir:
        command = [sys.executable, "-m", "alexnet_jax.main", f"--workdir={workdir}/run"]
        command += ["--config.num_epochs=1"] if harness.quick() else []
        ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if ended.returncode:
        raise ValueError(f"{folder} fails: {ended.stderr.strip()[-500:]}")


if __name__ == "__main__":
    harness.run(main)
