"""What a step is given, checked while it is traced: what does not fit is named in one line."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from alexnet_jax.state import Hyperparameters, TrainState


def check_state(state: Any) -> None:
    """Raises ValueError for what is no train state."""
    if not isinstance(state, TrainState):
        raise ValueError(
            f"the state is a {type(state).__name__}; `create_train_state` makes one, and a step "
            "gives the next"
        )


def check_hparams(hparams: Any) -> None:
    """Raises ValueError for what is no set of hyper-parameters."""
    if not isinstance(hparams, Hyperparameters):
        raise ValueError(
            "hparams are no Hyperparameters; write Hyperparameters(learning_rate=0.01)"
        )


def check_batch(batch: Any, *names: str) -> None:
    """Raises ValueError for a batch without these arrays, or with one that is not the images' [B].

    Args:
      batch: {"image": [B, S, S, 3], "label": [B]}, and "mask" [B] if it is there.
      names: what it must have: "image", or "image" and "label".
    """
    wanted = " and ".join(map(repr, names))
    if not isinstance(batch, Mapping):
        raise ValueError(f"a batch is a dict with {wanted}; this one is a {type(batch).__name__}")
    for name in names:
        if name not in batch:
            has = ", ".join(map(repr, batch)) or "nothing"
            raise ValueError(f"a batch has {wanted}; this one has {has}")
        if not hasattr(batch[name], "shape"):
            kind = type(batch[name]).__name__
            raise ValueError(f"{name!r} of the batch is a {kind}; give an array")
    images = batch["image"].shape[0] if batch["image"].ndim else 0
    if not images:
        raise ValueError("a batch of no images; give at least one")
    for name in {*names, *batch} & {"label", "mask"}:
        shape = jnp.shape(batch[name])
        if shape != (images,):
            hint = "; of one-hot labels take argmax(-1)" if len(shape) == 2 else ""
            raise ValueError(
                f"{name!r} of the batch has the shape {list(shape)} where [{images}] is wanted, "
                f"one for each image{hint}"
            )
    if "label" in names and not jnp.issubdtype(batch["label"].dtype, jnp.integer):
        raise ValueError(f"labels are {batch['label'].dtype}; give the classes' numbers, int32")
