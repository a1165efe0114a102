"""A layer's output for images, saved: `python -m alexnet_jax.features --workdir runs/ photos/`."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import app, flags

from alexnet_jax import command

if TYPE_CHECKING:  # loading it takes seconds, and --help should not
    import numpy as np

    from alexnet_jax.data.images import ImageError

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the trained run.")
_OUTPUT = flags.DEFINE_string("output", "features.npz", "File to write.")
_LAYER = flags.DEFINE_string("layer", "fc7", "Layer whose output is saved: conv1 to fc8.")
_SPLIT = flags.DEFINE_string(
    "split", "", "Instead of files: this split of the run's data set, such as train or test."
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of prepared tfds data sets.")


def main(argv: Sequence[str]) -> None:
    """Saves the features of the images and folders named, or of a split."""
    if not _WORKDIR.value:
        raise app.UsageError("--workdir is missing: the folder of a trained run")
    if bool(_SPLIT.value) == bool(argv[1:]):
        raise app.UsageError("name either images and folders of images, or --split")
    from alexnet_jax.data.sets import open_dataset  # noqa: PLC0415
    from alexnet_jax.inspect.features import file_features, split_features  # noqa: PLC0415
    from alexnet_jax.inspect.files import image_files  # noqa: PLC0415
    from alexnet_jax.runs.workdir import load_run  # noqa: PLC0415

    output = Path(_OUTPUT.value)
    if not output.parent.is_dir():  # told before the work, not after
        raise ValueError(f"folder {output.parent} is not there; make it, or change --output")
    files = image_files(argv[1:]) if argv[1:] else []
    run = load_run(_WORKDIR.value)
    problems: list[ImageError] = []
    if files:
        arrays, problems = file_features(run, files, _LAYER.value)
    else:
        dataset = open_dataset(
            run.config.dataset,
            _SPLIT.value,
            data_dir=_DATA_DIR.value or run.config.data_dir,
            stored_size=run.config.stored_size,
            labels=False,
        )
        arrays = split_features(run, dataset, _LAYER.value)
    save(output, arrays)
    rows, width = arrays["features"].shape
    print(f"{output}: {_LAYER.value} of {rows:,} images, {width:,} values each", flush=True)
    for problem in problems:
        print(f"warning: {problem}", file=sys.stderr)
    if problems:
        raise ValueError(f"{len(problems)} of {len(files)} images could not be read")


def save(output: Path, arrays: dict[str, "np.ndarray"]) -> None:
    """Writes the arrays to an npz file, whole or not at all."""
    import numpy as np  # noqa: PLC0415

    part = output.with_name(output.name + ".part")
    try:
        with part.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        os.replace(part, output)
    finally:
        part.unlink(missing_ok=True)


if __name__ == "__main__":
    command.run(main)
