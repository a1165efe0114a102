"""A run of others' weights: `python -m alexnet_jax.convert --weights=FILE --workdir=DIR`."""

from collections.abc import Sequence

from absl import app, flags

from alexnet_jax import command
from alexnet_jax.files import local_path

_WEIGHTS = flags.DEFINE_string(
    "weights",
    None,
    "Of Caffe: .caffemodel or bvlc_alexnet.npy. Of torchvision: .safetensors, .pt or .pth.",
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
    from alexnet_jax.interop import read_caffe, read_torchvision, write_run  # noqa: PLC0415

    if _WEIGHTS.value.endswith((".safetensors", ".pt", ".pth")):
        if _PRESET.value or _MEAN.value:
            raise app.UsageError("--preset and --mean are for Caffe's weights alone")
        imported = read_torchvision(_WEIGHTS.value)
    else:
        imported = read_caffe(_WEIGHTS.value, preset=_PRESET.value, mean=_MEAN.value)
    print(f"{imported.source}: the net {imported.preset!r}\n{imported.table()}")
    if _CLASSES.value:
        names = tuple(local_path(_CLASSES.value).read_text(encoding="utf-8").splitlines())
    else:
        names = synsets()
    write_run(imported, _WORKDIR.value, names, _DATASET.value)
    print(f"{_WORKDIR.value}: a run; predict, features, evaluate and report take it")


if __name__ == "__main__":
    command.run(main)
