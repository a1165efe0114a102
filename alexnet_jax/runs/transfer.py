"""Start from another run's layers: pre-train, then fine-tune ("1 CNN*" of sections 6 and 7)."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.files import local_path
from alexnet_jax.runs.workdir import load_run
from alexnet_jax.state import TrainState
from alexnet_jax.wording import first_line

Params = Mapping[str, Mapping[str, jax.Array | np.ndarray]]
# A compressed file that grows more than so many times, and to more than so many bytes, holds no
# weights: they hardly shrink.
_LARGEST_GROWTH, _SMALL = 20, 2**24


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
        `conv1/kernel`, `conv1/bias`, … (or `params/conv1/kernel`, …).
      mesh: where to place those of a run.

    Raises:
      ValueError, CheckpointError: there is neither, or it cannot be read.
    """
    path = local_path(source)
    if not path.exists():
        raise ValueError(f"init_from={source}: no such folder or file; name a run's workdir")
    if path.is_dir():
        run = load_run(path, mesh=mesh)
        return Weights(run.params, run.class_names)
    try:
        with zipfile.ZipFile(path) as archive:
            size, compressed = sum(x.file_size for x in archive.infolist()), path.stat().st_size
        if size > max(_LARGEST_GROWTH * compressed, _SMALL):
            raise ValueError(f"{compressed:,} bytes that say they hold {size:,}")
        with np.load(path, allow_pickle=False) as file:
            entries = [(name, file[name]) for name in file.files]
    except Exception as error:  # a damaged archive raises as many kinds as it has layers
        reason = first_line(error)
        raise ValueError(f"init_from={source} is not an .npz file of arrays ({reason})") from error
    params: dict[str, dict[str, np.ndarray]] = {}
    for name, array in entries:
        layer, _, parameter = name.removeprefix("params/").partition("/")
        kind = array.dtype if isinstance(array, np.ndarray) else type(array)  # bytes of other files
        if not np.issubdtype(kind, np.floating):
            raise ValueError(
                f"init_from={source}: {name!r} is of type {np.dtype(kind)}; weights are "
                "floating-point"
            )
        with np.errstate(over="ignore"):  # looked at next
            array = array.astype(np.float32)
        if not np.isfinite(array).all():
            raise ValueError(
                f"init_from={source}: {name!r} holds values that are not finite as float32"
            )
        if parameter in params.get(layer, {}):
            raise ValueError(f"init_from={source} holds {layer}/{parameter} twice")
        params.setdefault(layer, {})[parameter] = array
    return Weights(params, None)


def start_from(
    state: TrainState, weights: Weights, class_names: Sequence[str], head: str = "fc8"
) -> tuple[TrainState, list[Row]]:
    """Takes over each layer whose shapes agree, and says what became of all.

    The last layer is taken only for the same classes; where only their order differs, its units
    are put in this run's. Velocities stay zero.

    Args:
      state: freshly initialised, on any mesh.
      weights: from `load_weights`.
      class_names: the classes of this run.
      head: the layer whose units are classes.

    Raises:
      ValueError: no layer agrees.
    """
    params, rows = dict(state.params), []
    wanted = tuple(class_names)
    for layer, leaves in state.params.items():
        size = sum(leaf.size for leaf in leaves.values())
        if layer not in weights.params:
            rows.append(Row(layer, "new", "", size))
            continue
        others, note = weights.params[layer], ""
        why = _difference(leaves, others)
        if not why and layer == head and weights.class_names not in (None, wanted):
            if sorted(weights.class_names or ()) == sorted({*wanted}):  # no name stands twice
                order = np.array([(weights.class_names or ()).index(name) for name in wanted])
                others = {name: leaf[..., order] for name, leaf in others.items()}
                note = "its classes in this run's order"
            else:
                why = "other classes"
        if not why:
            params[layer] = {name: _placed_as(leaf, others[name]) for name, leaf in leaves.items()}
            if unknown := sorted(others.keys() - leaves.keys()):
                note = f"without {', '.join(unknown)}"
        rows.append(Row(layer, "renewed" if why else "taken", why or note, size))
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


def _placed_as(leaf: jax.Array, value: Any) -> jax.Array:
    """`value` in the dtype of `leaf` and where that lies."""
    if getattr(value, "is_fully_addressable", True):
        value = np.asarray(value, leaf.dtype)
    else:  # its parts lie on several hosts, each of which has some
        value = value.astype(leaf.dtype)
    return jax.device_put(value, leaf.sharding)


def _difference(leaves: Mapping[str, jax.Array], others: Mapping) -> str:
    """The first leaf whose shapes differ, in words; "" if none does."""
    for name, leaf in leaves.items():
        there = others[name].shape if name in others else ()
        if there != leaf.shape:
            return f"{name} {_product(leaf.shape)} here, {_product(there)} there"
    return ""


def _product(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "none"
