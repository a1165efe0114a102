"""A run's folder: its configuration, and the network that its checkpoints hold.

config.json      the resolved configuration
metrics.jsonl    one measurement a line
checkpoints/     the last and the best
events.out.*     the same measurements for TensorBoard
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, SingleDeviceSharding
from ml_collections import ConfigDict

from alexnet_jax import parallel
from alexnet_jax.augment import Augmentation
from alexnet_jax.models.alexnet import AlexNet
from alexnet_jax.models.presets import alexnet
from alexnet_jax.runs.checkpoint import Checkpointer, CheckpointError
from alexnet_jax.step import TrainState, create_train_state

# Fields of `Augmentation` that are arrays, and kept as such in a checkpoint.
CONSTANTS = ("mean", "deviations", "eigenvectors")

# Fields that a resumed run may change: where it runs, and its test at the end.
MAY_CHANGE = (
    "data_dir",
    "cache",
    "steps_per_call",
    "read_workers",
    "verify_data",
    "mesh.data",
    "mesh.model",
    "eval_batch_size",
    "test_split",
    "final_views",
)


class Run(NamedTuple):
    """A trained network and all it takes to use it."""

    workdir: Path
    config: ConfigDict
    model: AlexNet
    augmentation: Augmentation
    state: TrainState
    class_names: tuple[str, ...]
    step: int

    @property
    def params(self):
        """Layer -> {"kernel", "bias"}."""
        return self.state.params


def build_model(config: ConfigDict, num_classes: int) -> AlexNet:
    """The network of `config.preset` and `config.model`. Raises ValueError as `alexnet` does."""
    overrides = {name: value for name, value in config.model.items() if value is not None}
    return alexnet(config.preset, num_classes=num_classes, **overrides)


def build_augmentation(
    settings: Mapping[str, Any], constants: Mapping[str, np.ndarray]
) -> Augmentation:
    """The settings of `config.augmentation` with the constants of the data."""
    fields: dict[str, Any] = {k: v for k, v in settings.items() if k != "statistics"}
    fields |= {name: np.asarray(constants[name]) for name in CONSTANTS}
    return Augmentation(**fields)


def split_augmentation(
    augmentation: Augmentation,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Settings (JSON) and constants, as a checkpoint holds them; see `build_augmentation`."""
    fields = dataclasses.asdict(augmentation)
    constants = {name: np.asarray(fields.pop(name)) for name in CONSTANTS}
    return fields, constants


def state_template(model: AlexNet, mesh: Mesh | None) -> TrainState:
    """The shapes, dtypes and placement of a train state; computes nothing."""
    state = jax.eval_shape(lambda: create_train_state(model, jax.random.key(0)))
    if mesh is None:
        placed = jax.tree.map(lambda _: SingleDeviceSharding(jax.devices()[0]), state)
    else:
        placed = parallel.shardings(state, model, mesh)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state,
        placed,
    )


def save_config(config: ConfigDict, workdir: Path, *, resumes: bool) -> None:
    """Writes the configuration; raises ValueError where it `resumes` a run of another one."""
    path = workdir / "config.json"
    text = json.dumps(json.loads(config.to_json()), indent=2, sort_keys=True) + "\n"
    if resumes and path.exists():
        saved, given = (_flatten(json.loads(t)) for t in (path.read_text(), text))
        for field in sorted(saved.keys() | given.keys()):
            if saved.get(field) != given.get(field) and field not in MAY_CHANGE:
                raise ValueError(
                    f"{workdir} holds a run with {field}={saved.get(field)!r} and this one has "
                    f"{given.get(field)!r}; give the same configuration, or another --workdir"
                )
    path.write_text(text)


def _flatten(tree: dict, prefix: str = "") -> dict:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        is_tree = isinstance(value, dict)
        flat |= _flatten(value, f"{prefix}{name}.") if is_tree else {prefix + name: value}
    return flat


def load_config(workdir: str | Path) -> ConfigDict:
    """The configuration saved in `workdir`. Raises ValueError where there is none."""
    path = Path(workdir) / "config.json"
    try:
        return ConfigDict(json.loads(path.read_text()))
    except FileNotFoundError:
        raise ValueError(
            f"{workdir} holds no run (no config.json); train one with "
            f"`python -m alexnet_jax.main --workdir {workdir}`"
        ) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}); restore it, or train again") from error


def load_run(workdir: str | Path, *, which: str = "best", mesh: Mesh | None = None) -> Run:
    """Restores a trained network from its workdir.

    Args:
      workdir: the folder given to `--workdir`.
      which: "best" checkpoint by the validation, or "last".
      mesh: where to place the state, whatever mesh it was trained on.

    Raises:
      ValueError: the folder holds no run, or `which` is neither.
      CheckpointError: there is no checkpoint, or it is damaged.
    """
    if which not in ("best", "last"):
        raise ValueError(f"which={which!r}; use 'best' or 'last'")
    config = load_config(workdir)
    folder = Path(workdir) / "checkpoints"
    if not folder.is_dir():
        raise CheckpointError(f"{workdir} has no checkpoint yet; let the training save one")
    with Checkpointer(folder, read_only=True) as checkpoints:
        step = checkpoints.best_step if which == "best" else None
        step = checkpoints.latest_step if step is None else step
        if step is None:
            raise CheckpointError(f"{workdir} has no checkpoint yet; let the training save one")
        metadata = checkpoints.metadata(step)
        class_names = tuple(metadata["class_names"])
        model = build_model(config, len(class_names))
        parallel.check_mesh(model, mesh)
        restored = checkpoints.restore(state_template(model, mesh), step=step)
    augmentation = build_augmentation(metadata["augmentation"], restored.arrays)
    return Run(Path(workdir), config, model, augmentation, restored.state, class_names, step)
