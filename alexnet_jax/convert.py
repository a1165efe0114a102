"""A run of others' weights: `python -m alexnet_jax.convert --weights=FILE --workdir=DIR`."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import app, flags

from alexnet_jax import command
from alexnet_jax.files import local_path

if TYPE_CHECKING:
    from alexnet_jax.interop import Imported

_WEIGHTS = flags.DEFINE_string(
    "weights",
    None,
    "Of Caffe: .caffemodel or bvlc_alexnet.npy. Of torchvision: .safetensors, .pt or .pth. Of the "
    "authors' code: a folder ConvNet__… or a checkpoint in it.",
)
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; it is made.")
_PRESET = flags.DEFINE_enum(
    "preset", None, ["caffe", "caffenet"], "The net, where the file does not say it."
)
_MEAN = flags.DEFINE_string("mean", None, "Mean of the images: .binaryproto or .npy, BGR.")
_CLASSES = flags.DEFINE_string(
    "classes", None, "File of class names, one a line; by default ImageNet's 1,000 synsets."
)
_DATASET = flags.DEFINE_string(
    "dataset", "imagenet2012_256/raw", "Prepared data set that the run is evaluated on."
)


def main(argv: Sequence[str]) -> None:
    """Reads the weights, says what was done to each, and writes the run."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; flags are written --name=value")
    if not (_WEIGHTS.value and _WORKDIR.value):
        raise app.UsageError("--weights and --workdir are wanted: what is read, and what is made")
    from alexnet_jax.inspect.names import synsets  # noqa: PLC0415
    from alexnet_jax.interop import write_run  # noqa: PLC0415

    imported = _read(_WEIGHTS.value)
    print(f"{imported.source}: the net {imported.preset!r}\n{imported.table()}")
    if _CLASSES.value:
        names = tuple(local_path(_CLASSES.value).read_text(encoding="utf-8").splitlines())
    else:
        names = synsets()
    write_run(imported, _WORKDIR.value, names, _DATASET.value)
    print(f"{_WORKDIR.value}: a run; predict, features, evaluate and report take it")


def _read(weights: str) -> "Imported":
    """By the form of the name."""
    from alexnet_jax import interop  # noqa: PLC0415

    path = local_path(weights)
    if path.suffix in (".caffemodel", ".npy"):
        return interop.read_caffe(path, preset=_PRESET.value, mean=_MEAN.value)
    if _PRESET.value:
        raise app.UsageError("--preset is for Caffe's weights alone")
    if path.is_dir() or re.fullmatch(r"\d+\.\d+", path.name):
        return interop.read_authors(path, mean=_MEAN.value)
    if _MEAN.value:
        raise app.UsageError("--mean is for Caffe's and the authors' weights alone")
    if path.suffix in (".safetensors", ".pt", ".pth"):
        return interop.read_torchvision(path)
    raise ValueError(
        f"{path}: the weights of another program are .caffemodel, .npy, .safetensors, .pt, .pth, "
        "or the authors' checkpoints (a folder ConvNet__…)"
    )


if __name__ == "__main__":
    command.run(main)
