"""A run from its beginning to its test, or the several of an ensemble, each alone in its folder."""

import contextlib
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tqdm import tqdm

from alexnet_jax import hosts, parallel
from alexnet_jax.data.names import NO_TEST
from alexnet_jax.files import local_path, output_folder
from alexnet_jax.optimizer import expand
from alexnet_jax.runs.checks import check
from alexnet_jax.runs.configuration import facts, members, save_config, saved_fields
from alexnet_jax.runs.digest import crc
from alexnet_jax.runs.final_test import final_test
from alexnet_jax.runs.lock import locked
from alexnet_jax.runs.metrics_log import FILE, MetricsLog
from alexnet_jax.runs.recipe import Recipe
from alexnet_jax.runs.stop_signal import StopSignal
from alexnet_jax.runs.training import Training
from alexnet_jax.step import state_template


def train(
    config: ConfigDict, workdir: str | Path, *, strict: bool = False, profile: bool = False
) -> dict[str, dict[str, float]]:
    """Trains the run that `config` describes, or resumes it, and evaluates its best checkpoint.

    Args:
      config: see `configs/default.py`.
      workdir: where the logs and checkpoints of this run are or will be.
      strict: stop where the last checkpoint is damaged, instead of using an older whole one.
      profile: write a trace of some updates to the workdir's folder "profile".

    Returns:
      split -> metrics of the best checkpoint on the test split: "test" (centre crop) and
      "test_ten_views"; empty where the configuration names no test split. Of an ensemble, those
      of the network of each seed, as "seed_0/test".

    Raises:
      ValueError: the configuration or the data cannot be used, or another run is in the workdir.
      CheckpointError: a checkpoint cannot be written, or the one that is there does not fit.
      FloatingPointError: the loss is not a number; the last good checkpoint is kept.
      SystemExit: stopped by a signal, after saving.
    """
    workdir = local_path(workdir)
    check(config, besides=saved_fields(workdir))  # a run of another version goes on
    hosts.check_agreement({"workdir": str(workdir), **facts(config)})
    how = {"strict": strict, "profile": profile}
    return (_train_ensemble if config.ensemble > 1 else _train_one)(config, workdir, **how)


def _train_one(
    config: ConfigDict, workdir: Path, *, strict: bool, profile: bool
) -> dict[str, dict[str, float]]:
    recipe = Recipe(config)
    mesh = parallel.make_mesh(config.mesh.data, config.mesh.model)
    _say(_describe_devices(mesh))
    _check(recipe, mesh)
    training = Training(recipe, workdir, mesh, _say, strict=strict, profile=profile)
    with (
        _alone_in(workdir),
        StopSignal() as stop,
        MetricsLog(workdir, writes=jax.process_index() == 0) as log,
    ):
        training.run(stop, log)
        return final_test(recipe, workdir, mesh, say=_say, stop=stop, log=log)


def _say(message: str) -> None:
    """Above the progress bar, on the first process; training goes on where it cannot be written."""
    if jax.process_index() == 0:
        with contextlib.suppress(OSError):
            tqdm.write(message, file=sys.stdout)
            sys.stdout.flush()


@contextlib.contextmanager
def _alone_in(workdir: Path) -> Generator[None]:
    """Makes the workdir and keeps other runs out of it."""
    if jax.process_index():  # the first process of a run stands for all
        yield
        return
    output_folder(workdir)
    with locked(workdir):
        yield


def _train_ensemble(config: ConfigDict, workdir: Path, **how: bool) -> dict[str, dict[str, float]]:
    """Trains the networks of an ensemble one after the other, each a run of its own.

    The vmapped step trains them at once but is slower on CPU: five of the digits recipe's nets on
    one batch of 64 took 1.33 s per update against 0.99 s one by one; at a sixth of the paper's
    width 0.21 s against 0.11 s (medians, interleaved, two busy cores).
    """
    results: dict[str, dict[str, float]] = {}
    with _alone_in(workdir):
        if jax.process_index() == 0:
            folders = (workdir, *members(workdir))  # its own: of one network, which is no ensemble
            begun = any((run / name).exists() for run in folders for name in ("checkpoints", FILE))
            for change in save_config(config, workdir, resumes=begun):
                _say(change)
        for number, seed in enumerate(range(config.seed, config.seed + config.ensemble), 1):
            member = config.copy_and_resolve_references()
            member.seed, member.ensemble = seed, 1
            folder = f"seed_{seed}"
            _say(f"Network {number} of {config.ensemble}: {workdir / folder}")
            found = _train_one(member, workdir / folder, **how)
            results |= {f"{folder}/{k}": v for k, v in found.items()}
    return results


def _check(recipe: Recipe, mesh: Mesh) -> None:
    """Raises ValueError for what would be met only after hours of training."""
    config = recipe.config
    shards = mesh.shape["data"]
    if config.batch_size % shards:
        below = config.batch_size // shards * shards
        nearest = " or ".join(str(size) for size in (below, below + shards) if size)
        raise ValueError(
            f"batch_size={config.batch_size} does not divide over {shards} devices; use {nearest}, "
            "or fewer devices with --config.mesh.data"
        )
    found: dict[str, Any] = {}
    for name in ("train", "validation", "test"):
        if name != "test" or config.test_split:
            split = recipe.split(name, labels=name != "test")
            # Others without labels raise here.
            if len(split) and split.source[0]["label"] < 0:
                raise ValueError(
                    f"the test split, {split.split} of {split.name}, has no labels; leave it out "
                    f"with {NO_TEST} (`python -m alexnet_jax.evaluate --workdir W "
                    f"--test_split={split.split}` then writes what the ILSVRC server takes)"
                )
            found[f"number of {name} images"] = len(split)
            found["checksum of the class names"] = crc("\n".join(split.class_names).encode())
    # Making them may take a pass over the images, and a run that goes on has them already.
    constants = recipe.constants if jax.process_count() > 1 else {}
    found |= {f"checksum of the {name}": crc(array.tobytes()) for name, array in constants.items()}
    hosts.check_agreement(found)
    hparams = recipe.hyperparameters(0)
    for multipliers in (hparams.rate_multipliers, hparams.decay_multipliers):
        if multipliers:  # raises where it names a layer that is not there
            expand(multipliers, state_template(recipe.model, mesh).params, {})


def _describe_devices(mesh: Mesh) -> str:
    devices = mesh.devices.flatten()
    kind = f"{devices[0].platform} ({devices[0].device_kind})"
    together = f" of {jax.process_count()} hosts" if jax.process_count() > 1 else ""
    return (
        f"Training on {len(devices)} device(s){together}: {kind}; mesh data={mesh.shape['data']} x "
        f"model={mesh.shape['model']}"
    )
