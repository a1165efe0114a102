"""Every layer of many photographs to HDF5, against one forward pass an image and the writing.

    python -m experiments.speed.features

The command's own path (files read, decoded and scaled, all layers computed in one pass, written)
takes turns with what cannot be saved: the network alone on images that are decoded already, plus
the writing of its outputs. And with what one output costs, from the same files and not written, and
that writing alone: whoever wants every layer should pay for no more than both. Then the command on
more and more photographs, for its peak memory. Weights are random: the time does not depend on
them. Writes results/features_cpu.json.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
from absl import flags

from alexnet_jax.augment import Augmentation
from alexnet_jax.configs import imagenet2012
from alexnet_jax.data.batches import padded_batches
from alexnet_jax.inspect import features
from alexnet_jax.inspect.files import read_images
from alexnet_jax.interop import save_run
from alexnet_jax.machine import keep_freed_memory
from alexnet_jax.models.presets import alexnet
from alexnet_jax.runs.workdir import Run
from alexnet_jax.step import create_train_state
from experiments import harness
from experiments.speed import photographs

FLAGS = flags.FLAGS
flags.DEFINE_integer("images", 1000, "photographs, by repeating those that are there")
flags.DEFINE_integer("turns", 3, "counted turns of each")

PEAK = """
import resource, sys
from alexnet_jax import command, features
try:
    command.run(features.main, sys.argv)
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def main(_) -> None:
    """Measures and writes."""
    harness.shorten(images=20, turns=1)
    jax.config.update("jax_cpu_enable_async_dispatch", True)  # as in the command
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        few = photographs.draw(folder, 10) if harness.quick() else photographs.find()
        files = [few[n % len(few)] for n in range(FLAGS.images)]
        run = untrained()
        size = run.config.stored_size
        decoded = [
            np.stack([image for _, image in batch])
            for batch in read_images(files, size, batch_size=features.BATCH_SIZE)
        ]

        def command() -> None:
            write(run, features.file_batches(files, size, [], []), folder / "command.h5")

        def alone() -> None:
            batches = (b for images in decoded for b in padded_batches(images, len(images)))
            write(run, batches, folder / "alone.h5")

        def one_output() -> None:
            for _ in run.features_of_batches(features.file_batches(files, size, [], []), ["fc8"]):
                pass

        outputs = next(
            run.features_of_batches(padded_batches(decoded[0], len(decoded[0])), ["all"])
        )

        def writing() -> None:
            parts = (
                {layer: rows[: len(images)] for layer, rows in outputs.items()}
                for images in decoded
            )
            features.write_features(folder / "written.h5", run, parts, dict)

        turns = {
            "command": command,
            "network and writing": alone,
            "one output": one_output,
            "writing": writing,
        }
        seconds = harness.interleaved(turns, turns=FLAGS.turns)
        save_run(run, folder / "run")
        memory = {
            count: peak_memory(folder, files[:count])
            for count in (FLAGS.images // 4, FLAGS.images // 2, FLAGS.images)
        }
        written = (folder / "command.h5").stat().st_size
    whole, computed, one, writes = map(np.array, seconds.values())
    result = {
        "images": FLAGS.images,
        "seconds": harness.rounded(seconds, 2),
        "ratio": round(float(np.median(whole / computed)), 3),
        "ratio to one output and the writing": round(float(np.median(whole / (one + writes))), 3),
        "megabytes written": round(written / 1e6),
        "peak memory in MB, by images": memory,
    }
    print(result)
    harness.record("features_cpu", result)


def untrained() -> Run:
    """The paper's net at random, as a run."""
    config = imagenet2012.get_config()
    if harness.quick():
        config.stored_size = 72
        config.model.update(harness.TINY)
    model = alexnet("paper", **(harness.TINY if harness.quick() else {}))
    state = create_train_state(model, jax.random.key(0))
    names = tuple(map(str, range(1000)))
    augmentation = Augmentation(color="none")
    return Run(Path("untrained"), config, model, augmentation, state, names, 0)


def write(run: Run, batches, path: Path) -> None:
    """All layers of the batches."""
    parts = run.features_of_batches(batches, ["all"])
    features.write_features(path, run, parts, dict)


def peak_memory(folder: Path, files: list[Path]) -> int:
    """Of the command itself, MB."""
    many = folder / "photographs"
    many.mkdir(exist_ok=True)
    for number, file in enumerate(files):
        link = many / f"{number:06d}.jpg"
        link.unlink(missing_ok=True)
        link.symlink_to(file)
    argv = ["--layer=all", f"--workdir={folder / 'run'}", f"--output={folder / 'x.h5'}", str(many)]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *argv], capture_output=True, text=True, check=True
    )
    return int(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    harness.run(main)
