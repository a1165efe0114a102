"""Checkpoints: written in the background, checked at restore, placed on any mesh.

One directory a step: `state` (parameters, velocities, step, key), `arrays` (augmentation
constants), `manifest` (metadata and a digest of every leaf) and `metrics`. The last and the best
step are kept, and those of `keep_every_epochs`.
"""

import errno
import json
import logging as python_logging
import math
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from alexnet_jax.data.names import printable
from alexnet_jax.files import json_object
from alexnet_jax.runs.checkpoint_folder import (
    DAMAGED,
    METRICS,
    REPLACED,
    check_manifest,
    misplaced,
    remove_leftovers,
    restore_metrics,
    settle,
)
from alexnet_jax.runs.digest import crc, digests
from alexnet_jax.runs.leaves import abstract_bits, bits, difference, leaves_of, signature, zeros
from alexnet_jax.runs.orbax_errors import error_number, hush_orbax, reason, without_orbax


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or cannot be used. One line: the fact, then what to do."""


class DamagedCheckpoint(CheckpointError):
    """A checkpoint is not what was saved."""


class Restored(NamedTuple):
    """What a checkpoint held; `arrays` and `metadata` as given to `Checkpointer.save`."""

    state: Any
    arrays: dict[str, np.ndarray]
    metadata: dict[str, Any]
    step: int


class Checkpointer:
    """The checkpoints of one run, for use in a `with` statement. Every process calls every method.

    Keeps the last step, the one with the smallest `best_metric` (of equals, the earlier), and those
    whose number `keep_every` divides, 0 among them. Leftovers of interrupted saves are removed at
    the start. `read_only` writes and removes nothing.
    """

    def __init__(
        self, directory: str | Path, *, keep_every: int | None = None, read_only: bool = False
    ):
        hush_orbax()
        for name in ("absl", "asyncio"):
            python_logging.getLogger(name).addFilter(without_orbax)
        self.directory = Path(directory).absolute()
        if magic := sorted(set("*?[") & set(str(self.directory))):
            raise CheckpointError(  # it looks for its parts with such patterns, and finds none
                f"{self.directory} has {' and '.join(magic)} in its name, which Orbax takes for a "
                "pattern; give a --workdir without"
            )
        try:
            str(self.directory).encode()
        except UnicodeEncodeError as error:
            raise CheckpointError(
                f"{printable(self.directory)} has bytes in its name that are not UTF-8, and Orbax "
                "takes no such folder; rename it, or give another --workdir"
            ) from error
        self._read_only = read_only
        if told := misplaced(self.directory):
            raise CheckpointError(f"{told}; put the checkpoints back, or use another --workdir")
        for path in sorted(self.directory.glob("[0-9]*")):
            if path.name.isdecimal() and (told := misplaced(path)):  # which Orbax does not see
                raise CheckpointError(
                    f"{told}; put the checkpoint back, or remove this to do without"
                )
        if not read_only:
            remove_leftovers(self.directory)
            settle(self.directory)
            restore_metrics(self.directory)
        keep = [
            checkpoint_managers.LatestN(1),
            checkpoint_managers.BestN(
                get_metric_fn=_rank, n=1, keep_checkpoints_without_metrics=False
            ),
        ]
        self._keep_every = keep_every
        if keep_every:
            keep.append(checkpoint_managers.EveryNSteps(keep_every))
        options = ocp.CheckpointManagerOptions(
            best_fn=_rank,
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(keep),
            read_only=read_only,
            create=not read_only,
        )
        handlers = {
            # Weights hardly compress: without, writing takes 3/4 and reading 1/2 of the time.
            "state": ocp.PyTreeCheckpointHandler(use_compression=False),
            "arrays": ocp.StandardCheckpointHandler(),
            "manifest": ocp.JsonCheckpointHandler(),
        }
        try:
            self._manager = ocp.CheckpointManager(
                self.directory, options=options, item_handlers=handlers
            )
        except json.JSONDecodeError as error:  # Orbax reads the metrics of all of them at once
            raise DamagedCheckpoint(
                f"a file {METRICS} in {self.directory} is damaged ({error}); the command that "
                "trains writes it anew"
            ) from error
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise DamagedCheckpoint(
                f"a file _CHECKPOINT_METADATA in {self.directory} is damaged ({reason(error)}); "
                "remove it, nothing else needs it"
            ) from error
        except Exception as error:
            raise CheckpointError(
                f"cannot open the checkpoints in {self.directory}: {reason(error)}; make the "
                "directory readable and writable, or use another --workdir"
            ) from error
        self._saving: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _, error: BaseException | None, traceback) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close()
        except Exception as failure:  # must not hide what ended the run
            error.add_note(str(failure))

    @property
    def latest_step(self) -> int | None:
        """The last step saved or being saved."""
        return self._manager.latest_step()

    @property
    def steps(self) -> tuple[int, ...]:
        """All steps that are there, in order."""
        return tuple(sorted(self._manager.all_steps()))

    @property
    def best_step(self) -> int | None:
        """The step of the smallest `best_metric`; None if no checkpoint has one.

        Raises DamagedCheckpoint where that cannot be told.
        """
        metrics = {step: self._metric(step) for step in self._manager.all_steps()}
        ranked = [(value, step) for step, value in metrics.items() if value is not None]
        return min(ranked)[1] if ranked else None

    def save(
        self,
        step: int,
        state: Any,
        *,
        arrays: dict[str, np.ndarray],
        metadata: dict[str, Any],
        best_metric: float | None,
    ) -> None:
        """Copies `state` off the devices and writes it in the background.

        state: a tree of `jax.Array`, typed PRNG keys among them, on any mesh; it may be donated
        as soon as this returns. arrays: NumPy arrays, the same on every process. metadata: JSON.
        best_metric: the lower the better; None (or NaN) never counts as best. A step that is there
        already is replaced if `best_metric` is given, else left.
        Raises CheckpointError if this save, or the one before it, fails.
        """
        self.wait()
        if step in self._manager.all_steps() and best_metric is None:
            return
        leaves, _ = leaves_of(state)
        found = jax.device_get(digests({path: bits(leaf) for path, leaf in leaves.items()}))
        if best_metric is not None and math.isnan(best_metric):
            best_metric = None
        content = {
            "metadata": metadata,
            "best_metric": best_metric,
            "state": {
                path: signature(leaf) | {"digest": int(found[path])}
                for path, leaf in leaves.items()
            },
            "arrays": {
                name: signature(array) | {"digest": crc(np.ascontiguousarray(array).data)}
                for name, array in arrays.items()
            },
        }
        text = json.dumps(content, sort_keys=True)
        items = {
            "state": ocp.args.PyTreeSave(
                unflatten_dict({path: bits(leaf) for path, leaf in leaves.items()}, sep="/")
            ),
            "manifest": ocp.args.JsonSave({"crc32": crc(text.encode()), "content": text}),
        }
        if arrays:
            items["arrays"] = ocp.args.StandardSave(dict(arrays))
        metrics = None
        if best_metric is not None:
            metrics = {"value": float(best_metric), "step": step}
        self._saving = step
        self._bytes = sum(leaf.nbytes for leaf in (*leaves.values(), *arrays.values()))
        try:
            if step in self._manager.all_steps():
                self._set_aside(step)
            self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics, force=True)
        except Exception as error:
            raise self._failure(error) from error

    def wait(self) -> None:
        """Waits until the last save is on disk. Raises CheckpointError if it failed."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._failure(error) from error
        if not self._read_only:  # a training may be replacing what was set aside
            settle(self.directory)

    def close(self) -> None:
        """Waits for the last save and frees the threads. Raises CheckpointError if it failed."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def metadata(self, step: int) -> dict[str, Any]:
        """The metadata of checkpoint `step`; loads no arrays."""
        return self._manifest(step)["metadata"]

    def restore_newest(self, template_state: Any) -> tuple[Restored, list[str]]:
        """Restores the newest checkpoint that is whole, and says what is wrong with newer ones.

        Those are set aside as `<step>.damaged`, so that the run can go on. Older ones that the last
        save was too late to remove go now. Raises as `restore`; DamagedCheckpoint only if none is
        whole.
        """
        self.wait()
        problems: list[DamagedCheckpoint] = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                restored = self.restore(template_state, step=step)
            except DamagedCheckpoint as error:
                problems.append(error)
                continue
            for newer in self._manager.all_steps():
                if newer > step:
                    self._rename(newer, f"{self._path(newer)}{DAMAGED}")
            told = [str(error) for error in problems]
            return restored, told or self._remove_old()
        if problems:
            raise problems[0]
        raise CheckpointError(f"there is no checkpoint in {self.directory}; train first")

    def _remove_old(self) -> list[str]:
        """Removes what a save removes, as it may have been killed in between; what to say of it."""
        halves = [
            step
            for step in self.steps[:-1]
            if not (self._path(step) / "manifest" / "metadata").exists()
        ]
        self._delete(halves)  # killed while one was removed
        try:
            kept = {self.latest_step, self.best_step}
        except DamagedCheckpoint:  # which is the best cannot be told
            kept = {*self.steps}
        every = self._keep_every
        self._delete([x for x in self.steps if x not in kept and (every is None or x % every)])
        return [f"checkpoint {self._path(x)} was half removed; it is gone now" for x in halves]

    def _delete(self, steps: Sequence[int]) -> None:
        if jax.process_count() > 1:  # all have looked at what is there before any of it goes
            multihost_utils.sync_global_devices("checkpoints to remove")
        for step in steps:
            self._manager.delete(step)

    def restore(
        self, template_state: Any, *, step: int | None = None, partial: bool = False
    ) -> Restored:
        """Restores checkpoint `step` (default: the last) and checks every digest.

        template_state: a tree like the one saved, of arrays or `jax.ShapeDtypeStruct`; each leaf
        is placed with its template's sharding, whatever mesh the checkpoint was written from. With
        `partial` the checkpoint may hold more, which is not read.
        Raises CheckpointError if there is none, or if it does not fit the template;
        DamagedCheckpoint if it is not what was saved.
        """
        self.wait()
        step = self.latest_step if step is None else step
        if step is None:
            raise CheckpointError(f"there is no checkpoint in {self.directory}; train first")
        manifest = self._manifest(step)
        leaves, tree = leaves_of(template_state)
        saved = manifest["state"]
        if partial:
            saved = {path: saved[path] for path in leaves if path in saved}
        if unlike := difference(saved, leaves):
            raise CheckpointError(
                f"checkpoint {self._path(step)} does not fit the model: {unlike}; use the "
                "configuration it was saved with, or another --workdir"
            )
        abstract = unflatten_dict({path: abstract_bits(x) for path, x in leaves.items()}, sep="/")
        placement = ocp.checkpoint_utils.construct_restore_args(abstract)
        items = {
            "state": ocp.args.PyTreeRestore(
                abstract, restore_args=placement, partial_restore=partial
            )
        }
        arrays = {name: zeros(noted) for name, noted in manifest["arrays"].items()}
        if arrays:
            items["arrays"] = ocp.args.StandardRestore(arrays)
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        except Exception as error:
            raise self._damage(step, reason(error)) from error
        state = flatten_dict(restored["state"], sep="/")
        arrays = restored["arrays"] if arrays else {}
        found = {
            "state": jax.device_get(digests(state)),
            "arrays": {name: crc(array.data) for name, array in arrays.items()},
        }
        for item, values in found.items():
            for path, digest in values.items():
                if digest != manifest[item][path]["digest"]:
                    raise self._damage(step, f"{path} is not what was saved")
        state = {
            path: jax.random.wrap_key_data(state[path], impl=noted["key"])
            if "key" in noted
            else state[path]
            for path, noted in saved.items()
        }
        return Restored(
            jax.tree.unflatten(tree, [state[path] for path in leaves]),
            arrays,
            manifest["metadata"],
            step,
        )

    def _manifest(self, step: int) -> dict[str, Any]:
        if step not in self._manager.all_steps():
            there = ", ".join(map(str, self._manager.all_steps())) or "none"
            raise CheckpointError(f"{self.directory} has no checkpoint {step}; there: {there}")
        try:
            args = ocp.args.Composite(manifest=ocp.args.JsonRestore())
            saved = self._manager.restore(step, args=args)["manifest"]
            text, expected = saved["content"], saved["crc32"]
            if crc(text.encode()) != expected:
                raise ValueError("its metadata is not what was saved")
            manifest = json_object(text, "its metadata")
            check_manifest(manifest)
        except Exception as error:
            raise self._damage(step, reason(error)) from error
        return manifest

    def _path(self, step: int) -> Path:
        return self.directory / str(step)

    def _metric(self, step: int) -> float | None:
        """The `best_metric` of a checkpoint; None if it has none."""
        manifest = self._manifest(step)
        if "best_metric" in manifest:
            return manifest["best_metric"]
        path = self._path(step) / METRICS  # of an earlier version: it stands there alone
        try:
            return float(json.loads(path.read_bytes())["value"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damage(step, f"{path} cannot be read ({error})") from error

    def _damage(self, step: int, fact: str) -> DamagedCheckpoint:
        if not self._path(step).is_dir():
            return DamagedCheckpoint(
                f"checkpoint {self._path(step)} is gone: a run that trains has newer ones; start "
                "the command again"
            )
        others = [other for other in self._manager.all_steps() if other != step]
        then = f"use checkpoint {max(others)}" if others else "start again"
        return DamagedCheckpoint(
            f"checkpoint {self._path(step)} is damaged: {fact}; delete that directory to {then}"
        )

    def _failure(self, error: Exception) -> CheckpointError:
        """Puts the directory in order after a failed save. Returns the error to raise."""
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        remove_leftovers(self.directory, looks=5)
        settle(self.directory)
        self._manager.reload()  # Orbax has already struck out the steps this save was to replace
        latest = self.latest_step
        intact = "" if latest is None else f"; checkpoint {latest} is intact"
        size, number = _readable(self._bytes), error_number(error)
        if number in (errno.ENOSPC, errno.EDQUOT):
            free = _readable(shutil.disk_usage(self.directory).free)
            advice = f"make room there (a checkpoint takes {size}, {free} are free)"
        elif number == errno.EFBIG:
            advice = f"allow larger files (`ulimit -f`; a checkpoint takes {size})"
        else:
            advice = "see that files and folders can be made there"
        return CheckpointError(
            f"checkpoint {self._saving} could not be written in {self.directory}: "
            f"{reason(error)}; {advice} or use another --workdir{intact}"
        )

    def _set_aside(self, step: int) -> None:
        """Makes room for another checkpoint of `step`; this one goes once that one is whole."""
        self._rename(step, f"{self._path(step)}{REPLACED}")

    def _rename(self, step: int, path: str) -> None:
        """Takes a checkpoint out of those that count."""
        if jax.process_index() == 0:
            shutil.rmtree(path, ignore_errors=True)
            self._path(step).rename(path)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("checkpoint set aside")
        self._manager.reload()


def _readable(size: int) -> str:
    """A number of bytes in words."""
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.1f} GB"


def _rank(metrics: dict[str, float]) -> Any:
    """Sorts the best last: the lowest value, of equals the earliest."""
    return -metrics.get("value", math.inf), -metrics.get("step", math.inf)
