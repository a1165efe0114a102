"""Weights in and out: `python -m alexnet_jax.convert --weights=FILE --workdir=DIR`, or --output."""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from absl import app, flags

from alexnet_jax import command
from alexnet_jax.files import local_path, text_of

if TYPE_CHECKING:
    from pathlib import Path

    from alexnet_jax.interop import Imported
    from alexnet_jax.runs.workdir import Run

_WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder: made of --weights, or written.")

_WEIGHTS = flags.DEFINE_string(
    "weights",
    None,
    "In: .safetensors of this library; Caffe's .caffemodel or bvlc_alexnet.npy; PyTorch's "
    ".safetensors, .pt or .pth, grouped or torchvision's; the authors' folder ConvNet__… or a "
    "checkpoint in it.",
)
_PRESET = flags.DEFINE_string(
    "preset", None, "The net, where the file does not say it: caffe or caffenet; paper, …"
)
_MEAN = flags.DEFINE_string(
    "mean",
    None,
    "Mean of the images: .binaryproto or .npy, BGR; the authors' batches.meta, or .npy, RGB.",
)
_CLASSES = flags.DEFINE_string(
    "classes", None, "File of class names, one a line; by default ImageNet's 1,000 synsets."
)
_DATASET = flags.DEFINE_string(
    "dataset", "imagenet2012_256/raw", "Prepared data set that an imported run is evaluated on."
)

_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Out, replacing what is there: .safetensors, or .stablehlo for a program that wants jax alone.",
)
_LAYOUT = flags.DEFINE_enum(
    "layout", "alexnet_jax", ["alexnet_jax", "pytorch"], "Names and axes in a .safetensors file."
)
_PARAMETERS = flags.DEFINE_enum(
    "parameters", "inside", ["inside", "beside"], "Where a program has its parameters."
)
_SPLIT = flags.DEFINE_string(
    "split", None, "Split that the error is measured on; else the run's test split."
)
_MEASURE = flags.DEFINE_bool(
    "measure", True, "Measure the error, and again from what was written, before it is kept."
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, command.DATA_DIR)

_VERIFY = flags.DEFINE_string(
    "verify", None, "A file that --output wrote: measure its error again, and compare."
)


# Flag that says what is to be done -> those that it goes with; another would do nothing.
_ALONG = {
    "weights": ("workdir", "preset", "mean", "classes", "dataset"),
    "output": ("workdir", "layout", "parameters", "split", "measure", "data_dir"),
    "verify": ("data_dir",),
}
_NAMES = sorted({name for names in _ALONG.values() for name in names})


def main(argv: Sequence[str]) -> None:
    """Does what the flags say: in, out, or verify."""
    command.flags_alone(argv)
    weights, output, verify = _WEIGHTS.value, _OUTPUT.value, _VERIFY.value
    if sum(map(bool, (weights, output, verify))) != 1:
        raise app.UsageError("give one of --weights (in), --output (out) and --verify")
    (task,) = (name for name in _ALONG if flags.FLAGS[name].value)
    _refuse((name for name in _NAMES if name not in _ALONG[task]), f"--{task}")
    workdir = _WORKDIR.value
    if verify:
        _verify(local_path(verify))
    elif not workdir:
        raise app.UsageError("--workdir is missing: the run that is made of --weights, or written")
    elif weights:
        _take_in(local_path(weights), workdir)
    elif output:
        _write_out(local_path(output), workdir)


def _refuse(names: Iterable[str], what: str) -> None:
    """Raises UsageError where one of the flags is given, which does nothing here."""
    for name in names:
        if flags.FLAGS[name].present:
            raise app.UsageError(f"--{name} does nothing with {what}; leave it out")


# --- in -------------------------------------------------------------------------------------------


def _take_in(weights: "Path", workdir: str) -> None:
    """Reads the weights, says what was done to each, and writes the run."""
    from alexnet_jax.data.names import unstorable_class  # noqa: PLC0415
    from alexnet_jax.inspect.names import synsets  # noqa: PLC0415
    from alexnet_jax.interop import Imported, save_run, write_run  # noqa: PLC0415

    found = _read(weights)
    if not isinstance(found, Imported):
        _refuse(("preset", "classes", "dataset"), f"{weights}, which says it itself")
        save_run(found, workdir)
    else:
        print(f"{found.source}: the net {found.preset!r}\n{found.table()}")
        if _CLASSES.value:
            path = local_path(_CLASSES.value)
            names = tuple(text_of(path.read_bytes(), path).splitlines())
            if problem := unstorable_class(names):
                raise ValueError(f"{_CLASSES.value}: {problem}")
        else:
            names = synsets()
        write_run(found, workdir, names, _DATASET.value)
    print(f"{workdir}: a run; predict, features, evaluate and report take it")


def _read(path: "Path") -> "Imported | Run":
    """By the form of the name."""
    from alexnet_jax import interop  # noqa: PLC0415

    if path.suffix in (".caffemodel", ".npy"):
        return interop.read_caffe(path, preset=_PRESET.value, mean=_MEAN.value)
    if path.is_dir() or re.fullmatch(r"\d+\.\d+", path.name):
        if _PRESET.value:
            raise app.UsageError("a checkpoint of the authors says its net itself: no --preset")
        return interop.read_authors(path, mean=_MEAN.value)
    if _MEAN.value:
        raise app.UsageError("--mean is for Caffe's and the authors' weights alone")
    if path.suffix in (".safetensors", ".pt", ".pth"):
        return interop.read_state_dict(path, preset=_PRESET.value)
    if not path.exists():
        raise ValueError(f"{path} is not there; change --weights")
    raise ValueError(
        f"{path}: weights that are read are .safetensors, .pt, .pth, .caffemodel, .npy, or the "
        "authors' checkpoints (a folder ConvNet__…, or a file of it by its name EPOCH.BATCH); "
        "rename it, or change --weights"
    )


# --- out ------------------------------------------------------------------------------------------


def _write_out(path: "Path", workdir: str) -> None:
    """Writes a run with its card; keeps it if it measures the same when it is read back."""
    from functools import partial  # noqa: PLC0415

    from alexnet_jax import interop  # noqa: PLC0415
    from alexnet_jax.files import output_file  # noqa: PLC0415
    from alexnet_jax.interop.exported import in_words  # noqa: PLC0415
    from alexnet_jax.interop.program import check_packages  # noqa: PLC0415
    from alexnet_jax.interop.tensors import safetensors  # noqa: PLC0415
    from alexnet_jax.runs.workdir import load_run  # noqa: PLC0415

    output_file(path)  # told before the work, not after
    if path.suffix not in (".safetensors", ".stablehlo"):
        raise ValueError(f"{path}: what is written is .safetensors or .stablehlo; change --output")
    program = path.suffix == ".stablehlo"
    _refuse(["layout" if program else "parameters"], f"a {path.suffix} file")
    if not _MEASURE.value:
        _refuse(["split"], "--nomeasure")
    if program:
        check_packages(_PARAMETERS.value)
    else:
        safetensors()
    run = load_run(workdir)
    if program:
        write = partial(interop.write_program, run, parameters=_PARAMETERS.value)
    else:
        own = _LAYOUT.value == "alexnet_jax"
        run = run if own else interop.as_written(run)  # so that what is measured is in the file
        write = partial(interop.write_weights if own else interop.write_pytorch, run)
    facts = interop.facts_of(run) | {"layout": _layout(path)}
    data_dir = _DATA_DIR.value or run.config.data_dir
    if _MEASURE.value:
        split = _SPLIT.value or run.config.test_split or run.config.validation_split
        try:
            facts["errors"] = interop.measure(run.predict, facts, split, data_dir)
        except ValueError as error:  # mostly there is no such data set here
            raise ValueError(f"{error}; --nomeasure writes without measuring") from error
    replaced = " (replaced)" * path.exists()
    interop.keep(path, write, facts, data_dir=data_dir)
    print(f"{path}{replaced}: {in_words(facts['errors'])}")


def _layout(path: "Path") -> str:
    return "program" if path.suffix == ".stablehlo" else _LAYOUT.value


def _verify(path: "Path") -> None:
    """Measures what a card says, again, with what the file holds."""
    from alexnet_jax import interop  # noqa: PLC0415
    from alexnet_jax.interop.exported import compare, facts_on_card, in_words  # noqa: PLC0415
    from alexnet_jax.interop.own import facts_in  # noqa: PLC0415
    from alexnet_jax.interop.tensors import read_tensors  # noqa: PLC0415

    if path.suffix == ".stablehlo":
        facts = facts_on_card(path)
        predict = interop.read_program(path, facts)
    else:
        run = interop.read_state_dict(path)
        if isinstance(run, interop.Imported):
            raise ValueError(f"{path} was not written by this library; it names no errors")
        predict, facts = run.predict, facts_on_card(path)
        header = facts_in(read_tensors(path), path) | {"file": facts["file"]}
        if other := {name for name in header | facts if header.get(name) != facts.get(name)}:
            raise ValueError(
                f"{path}: its header and its card differ in {', '.join(sorted(other))}; fetch both "
                "again"
            )
    errors = facts["errors"]
    if errors:
        measured = interop.measure(predict, facts, errors["split"], _DATA_DIR.value)
        compare(errors, measured, path)
    print(f"{path}: {in_words(errors)}")


if __name__ == "__main__":
    command.run(main)
