"""What a step is made of and given, checked: what does not fit is named in one line."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from alexnet_jax.kinds import is_kind
from alexnet_jax.scores import in_32_bits
from alexnet_jax.state import Hyperparameters, TrainState


def check_network(model: Any) -> None:
    """Raises ValueError for what is no network: its name, its class or something else."""
    if isinstance(model, type):
        raise ValueError(f"model is a class; give one made of it: {model.__name__}()")
    if not all(callable(getattr(model, name, None)) for name in ("init", "apply", "split")):
        preset = model if isinstance(model, str) else "paper"
        raise ValueError(
            f"model is a {type(model).__name__}; write alexnet({preset!r}), or give another "
            "alexnet_jax.Network"
        )


def check_state(state: Any, model: Any) -> None:
    """Raises ValueError for what is no train state, or has layers that `model` has not.

    Flax tells parameters that are missing or of another shape, and takes no notice of others.
    """
    if not isinstance(state, TrainState):
        raise ValueError(
            f"the state is a {type(state).__name__}; `create_train_state` makes one, and a step "
            "gives the next"
        )
    known = {layer.name for layer in model.layers}
    if isinstance(state.params, Mapping) and (
        others := [n for n in state.params if n not in known]
    ):
        raise ValueError(
            f"the state has parameters of {' and '.join(map(str, others))}, which the network has "
            "not; give the network that the state was created for"
        )


def check_cuts(cuts: Any, images: int) -> None:
    """Raises ValueError where an augmentation's `views` are not crops of each image, by name."""
    wanted = "[V, B, s, s, 3], the V views of B images, by name"
    if not isinstance(cuts, Mapping):
        raise ValueError(
            f"`views` of the augmentation gives a {type(cuts).__name__}; let it give a dict of "
            f"{wanted}"
        )
    for name, crops in cuts.items():
        shape = jnp.shape(crops)
        if len(shape) != 5 or shape[1] != images:
            raise ValueError(
                f"`views` of the augmentation gives {name!r} of shape {list(shape)} for {images} "
                f"images; let it give {wanted}"
            )


def check_logits(logits: jax.Array, images: int, num_classes: int) -> None:
    """Raises ValueError where a network does not give one number for each image and class."""
    if logits.shape != (images, num_classes):
        raise ValueError(
            f"the network gives {list(logits.shape)} where [{images}, {num_classes}] is wanted: "
            f"its num_classes is {num_classes}, so let its last layer have as many features"
        )


def check_hparams(hparams: Any, updates: int | None = None) -> None:
    """Raises ValueError for what is no set of hyper-parameters, of one update or of several."""
    if not isinstance(hparams, Hyperparameters):
        raise ValueError(
            "hparams are no Hyperparameters; write Hyperparameters(learning_rate=0.01)"
        )
    if updates is None:
        wanted: tuple[int, ...] = ()
        hint = "one number; jax.vmap of the step takes several, and as many states"
    else:
        wanted = (updates,)
        repeated = f"jax.tree.map(lambda x: jnp.full({updates}, x), hparams) repeats one"
        hint = f"one value for each update; {repeated}"
    for path, leaf in jax.tree.leaves_with_path(hparams):
        if jnp.shape(leaf) != wanted:
            raise ValueError(
                f"hparams{jax.tree_util.keystr(path)} has the shape {list(jnp.shape(leaf))} where "
                f"{list(wanted)} is wanted, {hint}"
            )


def check_rule(rule: Any) -> None:
    """Raises ValueError for what makes no update rule."""
    if not callable(rule):
        raise ValueError(
            f"rule is a {type(rule).__name__} where the function that makes one is wanted, such as "
            "optax.adam: it is called with the hyper-parameters it names"
        )


def check_opt_state(transform: Any, state: TrainState) -> None:
    """Raises ValueError where the state's rule is not the step's."""
    if not isinstance(transform, optax.GradientTransformation):
        raise ValueError(f"rule gives no Optax transform: {transform!r}")
    if any(map(_keeps_numbers, jax.tree.leaves(state.opt_state, is_leaf=_keeps_numbers))):
        raise ValueError(
            "the update rule keeps its numbers in its state, where the step's Hyperparameters do "
            "not reach; give the rule without optax.inject_hyperparams"
        )
    wanted = jax.tree.structure(jax.eval_shape(transform.init, state.params))
    if wanted is None or wanted != jax.tree.structure(state.opt_state):
        raise ValueError(
            "the state was made for another update rule than the step; give create_train_state "
            "and make_train_step the same rule="
        )


def _keeps_numbers(state: Any) -> bool:
    return isinstance(state, optax.InjectStatefulHyperparamsState)


def check_watch_every(watch_every: Any) -> None:
    """Raises ValueError for what is no number of updates."""
    if not is_kind(watch_every, like=0) or watch_every < 0:
        raise ValueError(f"watch_every={watch_every!r}; give a number of updates, or 0 for never")


def check_updates(indices: Any, hparams: Any) -> None:
    """Raises ValueError where several updates are not given as [T, B] images and [T] settings."""
    if not hasattr(indices, "shape"):
        raise ValueError(f"indices are a {type(indices).__name__}; give an array, int32 [T, B]")
    if len(indices.shape) != 2 or not jnp.issubdtype(indices.dtype, jnp.integer):
        raise ValueError(
            f"indices are {indices.dtype} {list(indices.shape)}; give int32 [T, B], the numbers of "
            "the images of each update"
        )
    check_hparams(hparams, indices.shape[0])


def read_batch(
    batch: Any, names: tuple[str, ...], optional: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The arrays of a batch that a step reads; what else it holds is left out.

    64-bit integers are made int32, those that do not fit -1: no class.

    Args:
      batch: {"image": [B, S, S, 3], "label": [B], "mask": [B]}.
      names: what it must have: "image", or "image" and "label".
      optional: what is read where it is there: "mask", of evaluation.

    Raises:
      ValueError: an array is not there, or is not the images' [B], or holds objects.
    """
    wanted = " and ".join(map(repr, names))
    if not isinstance(batch, Mapping):
        raise ValueError(f"a batch is a dict with {wanted}; this one is a {type(batch).__name__}")
    for name in names:
        if name not in batch:
            has = ", ".join(map(repr, batch)) or "nothing"
            raise ValueError(f"a batch has {wanted}; this one has {has}")
    read = {name: batch[name] for name in (*names, *optional) if name in batch}
    for name in read:
        if not hasattr(batch[name], "shape"):
            kind = type(batch[name]).__name__
            raise ValueError(f"{name!r} of the batch is a {kind}; give an array")
    if batch["image"].dtype == object:
        raise ValueError(
            "images are of dtype object (of several sizes?); give one array, uint8 [B, S, S, 3]"
        )
    images = batch["image"].shape[0] if batch["image"].ndim else 0
    if not images:
        raise ValueError("a batch of no images; give at least one")
    for name in read.keys() - {"image"}:
        shape = jnp.shape(batch[name])
        if shape != (images,):
            hint = "; of one-hot labels take argmax(-1)" if len(shape) == 2 else ""
            raise ValueError(
                f"{name!r} of the batch has the shape {list(shape)} where [{images}] is wanted, "
                f"one for each image{hint}"
            )
    if "label" in names and not jnp.issubdtype(batch["label"].dtype, jnp.integer):
        raise ValueError(f"labels are {batch['label'].dtype}; give the classes' numbers, int32")
    return {name: in_32_bits(array) for name, array in read.items()}


def read_training_batch(batch: Any) -> dict[str, Any]:
    """The same for a training step, which refuses what it would not heed: a "mask"."""
    read = read_batch(batch, ("image", "label"))
    if "mask" in batch:
        raise ValueError(
            "the batch has a 'mask' and training counts every image; leave out those that should "
            "not count"
        )
    return read
