"""The folder of a run's checkpoints, put in order where an earlier process could not."""

import json
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from alexnet_jax.files import whole_file
from alexnet_jax.kinds import is_finite

REPLACED = ".replaced"  # of a checkpoint that another of its step takes the place of
DAMAGED = ".damaged"  # of one that is not what was saved, while the run goes on from an older one
METRICS = Path("metrics", "metrics")  # in a checkpoint: what Orbax keeps the best one by
# Numbers in one of its arrays: a mean of the largest images that a run may store.
_MOST = 4096 * 4096 * 3
_TEMPORARY = ocp.path.atomicity_types.TMP_DIR_SUFFIX


def misplaced(path: Path) -> str | None:
    """What `path` is where it should be a folder, in words; None of a folder, and of nothing."""
    if path.is_symlink() and not path.exists():
        return f"{path} is a link to {os.readlink(path)}, which is not there"
    return f"{path} is a file, not a folder" if path.is_file() else None


def restore_metrics(directory: Path) -> None:
    """Writes anew what Orbax keeps the best checkpoint by, where it is not what was saved."""
    if jax.process_index() != 0:
        return
    for path in directory.glob("*/manifest/metadata"):
        try:
            content = json.loads(json.loads(path.read_bytes())["content"])
            value, step = content["best_metric"], int(path.parents[1].name)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
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


def check_manifest(manifest: dict[str, Any]) -> None:
    """Raises ValueError where a manifest, which may be of anywhere, is not as `save` writes it."""
    for name in ("metadata", "state", "arrays"):
        if not isinstance(manifest.get(name), dict):
            raise ValueError(f"its metadata has no table {name!r}")
    for path, noted in (*manifest["state"].items(), *manifest["arrays"].items()):
        if not _is_signature(noted):
            raise ValueError(f"its metadata has {noted!r:.60} of {path}")
    for name, noted in manifest["arrays"].items():  # memory is taken as they say
        known = noted["dtype"] in np.sctypeDict and np.dtype(noted["dtype"]).kind in "biuf"
        if not known or math.prod(noted["shape"]) > _MOST:
            raise ValueError(f"its metadata has {noted!r:.60} of {name}")
    best = manifest.get("best_metric")
    if best is not None and not (isinstance(best, int | float) and is_finite(best)):
        raise ValueError(f"its metadata has the metric {best!r:.40}")


def _is_signature(noted: Any) -> bool:
    """Whether it has the types of a leaf's: shape, dtype, digest and, of PRNG keys, their kind."""
    if not isinstance(noted, dict):
        return False
    shape = noted.get("shape")
    return (
        isinstance(shape, list)
        and all(type(side) is int and side >= 0 for side in shape)
        and isinstance(noted.get("dtype"), str)
        and type(noted.get("digest")) is int
        and noted.get("key", "threefry2x32") in ("threefry2x32", "rbg", "unsafe_rbg")
    )
