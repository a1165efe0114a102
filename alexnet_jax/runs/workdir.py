"""A run's folder, and the network that its checkpoints hold.

config.json      the resolved configuration
metrics.jsonl    one measurement per line
checkpoints/     the last and the best, and those of `keep_every_epochs`
events.out.*     the same measurements for TensorBoard
seed_0/ …        of an ensemble: a run each
"""

import dataclasses
import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh
from ml_collections import ConfigDict

from alexnet_jax import parallel
from alexnet_jax.activations import outputs_of_batches
from alexnet_jax.augment import Augmentation
from alexnet_jax.compilation import made_once
from alexnet_jax.data.batches import padded_batches
from alexnet_jax.data.images import square
from alexnet_jax.data.records import Batch
from alexnet_jax.eval_step import make_predict_step
from alexnet_jax.files import local_path, naming
from alexnet_jax.kinds import is_kind
from alexnet_jax.models.network import LayeredNetwork
from alexnet_jax.runs.checkpoint import Checkpointer, CheckpointError, DamagedCheckpoint
from alexnet_jax.runs.checkpoint_folder import misplaced
from alexnet_jax.runs.configuration import check_own, load_config, members, name_a_member
from alexnet_jax.runs.recipe import build_augmentation, build_model
from alexnet_jax.state import TrainState
from alexnet_jax.step import state_template

# As long as a training may take to remove a checkpoint that is being read.
_WAIT_SECONDS = 0.3


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A trained network and all it takes to use it, from `load_run`.

    Fields:
      workdir: its folder.
      config: the configuration it was trained with.
      model: the network.
      augmentation: what is done to the images.
      state: the parameters, step and key; without the velocities.
      class_names: what the outputs stand for.
      step: updates done.
      mesh: the devices that the state lies on; None is the default device.
    """

    workdir: Path
    config: ConfigDict
    model: LayeredNetwork
    augmentation: Augmentation
    state: TrainState
    class_names: tuple[str, ...]
    step: int
    mesh: Mesh | None = None

    @property
    def params(self) -> dict[str, dict[str, jax.Array]]:
        """Layer -> {"kernel", "bias"}, float32."""
        return self.state.params

    @property
    def views(self) -> str:
        """The views to test with: "ten", or "center" if it never saw mirrored images."""
        return "ten" if getattr(self.augmentation, "flip", True) else "center"

    def predict(
        self,
        images: np.ndarray | Sequence[np.ndarray],
        *,
        views: str | None = None,
        batch_size: int = 32,
    ) -> np.ndarray:
        """Probabilities float32 [N, num_classes] of images, in order.

        Args:
          images: uint8 [N, H, W, 3] or a sequence of [H, W, 3], RGB; scaled and cut to the stored
            size where they have another.
          views: "ten" (mean of the probabilities of ten views) or "center"; None: `self.views`.
          batch_size: images at a time.

        Raises:
          ValueError: an image is not uint8 RGB, the views are unknown, or a batch is empty.

        Source: AlexNet §4.1.
        """
        _check_batch_size(batch_size)
        size = self.config.stored_size
        pixels = [_stored(image, size) for image in images]
        if not pixels:
            return np.zeros((0, self.model.num_classes), np.float32)
        step = _predict_step(self.model, self.augmentation, views or self.views, self.mesh)
        shards = 1 if self.mesh is None else self.mesh.shape["data"]
        # Few sizes, so that few programs are compiled; the last image is repeated to fill one.
        rows = -(-min(batch_size, 1 << (len(pixels) - 1).bit_length()) // shards) * shards
        parts = []
        for start in range(0, len(pixels), rows):
            chosen = np.minimum(np.arange(start, start + rows), len(pixels) - 1)
            batch = {"image": np.stack([pixels[n] for n in chosen])}
            parts.append(np.exp(step(self.state, batch))[: len(pixels) - start])
        return np.concatenate(parts)

    def features(
        self,
        images: np.ndarray | Sequence[np.ndarray],
        layers: str | Sequence[str] = (),
        *,
        maps: str = "whole",
        batch_size: int = 32,
    ) -> dict[str, np.ndarray]:
        """Layer -> float32 [N, H, W, C] or [N, D] of images' centre crops, in order.

        Args:
          images: as of `predict`.
          layers: "conv1" to "fc8" (what the next layer reads), "conv1.linear", "conv1.relu",
            "conv1.lrn", "pool1", … (`activations.known_outputs`), one alone too, or "all"; none is
            fc7.
          maps: of convolutions the "whole" maps, or their "mean" or "max" over places, [N, C].
          batch_size: images at a time.

        Raises:
          ValueError: an image is not uint8 RGB, there is none, no such layer or `maps`, or a
            batch is empty.

        Source: AlexNet §6.1 (fc7).
        """
        _check_batch_size(batch_size)
        if not len(images):
            raise ValueError("there is no image; give at least one")
        pixels = np.stack([_stored(image, self.config.stored_size) for image in images])
        parts = list(
            self.features_of_batches(padded_batches(pixels, batch_size), layers, maps=maps)
        )
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def features_of_batches(
        self, batches: Iterable[Batch], layers: str | Sequence[str] = (), *, maps: str = "whole"
    ) -> Iterator[dict[str, np.ndarray]]:
        """`features` of batch after batch, for images that do not fit memory.

        Args:
          batches: {"image": uint8 [B, S, S, 3], "mask": [B]}, such as `eval_batches` gives;
            without a mask all count.
          layers: as of `features`.
          maps: as of `features`.

        Raises:
          ValueError: there is no such layer, or no such `maps`.
        """
        return outputs_of_batches(
            self.model, self.augmentation, self.params, batches, layers, maps=maps
        )

    @property
    def weights_digest(self) -> str:
        """SHA-256 of the parameters: names, shapes and bits."""
        digest = hashlib.sha256()
        for name, leaf in sorted(flatten_dict(self.params, sep="/").items()):
            digest.update(f"{name} {leaf.shape} {leaf.dtype}\n".encode())
            digest.update(np.ascontiguousarray(leaf).data)
        return digest.hexdigest()

    def with_classes(self, class_names: Sequence[str]) -> "Run":
        """This run with its outputs in the order of `class_names`.

        Raises:
          ValueError: they are other classes, not only in another order.
        """
        wanted = tuple(class_names)
        if wanted == self.class_names:
            return self
        if sorted(wanted) != sorted(self.class_names):
            odd = min(set(wanted) ^ set(self.class_names), default="")
            raise ValueError(
                f"{self.workdir} distinguishes {len(self.class_names)} classes and {len(wanted)} "
                f"are wanted; {odd!r} is not in both; use runs on the same classes"
            )
        if len(set(wanted)) < len(wanted):
            twice = next(name for name in wanted if wanted.count(name) > 1)
            raise ValueError(f"class {twice!r} stands twice; its places cannot be told apart")
        order = np.array([self.class_names.index(name) for name in wanted])
        head = self.model.head
        params = dict(self.params) | {head: _reordered(self.params[head], order)}
        return dataclasses.replace(
            self, state=self.state.replace(params=params), class_names=wanted
        )


def _reordered(leaves: dict[str, jax.Array], order: np.ndarray) -> dict[str, jax.Array]:
    """The head with its outputs in another order, where its leaves lie."""
    return {
        name: jax.device_put(jnp.take(leaf, order, axis=-1), leaf.sharding)
        for name, leaf in leaves.items()
    }


def _check_batch_size(batch_size: int) -> None:
    if not is_kind(batch_size, 0) or batch_size < 1:
        raise ValueError(f"batch_size={batch_size!r}; give at least 1 image at a time")


def _stored(image: np.ndarray, size: int) -> np.ndarray:
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(
            f"an image of {image.dtype} {list(image.shape)}; it is uint8 [H, W, 3], RGB 0-255, and "
            "one alone is given as images[None]"
        )
    return image if image.shape[:2] == (size, size) else square(image, size)


@made_once(8)
def _predict_step(
    model: LayeredNetwork, augmentation: Augmentation, views: str, mesh: Mesh | None
) -> Any:
    return make_predict_step(model, augmentation, views=views, mesh=mesh)


def load_run(workdir: str | Path, *, which: str | int = "best", mesh: Mesh | None = None) -> Run:
    """Restores a trained network from its workdir, without what only training needs.

    Args:
      workdir: the folder given to `--workdir`.
      which: "best" checkpoint by the validation, or "last", or that of a step.
      mesh: where to place the state, whatever mesh it was trained on.

    Raises:
      ValueError: the folder holds no run, an ensemble, or is a file, or a checkpoint of another
        run, or `which` is another word.
      CheckpointError: there is no checkpoint, or it is damaged.
    """
    if is_kind(which, 0):
        which = int(which)
    elif which not in ("best", "last"):
        raise ValueError(f"which={which!r}; use 'best', 'last' or the number of a step")
    parallel.check_kind(mesh)
    workdir = local_path(workdir)
    if workdir.is_file():
        raise ValueError(
            f"{workdir} is a file, and a run is a folder; of weights "
            f"`python -m alexnet_jax.convert --weights {workdir} --workdir RUN` makes one"
        )
    config = load_config(workdir)
    folder = workdir / "checkpoints"
    if not folder.is_dir():
        if runs := members(workdir):
            raise ValueError(name_a_member(workdir, runs))
        if told := misplaced(folder):
            raise CheckpointError(f"{told}; put the checkpoints back")
        raise _nothing(workdir)
    while True:
        before = _steps(folder)
        try:
            return _load(workdir, config, which, mesh)
        except DamagedCheckpoint:
            time.sleep(_WAIT_SECONDS)
            if _steps(folder) == before:
                raise
        # Else a training replaced it meanwhile, and there is a newer one.


def _nothing(workdir: Path) -> CheckpointError:
    return CheckpointError(f"{workdir} has no checkpoint yet; let the training save one")


def _steps(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.isdecimal()}


def _load(workdir: Path, config: ConfigDict, which: str | int, mesh: Mesh | None) -> Run:
    folder = workdir / "checkpoints"
    with Checkpointer(folder, read_only=True) as checkpoints:
        step = checkpoints.best_step if which == "best" else None
        if step is None:
            step = which if isinstance(which, int) else checkpoints.latest_step
        if step is None:
            raise _nothing(workdir)
        metadata = checkpoints.metadata(step)
        with naming(folder / str(step), ": its metadata is damaged"):
            class_names = names_in(metadata)
        check_own(metadata, step, config, workdir)
        with naming(workdir / "config.json"):
            model = build_model(config, len(class_names))
        parallel.check_mesh(model, mesh)
        template = state_template(model, mesh).replace(opt_state=())
        restored = checkpoints.restore(template, step=step, partial=True)
    with naming(folder / str(step), ": its metadata is damaged"):
        augmentation = augmentation_in(metadata, restored.arrays)
    return Run(workdir, config, model, augmentation, restored.state, class_names, step, mesh)


def names_in(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """The class names among the facts of a run that a file holds; KeyError or ValueError if none.

    They are looked at: a text in their place would be taken letter by letter.
    """
    names = facts["class_names"]
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        raise ValueError(f"class_names is {names!r:.40}")
    return tuple(names)


def augmentation_in(facts: Mapping[str, Any], constants: Mapping[str, np.ndarray]) -> Augmentation:
    """The augmentation among the facts of a run that a file holds.

    Args:
      facts: with "augmentation", as `split_augmentation` gives it, all or of an earlier version.
      constants: mean, deviations and eigenvectors.

    Raises:
      KeyError, TypeError, ValueError: a setting is missing or wrong, or a constant not finite.
    """
    settings = facts["augmentation"]
    for name in ("crop", "flip", "color", "mean_at"):  # else they were the defaults, unseen
        settings[name]
    if not isinstance(settings.get("image_size"), int | None):
        raise ValueError(f"image_size is {settings['image_size']!r:.40}")
    for name, constant in constants.items():
        if not np.isfinite(constant).all():
            raise ValueError(f"{name} holds values that are not finite")
    return build_augmentation(settings, constants)
