"""What a reader of another format gives, and how it becomes a run of this library."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from alexnet_jax.augment import Augmentation
from alexnet_jax.configs import imagenet2012_caffe, imagenet2012_original
from alexnet_jax.files import local_path, naming, output_folder, part_folder, reading
from alexnet_jax.models.alexnet import AlexNet
from alexnet_jax.models.network import LayeredNetwork
from alexnet_jax.models.presets import alexnet
from alexnet_jax.runs.checkpoint import Checkpointer, CheckpointError
from alexnet_jax.runs.configuration import noted, save_config
from alexnet_jax.runs.recipe import split_augmentation
from alexnet_jax.runs.workdir import Run
from alexnet_jax.state import run_key
from alexnet_jax.step import create_train_state
from alexnet_jax.wording import align

Params = Mapping[str, Mapping[str, np.ndarray]]
NO_ALEXNET = " is no AlexNet"  # what readers say, and why

# RGB; Caffe's ilsvrc_2012_mean.npy averaged, of images squeezed to squares.
CAFFE_MEAN = np.array([122.67891434, 116.66876762, 104.00698793], np.float32)


class Imported(NamedTuple):
    """Weights of another program in this one's layout.

    Fields:
      source: the file they came from.
      preset: the named net that computes what theirs does.
      fields: those of the net that differ from the preset's.
      params: layer -> {"kernel", "bias"}, float32.
      mean: float32 [3] or [S, S, 3], RGB, pixels 0-255.
      done: layer -> what was done to its weights, in words.
    """

    source: Path
    preset: str
    fields: dict[str, Any]
    params: Params
    mean: np.ndarray
    done: dict[str, str]

    def table(self) -> str:
        """Layer, shape, and what was done to the weights, to print."""
        lines: list[tuple[str, ...]] = [("layer", "kernel", "bias", "what was done")]
        for layer, leaves in self.params.items():
            kernel, bias = ("x".join(map(str, leaves[n].shape)) for n in ("kernel", "bias"))
            lines.append((layer, kernel, bias, self.done[layer]))
        return align(lines)


def checked(imported: Imported) -> AlexNet:
    """The net of imported weights, all of which fit it.

    Raises:
      ValueError: one is missing, of another shape, or not finite, or one is left over; the message
        names the first.
    """
    what = f"the net {imported.preset!r}"
    with naming(imported.source, NO_ALEXNET):
        net = alexnet(imported.preset, **imported.fields)
        check_params(net, imported.params, imported.source, what, "; give another --preset")
    return net


def check_params(
    net: LayeredNetwork, params: Params, source: Path, what: str, instead: str = ""
) -> None:
    """Raises ValueError where `params` of the file `source` are not those of `net`; see `checked`.

    `what` is how the message calls the net, and `instead` what it ends with.
    """
    wanted = _shapes(net)
    for layer, leaves in wanted.items():
        for name, leaf in leaves.items():
            found = params.get(layer, {}).get(name)
            if found is None:
                raise ValueError(f"{source} has no {name} of {layer}")
            if found.shape != leaf.shape:
                raise ValueError(
                    f"{source}: the {name} of {layer} has the shape {found.shape} where {what} has "
                    f"{leaf.shape}{instead}"
                )
            if not np.isfinite(found).all():
                raise ValueError(f"{source}: the {name} of {layer} has values that are not finite")
    for layer in params:
        if layer not in wanted:
            raise ValueError(f"{source} has a layer {layer!r}, which {what} has not{instead}")


@functools.lru_cache(maxsize=8)
def _shapes(net: LayeredNetwork) -> Any:
    return jax.eval_shape(lambda: create_train_state(net, run_key(0))).params


def square_side(inputs: int, channels: int, source: Path) -> int:
    """The side of the square maps whose `inputs` values a full connection reads.

    Raises:
      ValueError: there are no such maps.
    """
    side = round((inputs / max(channels, 1)) ** 0.5)
    if side * side * channels != inputs:
        raise ValueError(
            f"{source}: fc6 reads {inputs} values, no square maps of conv5's {channels} channels"
        )
    return side


def read_mean(
    path: str | Path | None,
    parse: Callable[[Path], Any],
    *,
    bgr: bool = False,
    usual: np.ndarray = CAFFE_MEAN,
) -> np.ndarray:
    """The mean that another program took from its images: float32 [3] or [S, S, 3], RGB, 0-255.

    Args:
      path: of a `.npy` file, [3] or [3, S, S], or of one in the other program's format.
      parse: reads the latter; one flat vector will do as well.
      bgr: the planes are blue, green, red.
      usual: the mean where there is no path.

    Raises:
      ValueError: the file is damaged, or holds no mean of three planes.
    """
    if path is None:
        return usual
    path = local_path(path)
    with reading(path, " is no array of means"):
        mean = np.load(path, allow_pickle=False) if path.suffix == ".npy" else parse(path)
        if np.asarray(mean).dtype.kind not in "fiu":
            raise ValueError(f"it is of type {np.asarray(mean).dtype}")
        mean = np.squeeze(np.asarray(mean, np.float32))
    side = round((mean.size / 3) ** 0.5)
    if not side or mean.size != 3 * side**2 or mean.shape not in ((mean.size,), (3, side, side)):
        raise ValueError(f"{path} has the shape {mean.shape}; a mean has [3] or [3, S, S]")
    if not np.isfinite(mean).all():
        raise ValueError(f"{path} holds values that are not finite")
    planes = mean.reshape(3, side, side)[:: -1 if bgr else 1]
    return np.ascontiguousarray(planes[:, 0, 0] if side == 1 else planes.transpose(1, 2, 0))


def write_run(
    imported: Imported, workdir: str | Path, class_names: tuple[str, ...], dataset: str
) -> None:
    """Writes imported weights as a run, whole or not at all: evaluate, predict, features, report
    and `init_from` take it as one that was trained here.

    Args:
      imported: what a reader gave.
      workdir: a folder that is not there yet.
      class_names: what the outputs stand for, in order.
      dataset: the prepared data set that `evaluate` is to take by default.

    Raises:
      ValueError: the weights do not fit, the folder is there, the classes are too few or many, or
        the net or its mean is of other images than those that are stored.
    """
    net = checked(imported)
    if len(class_names) != net.num_classes:
        raise ValueError(
            f"{len(class_names)} class names for {net.num_classes} outputs; give --classes=FILE, "
            "one name a line"
        )
    config = _config(imported, dataset)
    stored, mean = config.stored_size, imported.mean
    if net.image_size > stored:
        raise ValueError(
            f"{imported.source}: fc6 reads maps of images of {net.image_size} pixels and those "
            f"of a run are stored at {stored}; use it in Python, as docs/convert.md shows"
        )
    if mean.ndim == 3 and len(mean) != stored:
        raise ValueError(
            f"the mean image has {len(mean)} pixels a side and a run's images are stored at "
            f"{stored}; give a --mean of {stored} pixels, or of a colour"
        )
    augmentation = Augmentation(
        color="none", mean=imported.mean, mean_at=config.augmentation.mean_at
    )
    state = create_train_state(net, run_key(0))
    state = state.replace(params=jax.tree.map(jax.numpy.asarray, dict(imported.params)))
    run = Run(imported.source, config, net, augmentation, state, class_names, 0)
    save_run(run, workdir)


def save_run(run: Run, workdir: str | Path) -> None:
    """Writes a network as a folder that every command takes, whole or not at all.

    Args:
      run: with what is to be kept.
      workdir: a folder that is not there yet.

    Raises:
      ValueError: the folder is there.
    """
    workdir = local_path(workdir)
    if workdir.exists():
        raise ValueError(f"{workdir} is there already; give another --workdir")
    settings, arrays = split_augmentation(dataclasses.replace(run.augmentation, image_size=None))
    fresh = create_train_state(run.model, run_key(run.config.seed))
    state = fresh.replace(params=run.params, step=jax.numpy.full_like(fresh.step, run.step))
    config = run.config
    metadata = {
        # Of a training that goes on from here nothing is known yet.
        "progress": {"schedule": {}, "validated": 0, "sums": {}},
        "class_names": list(run.class_names),
        "dataset": config.dataset,
        "config": noted(config),
        "augmentation": settings,
    }
    output_folder(workdir.parent)
    with part_folder(workdir) as part:
        save_config(config, part, resumes=False)
        try:
            with Checkpointer(part / "checkpoints") as checkpoints:
                checkpoints.save(
                    run.step, state, arrays=arrays, metadata=metadata, best_metric=None
                )
        except CheckpointError as error:  # the user knows the folder that it was to become
            raise CheckpointError(str(error).replace(str(part), str(workdir))) from error
        try:
            part.rename(workdir)
        except OSError as error:
            if not workdir.exists():
                raise
            raise ValueError(
                f"{workdir} was made by another process meanwhile; give another --workdir"
            ) from error


def _config(imported: Imported, dataset: str) -> ConfigDict:
    """The authors' recipe for their nets, Caffe's for all others, with the net as imported."""
    theirs = imagenet2012_original if imported.preset == "original" else imagenet2012_caffe
    config = theirs.get_config()
    config.preset, config.dataset = imported.preset, dataset
    for field, value in imported.fields.items():
        if field != "num_classes":
            config.model[field] = value
    return config
