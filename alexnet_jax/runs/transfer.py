"""Start from another run's layers: pre-train, then fine-tune ("1 CNN*" of sections 6 and 7)."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from flax.traverse_util import unflatten_dict
from jax.sharding import Mesh

from alexnet_jax.runs.workdir import load_run
from alexnet_jax.step import TrainState

HEAD = "fc8"  # its units are classes

Params = Mapping[str, Mapping[str, jax.Array | np.ndarray]]


class Weights(NamedTuple):
    """What to start from.

    Fields:
      params: layer -> {"kernel", "bias"}.
      class_names: what the last layer's units stand for; None where that is not known.
    """

    params: Params
    class_names: tuple[str, ...] | None


class Row(NamedTuple):
    """What became of a layer.

    Fields:
      layer: its name.
      fate: "taken" from the other network, "renewed" (it has another), "new" (it has none) or
        "dropped" (this network has none).
      why: in words, "" where the fate says it.
      parameters: weights and biases, of this network where it has the layer.
    """

    layer: str
    fate: str
    why: str
    parameters: int


def load_weights(source: str | Path, *, mesh: Mesh | None = None) -> Weights:
    """The layers to start from.

    Args:
      source: the workdir of a run, whose best checkpoint is read, or an .npz file of arrays named
        `conv1/kernel`, `conv1/bias`, ….
      mesh: where to place those of a run.

    Raises:
      ValueError, CheckpointError: there is neither, or it cannot be read.
    """
    path = Path(source)
    if not path.exists():
        raise ValueError(f"init_from={source}: no such folder or file; name a run's workdir")
    if path.is_dir():
        run = load_run(path, mesh=mesh)
        return Weights(run.state.params, run.class_names)
    try:
        with np.load(path) as file:
            params = unflatten_dict(dict(file), sep="/")
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"init_from={source} is no .npz file of arrays ({error})") from error
    return Weights(params, None)


def start_from(
    state: TrainState, weights: Weights, class_names: Sequence[str]
) -> tuple[TrainState, list[Row]]:
    """Takes over each layer whose shapes agree, and says what became of all.

    The last layer is taken only for the same classes. Velocities stay zero.

    Args:
      state: freshly initialised, on any mesh.
      weights: from `load_weights`.
      class_names: the classes of this run.

    Raises:
      ValueError: no layer agrees.
    """
    params, rows = dict(state.params), []
    for layer, leaves in state.params.items():
        size = sum(leaf.size for leaf in leaves.values())
        if layer not in weights.params:
            rows.append(Row(layer, "new", "", size))
            continue
        why = _difference(leaves, weights.params[layer])
        same_classes = weights.class_names in (None, tuple(class_names))
        if not why and layer == HEAD and not same_classes:
            why = "other classes"
        if not why:
            params[layer] = {
                name: jax.device_put(weights.params[layer][name], leaf.sharding)
                for name, leaf in leaves.items()
            }
        rows.append(Row(layer, "renewed" if why else "taken", why, size))
    for layer, others in weights.params.items():
        if layer not in state.params:
            size = sum(leaf.size for leaf in others.values())
            rows.append(Row(layer, "dropped", "this network has none", size))
    if not any(row.fate == "taken" for row in rows):
        raise ValueError(
            f"no layer to start from agrees ({rows[0].layer}: {rows[0].why or rows[0].fate}); take "
            "a run of the same widths, or leave out init_from"
        )
    return state.replace(params=params), rows


def format_rows(rows: Sequence[Row]) -> str:
    """The rows as a table to print."""
    lines = []
    for layer, fate, why, parameters in rows:
        reason = f": {why}" if why else ""
        lines.append(f"  {layer:<6}{parameters:>12,}  {fate}{reason}")
    return "\n".join(lines)


def _difference(leaves: Mapping[str, jax.Array], others: Mapping) -> str:
    """The first leaf whose shapes differ, in words; "" if none does."""
    for name, leaf in leaves.items():
        there = others[name].shape if name in others else ()
        if there != leaf.shape:
            return f"{name} {_product(leaf.shape)} here, {_product(there)} there"
    return ""


def _product(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "none"
