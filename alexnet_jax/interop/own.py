"""This library's own weights as `.safetensors`: all of a run but its velocities."""

import json
from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from alexnet_jax.files import json_object, local_path, naming
from alexnet_jax.interop.exported import DAMAGED, Facts, facts_of, run_of
from alexnet_jax.interop.tensors import Tensors, read_tensors, write_tensors
from alexnet_jax.runs.recipe import split_augmentation
from alexnet_jax.runs.workdir import Run

_MEAN = "augmentation.mean"


def write_weights(run: Run, path: str | Path, facts: Facts | None = None) -> None:
    """Writes a run's parameters and mean; the header's "alexnet_jax" holds the facts.

    Args:
      run: from `load_run`.
      path: ends in .safetensors; arrays are named "conv1.kernel", "conv1.bias", …
      facts: `facts_of(run)`, errors filled in; None leaves them open.
    """
    arrays = dict(flatten_dict(run.params, sep="."))
    arrays[_MEAN] = split_augmentation(run.augmentation)[1]["mean"]
    text = json.dumps(facts or facts_of(run))
    write_tensors(local_path(path), arrays, {"format": "np", "alexnet_jax": text})


def read_weights(path: str | Path) -> Run:
    """The run in a file of `write_weights`, to the bit.

    Raises:
      ValueError: the file is damaged, or another's.
    """
    path = local_path(path)
    return run_in(read_tensors(path), path)


def run_in(found: Tensors, path: Path) -> Run:
    """The run that tensors already read hold. Raises ValueError as `read_weights`."""
    facts = facts_in(found, path)
    params = params_in(found)
    if any(name.count(".") != 1 for name in params):
        raise ValueError(f"{path} holds arrays that are no kernel and no bias of a layer")
    return run_of(facts, unflatten_dict(params, sep="."), found.arrays.get(_MEAN), path)


def params_in(found: Tensors) -> dict[str, np.ndarray]:
    """The parameters among the arrays, "conv1.kernel" and so on."""
    return {name: array for name, array in found.arrays.items() if name != _MEAN}


def facts_in(found: Tensors, path: Path) -> Facts:
    """The facts in a header. Raises ValueError where there are none."""
    try:
        text = found.texts["alexnet_jax"]
    except KeyError as error:
        raise ValueError(f"{path} was not written by this library") from error
    with naming(path, DAMAGED):
        return json_object(text, "it")
