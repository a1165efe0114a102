"""Layers' outputs for images, saved: `python -m alexnet_jax.features --workdir runs/ photos/`."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import app, flags

from alexnet_jax import command
from alexnet_jax.data.names import printable
from alexnet_jax.files import output_file
from alexnet_jax.wording import by_commas

if TYPE_CHECKING:  # loading it takes seconds, and --help should not
    from alexnet_jax.data.images import ImageError

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the trained run.")
_OUTPUT = flags.DEFINE_string(
    "output", "features.npz", "File to write or replace: .npz, or .h5 for what does not fit memory."
)
_LAYERS = flags.DEFINE_multi_string(
    "layer",
    [],
    "Layers whose output is saved, by commas or by more --layer, or all: conv1 to fc8 as the next "
    "layer reads them, conv1.linear, conv1.relu, conv1.lrn, pool1 …; by default the last before "
    "the head, fc7.",
)
_MAPS = flags.DEFINE_enum(
    "maps",
    "whole",
    ["whole", "mean", "max"],
    "Of convolutions: whole maps, or their mean or max over places.",
)
_SPLIT = flags.DEFINE_string(
    "split", "", "Instead of files: this split of the run's data set, such as train or test."
)
_BY_POSITION = flags.DEFINE_bool(
    "classes_by_position", False, "Class n of the data is the run's class n, whatever its name."
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, command.DATA_DIR)


def main(argv: Sequence[str]) -> None:
    """Saves the features of the images and folders named, or of a split."""
    if not _WORKDIR.value:
        raise app.UsageError("--workdir is missing: the folder of a trained run")
    if bool(_SPLIT.value) == bool(argv[1:]):
        raise app.UsageError("name either images and folders of images, or --split")
    import numpy as np  # noqa: PLC0415

    from alexnet_jax.activations import layers_named  # noqa: PLC0415
    from alexnet_jax.inspect import features  # noqa: PLC0415
    from alexnet_jax.inspect.files import image_files  # noqa: PLC0415
    from alexnet_jax.inspect.samples import split_of  # noqa: PLC0415
    from alexnet_jax.runs.workdir import load_run  # noqa: PLC0415

    output = output_file(_OUTPUT.value)  # told before the work, not after
    if output.suffix.lower() in features.HDF5:
        features.hdf5()
    elif output.suffix.lower() != ".npz":
        raise ValueError(f"{output}: features are written as .npz, .h5 or .hdf5; change --output")
    files = image_files(argv[1:]) if argv[1:] else []
    run = load_run(_WORKDIR.value)
    layers = layers_named(run.model, by_commas(_LAYERS.value))
    problems: list[ImageError] = []
    if files:
        paths: list[str] = []
        batches = features.file_batches(files, run.config.stored_size, paths, problems)

        def names() -> features.Names:
            return {"files": np.array(paths)}
    else:
        dataset = split_of(
            run,
            _SPLIT.value,
            data_dir=_DATA_DIR.value,
            classes_by_position=_BY_POSITION.value,
            labels=False,
            flag="--split",
        )
        labels: list[np.ndarray] = []
        batches = features.split_batches(dataset, labels)

        def names() -> features.Names:
            classes = np.array(dataset.class_names)
            return {"labels": np.concatenate(labels), "class_names": classes}

    replaced = " (replaced)" * output.exists()
    parts = run.features_of_batches(batches, layers, maps=_MAPS.value)
    shapes = features.write_features(output, run, parts, names)
    for layer, (rows, *shape) in shapes.items():
        size = f"{np.prod(shape):,} values" + f" ({'x'.join(map(str, shape))})" * (len(shape) > 1)
        print(f"{output}{replaced}: {layer} of {rows:,} images, {size} each")
    for problem in problems:
        print(f"warning: {printable(problem)}", file=sys.stderr)
    if problems:
        raise ValueError(
            f"{len(problems)} of {len(files)} images could not be read; {output} holds the other "
            f"{len(files) - len(problems):,}"
        )


if __name__ == "__main__":
    command.run(main)
