"""The folder of a run's checkpoints, put in order where an earlier process could not."""

import json
import shutil
import time
from pathlib import Path

import jax
import orbax.checkpoint as ocp

from alexnet_jax.files import whole_file

REPLACED = ".replaced"  # of a checkpoint that another of its step takes the place of
DAMAGED = ".damaged"  # of one that is not what was saved, while the run goes on from an older one
METRICS = Path("metrics", "metrics")  # in a checkpoint: what Orbax keeps the best one by
_TEMPORARY = ocp.path.atomicity_types.TMP_DIR_SUFFIX


def restore_metrics(directory: Path) -> None:
    """Writes anew what Orbax keeps the best checkpoint by, where it is not what was saved."""
    if jax.process_index() != 0:
        return
    for path in directory.glob("*/manifest/metadata"):
        try:
            content = json.loads(json.loads(path.read_bytes())["content"])
            value, step = content["best_metric"], int(path.parents[1].name)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # damaged, which `restore` tells, or of an earlier version
        metrics = path.parents[1] / METRICS
        expected = json.dumps({"value": value, "step": step})
        if value is not None and not (
            metrics.exists() and metrics.read_bytes() == expected.encode()
        ):
            metrics.parent.mkdir(exist_ok=True)
            with whole_file(metrics) as file:
                file.write(expected)


def settle(directory: Path) -> None:
    """Removes what was set aside; puts it back where its replacement is not there."""
    if jax.process_index() != 0:
        return
    for old in directory.glob(f"*{REPLACED}"):
        replacement = Path(str(old).removesuffix(REPLACED))
        if replacement.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(replacement)


def remove_leftovers(directory: Path, looks: int = 1) -> None:
    """Until none was found so many times in a row, or for a few seconds."""
    clean = 0
    for _ in range(100):  # the other writers of a failed save may still be at work for a moment
        leftovers = list(directory.glob(f"*{_TEMPORARY}*"))
        clean = 0 if leftovers else clean + 1
        if clean == looks or jax.process_index() != 0:
            return
        for path in leftovers:
            shutil.rmtree(path, ignore_errors=True)
        time.sleep(0.02)
