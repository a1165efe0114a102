"""Checkpoints: written in the background, checked at restore, placed on any mesh.

One directory a step: `state` (parameters, velocities, step, key), `arrays` (augmentation
constants), `manifest` (metadata and a digest of every leaf) and `metrics`. The last and the best
step are kept.
"""

import json
import logging as python_logging
import math
import os
import re
import shutil
import time
import zlib
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or cannot be used. One line: the fact, then the mend."""


class Restored(NamedTuple):
    state: Any
    arrays: dict[str, np.ndarray]
    metadata: dict[str, Any]
    step: int


class Checkpointer:
    """The checkpoints of one run, for use in a `with` statement. Every process calls every method.

    Keeps the last step and the one with the smallest `best_metric` (of equals, the earlier).
    Leftovers of interrupted saves are removed at the start. `read_only` writes and removes nothing.
    """

    def __init__(self, directory: str | Path, *, read_only: bool = False):
        for name in ("absl", "asyncio"):
            python_logging.getLogger(name).addFilter(_without_orbax)
        self.directory = Path(directory).absolute()
        if not read_only:
            self._remove_leftovers()
            self._settle()
        keep = [
            checkpoint_managers.LatestN(1),
            checkpoint_managers.BestN(
                get_metric_fn=_rank, n=1, keep_checkpoints_without_metrics=False
            ),
        ]
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
        except Exception as error:
            raise CheckpointError(
                f"cannot open the checkpoints in {self.directory}: {_reason(error)}; make the "
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
        except CheckpointError as failure:  # must not hide what ended the run
            error.add_note(str(failure))

    @property
    def latest_step(self) -> int | None:
        """The last step saved or being saved."""
        return self._manager.latest_step()

    @property
    def best_step(self) -> int | None:
        """The step of the smallest `best_metric`; None if no checkpoint has one."""
        return self._manager.best_step()

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
        leaves, _ = _leaves(state)
        digests = jax.device_get(_digests({path: _bits(leaf) for path, leaf in leaves.items()}))
        content = {
            "metadata": metadata,
            "state": {
                path: _signature(leaf) | {"digest": int(digests[path])}
                for path, leaf in leaves.items()
            },
            "arrays": {
                name: _signature(array) | {"digest": _crc(np.ascontiguousarray(array).data)}
                for name, array in arrays.items()
            },
        }
        text = json.dumps(content, sort_keys=True)
        items = {
            "state": ocp.args.PyTreeSave(
                unflatten_dict({path: _bits(leaf) for path, leaf in leaves.items()}, sep="/")
            ),
            "manifest": ocp.args.JsonSave({"crc32": _crc(text.encode()), "content": text}),
        }
        if arrays:
            items["arrays"] = ocp.args.StandardSave(dict(arrays))
        metrics = None
        if best_metric is not None and not math.isnan(best_metric):
            metrics = {"value": float(best_metric), "step": step}
        self._saving = step
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
        self._settle()

    def close(self) -> None:
        """Waits for the last save and frees the threads. Raises CheckpointError if it failed."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def metadata(self, step: int) -> dict[str, Any]:
        """The metadata of checkpoint `step`; loads no arrays."""
        return self._manifest(step)["metadata"]

    def restore(self, template_state: Any, *, step: int | None = None) -> Restored:
        """Restores checkpoint `step` (default: the last) and checks every digest.

        template_state: a tree like the one saved, of arrays or `jax.ShapeDtypeStruct`; each leaf
        is placed with its template's sharding, whatever mesh the checkpoint was written from.
        Raises CheckpointError if there is none, if it does not fit the template, or if it is
        damaged.
        """
        self.wait()
        step = self.latest_step if step is None else step
        if step is None:
            raise CheckpointError(f"no checkpoint in {self.directory}; train first")
        manifest = self._manifest(step)
        leaves, tree = _leaves(template_state)
        difference = _difference(manifest["state"], leaves)
        if difference:
            raise CheckpointError(
                f"checkpoint {self._path(step)} does not fit the model: {difference}; use the "
                "configuration it was saved with, or another --workdir"
            )
        abstract = unflatten_dict({path: _abstract_bits(x) for path, x in leaves.items()}, sep="/")
        placement = ocp.checkpoint_utils.construct_restore_args(abstract)
        items = {"state": ocp.args.PyTreeRestore(abstract, restore_args=placement)}
        arrays = {name: _zeros(signature) for name, signature in manifest["arrays"].items()}
        if arrays:
            items["arrays"] = ocp.args.StandardRestore(arrays)
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        except Exception as error:
            raise self._damage(step, _reason(error)) from error
        state = flatten_dict(restored["state"], sep="/")
        arrays = restored["arrays"] if arrays else {}
        found = {
            "state": jax.device_get(_digests(state)),
            "arrays": {name: _crc(array.data) for name, array in arrays.items()},
        }
        for item, digests in found.items():
            for path, digest in digests.items():
                if digest != manifest[item][path]["digest"]:
                    raise self._damage(step, f"{path} is not what was saved")
        state = {
            path: jax.random.wrap_key_data(state[path], impl=signature["key"])
            if "key" in signature
            else state[path]
            for path, signature in manifest["state"].items()
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
            raise CheckpointError(f"no checkpoint {step} in {self.directory}; there: {there}")
        try:
            args = ocp.args.Composite(manifest=ocp.args.JsonRestore())
            saved = self._manager.restore(step, args=args)["manifest"]
            text, crc = saved["content"], saved["crc32"]
        except Exception as error:
            raise self._damage(step, _reason(error)) from error
        if _crc(text.encode()) != crc:
            raise self._damage(step, "its metadata is not what was saved")
        return json.loads(text)

    def _path(self, step: int) -> Path:
        return self.directory / str(step)

    def _damage(self, step: int, fact: str) -> CheckpointError:
        others = [other for other in self._manager.all_steps() if other != step]
        then = f"resume from checkpoint {max(others)}" if others else "start again"
        return CheckpointError(
            f"checkpoint {self._path(step)} is damaged: {fact}; delete that directory to {then}"
        )

    def _failure(self, error: Exception) -> CheckpointError:
        """Puts the directory in order after a failed save. Returns the error to raise."""
        self._remove_leftovers()
        self._settle()
        self._manager.reload()  # Orbax has already struck out the steps this save was to replace
        latest = self.latest_step
        intact = "" if latest is None else f"; checkpoint {latest} is intact"
        return CheckpointError(
            f"checkpoint {self._saving} could not be written in {self.directory}: "
            f"{_reason(error)}; make room there or use another --workdir{intact}"
        )

    def _set_aside(self, step: int) -> None:
        """Makes room for another checkpoint of `step`; this one goes once that one is whole."""
        if jax.process_index() == 0:
            self._path(step).rename(f"{self._path(step)}{_REPLACED}")
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("checkpoint set aside")
        self._manager.reload()

    def _settle(self) -> None:
        """Removes what was set aside; puts it back where its replacement is not there."""
        if jax.process_index() != 0:
            return
        for old in self.directory.glob(f"*{_REPLACED}"):
            replacement = Path(str(old).removesuffix(_REPLACED))
            if replacement.exists():
                shutil.rmtree(old, ignore_errors=True)
            else:
                old.rename(replacement)

    def _remove_leftovers(self) -> None:
        for _ in range(50):  # the other writers of a failed save may still be at work for a moment
            leftovers = list(self.directory.glob(f"*{_TEMPORARY}*"))
            if not leftovers or jax.process_index() != 0:
                return
            for path in leftovers:
                shutil.rmtree(path, ignore_errors=True)
            time.sleep(0.02)


_REPLACED = ".replaced"
_TEMPORARY = ocp.path.atomicity_types.TMP_DIR_SUFFIX


def _without_orbax(record: python_logging.LogRecord) -> bool:
    """Drops Orbax's own log, many tracebacks for one error, unless --verbosity=1 asks for it."""
    source = record.getMessage() if record.name == "asyncio" else record.pathname
    return logging.level_debug() or f"{os.sep}orbax{os.sep}" not in source


def _rank(metrics: dict[str, float]) -> Any:
    """Sorts the best last: the lowest value, of equals the earliest."""
    return -metrics["value"], -metrics["step"]


def _reason(error: Exception) -> str:
    """The cause in a few words: the system's error if there is one, else the first line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error) or type(error).__name__
    if code := re.search(r"os_error_code='(\d+)'", text):  # TensorStore, writing
        return os.strerror(int(code[1]))
    if leaf := re.search(r"'path': '([^/']+)/'", text):  # TensorStore, reading
        return f"{leaf[1].replace('.', '/')} cannot be read"
    return text.splitlines()[0]


def _crc(data: bytes | memoryview) -> int:
    return zlib.crc32(data)


def _leaves(tree: Any) -> tuple[dict[str, Any], Any]:
    """Leaves by path, such as `params/conv1/kernel`, and the structure."""
    leaves, structure = jax.tree.flatten_with_path(tree)
    name = {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves}
    return name, structure


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _bits(leaf: jax.Array) -> jax.Array:
    """PRNG keys as the uint32 they consist of; anything else as it is."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _abstract_bits(leaf: Any) -> jax.ShapeDtypeStruct:
    bits = jax.eval_shape(_bits, leaf)
    sharding = getattr(leaf, "sharding", None)
    sharding = sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(bits.shape, bits.dtype, sharding=sharding)


def _signature(leaf: Any) -> dict[str, Any]:
    key = {"key": jax.random.key_impl(leaf)} if _is_key(leaf) else {}
    return {"shape": list(leaf.shape), "dtype": str(leaf.dtype)} | key


def _zeros(signature: dict[str, Any]) -> np.ndarray:
    return np.zeros(signature["shape"], signature["dtype"])


def _difference(saved: dict[str, Any], wanted: dict[str, Any]) -> str | None:
    """The first leaf in which a checkpoint and a model differ, in words."""

    def describe(shape, dtype):
        return f"{dtype}[{', '.join(map(str, shape))}]"

    for path in saved | wanted:
        there = path in saved and describe(saved[path]["shape"], saved[path]["dtype"])
        here = path in wanted and describe(wanted[path].shape, wanted[path].dtype)
        if not here:
            return f"the model has no {path} ({there} in the checkpoint)"
        if not there:
            return f"the checkpoint has no {path} ({here} in the model)"
        if there != here:
            return f"{path} is {there} in the checkpoint, {here} in the model"
    return None


def _digest(array: jax.Array) -> jax.Array:
    """A uint32 of an array's bits that no mesh changes.

    The sum modulo 2^32 of every word, scrambled, times an odd weight for its position: each factor
    is a bijection, so any change within one word changes the digest, and larger ones all but
    2^-32 of the time.
    """
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    width = min(array.dtype.itemsize, 4)  # eight bytes become two words
    bits = jax.lax.bitcast_convert_type(array, f"uint{8 * width}").astype(jnp.uint32)
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x7FEB352D)
    bits = bits ^ (bits >> 15)
    position = jnp.zeros(bits.shape, jnp.uint32)
    for axis in range(bits.ndim):
        stride = math.prod(bits.shape[axis + 1 :]) % 2**32
        position += jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis) * jnp.uint32(stride)
    return jnp.sum(bits * (2 * position + 1), dtype=jnp.uint32)


@jax.jit
def _digests(leaves: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {path: _digest(leaf) for path, leaf in leaves.items()}
