"""What is counted of an image: its loss, and whether its class was among the first one or five."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

METRICS = ("loss", "top1_error", "top5_error")  # nats, and shares of the images
Metrics = dict[str, Any]  # name -> float32 array, and "vitals" where they are watched


def image_scores(log_probs: Any, labels: Any) -> dict[str, Any]:
    """ "loss" and "top1_error", "top5_error" of each image, float [B]; NumPy or JAX.

    Of the classes tied with the label, those that still fit into the k share the credit. Where
    the label is none of the classes, the loss is 0 and the errors are 1.

    Args:
      log_probs: float [B, K].
      labels: int [B].

    Source: the authors' 2012 code.
    """
    xp = log_probs.__array_namespace__()
    known = is_class(labels, log_probs.shape[-1])
    classes = xp.where(known, labels.astype(xp.int32), 0)
    own = xp.take_along_axis(log_probs, classes[:, None], axis=-1)
    above = (~(log_probs <= own)).sum(-1)  # so that NaN is an error, not a tie
    tied = xp.maximum((log_probs == own).sum(-1), 1)
    credit = {k: xp.clip((k - above) / tied, 0, 1) for k in (1, 5)}
    return {
        "loss": xp.where(known, -own[:, 0], 0),
        **{f"top{k}_error": 1 - xp.where(known, credit[k], 0) for k in credit},
    }


def is_class(labels: Any, num_classes: int) -> Any:
    """bool [B]: whether a label names a class. Indexing would take -1 for the last one."""
    if jnp.iinfo(labels.dtype).max < num_classes:  # jax would wrap the number into their dtype
        labels = labels.astype(np.int32)
    return (labels >= 0) & (labels < num_classes)


def in_32_bits(numbers: Any) -> Any:
    """The array itself, or int32 of 64-bit integers, with -1 where int32 lacks the number.

    jax would cut those, and make real classes and images of numbers of none.
    """
    if not isinstance(numbers, np.ndarray | jax.Array):  # a shape, where nothing is computed
        return numbers
    if numbers.dtype not in (np.int64, np.uint64):
        return numbers
    xp = numbers.__array_namespace__()
    cut = numbers.astype(xp.int32)
    return xp.where(cut.astype(numbers.dtype) == numbers, cut, -1)


def float32_scores(log_probs: jax.Array, labels: Any) -> Metrics:
    """`image_scores` in float32, under JAX_ENABLE_X64 too."""
    return jax.tree.map(lambda x: x.astype(jnp.float32), image_scores(log_probs, labels))
