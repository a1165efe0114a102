"""A layer's output for images, saved: `python -m alexnet_jax.features --workdir runs/ photos/`."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import app, flags

from alexnet_jax import command
from alexnet_jax.files import output_file, whole_file
from alexnet_jax.wording import printable

if TYPE_CHECKING:  # loading it takes seconds, and --help should not
    from alexnet_jax.data.images import ImageError

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the trained run.")
_OUTPUT = flags.DEFINE_string("output", "features.npz", "File to write.")
_LAYERS = flags.DEFINE_list(
    "layer",
    [],
    "Layers whose output is saved, flattened [H, W, C]: conv1 to fc8, pool1 …, by commas; by "
    "default the last before the head, fc7.",
)
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
    import numpy as np  # noqa: PLC0415

    from alexnet_jax.data.sets import open_dataset  # noqa: PLC0415
    from alexnet_jax.inspect.features import (  # noqa: PLC0415
        file_features,
        layer_named,
        split_features,
    )
    from alexnet_jax.inspect.files import image_files  # noqa: PLC0415
    from alexnet_jax.runs.workdir import load_run  # noqa: PLC0415

    output = output_file(_OUTPUT.value)  # told before the work, not after
    files = image_files(argv[1:]) if argv[1:] else []
    run = load_run(_WORKDIR.value)
    layers = _LAYERS.value or [layer_named(run.model, "")]
    for layer in layers:
        layer_named(run.model, layer)
    problems: list[ImageError] = []
    arrays: dict[str, np.ndarray] = {}
    for layer in layers:
        if files:
            found, problems = file_features(run, files, layer)
        else:
            dataset = open_dataset(
                run.config.dataset,
                _SPLIT.value,
                data_dir=_DATA_DIR.value or run.config.data_dir,
                stored_size=run.config.stored_size,
                labels=False,
            )
            found = split_features(run, dataset, layer)
        rows, width = found["features"].shape
        print(f"{output}: {layer} of {rows:,} images, {width:,} values each", flush=True)
        if len(layers) > 1:  # of one layer they stay "features"
            found[layer] = found.pop("features")
        arrays |= found
    with whole_file(output, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    for problem in problems:
        print(printable(f"warning: {problem}", sys.stderr), file=sys.stderr)
    if problems:
        raise ValueError(f"{len(problems)} of {len(files)} images could not be read")


if __name__ == "__main__":
    command.run(main)
