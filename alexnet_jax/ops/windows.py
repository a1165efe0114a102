"""Overlapping windows along an axis, taken as slices and put back as sums."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax


def taps(x: jax.Array, window: int, stride: int, axis: int) -> list[jax.Array]:
    """For each offset k < window, the k-th element of every whole window along `axis`."""
    span = (x.shape[axis] - window) // stride * stride + 1
    return [lax.slice_in_dim(x, k, k + span, stride, axis) for k in range(window)]


def untap(taps: Sequence[jax.Array], stride: int, axis: int, length: int) -> jax.Array:
    """The transpose of `taps`: adds the k-th elements of the windows up where they came from.

    Args:
      taps: as `taps` gives them.
      stride: of the windows.
      axis: that the windows lie along.
      length: of `axis` in the result.
    """
    # Position stride * i + r is offset r + stride * m of window i - m. Each residue r is summed
    # apart, then the residues are interleaved: no scatter, no interior padding.
    rows = -(-length // stride)
    residues = [
        sum(_shift(taps[k], k // stride, rows, axis) for k in range(r, len(taps), stride))
        if r < len(taps)
        else jnp.zeros_like(_shift(taps[0], 0, rows, axis))
        for r in range(stride)
    ]
    shape = list(taps[0].shape)
    shape[axis] = rows * stride
    interleaved = jnp.stack(residues, axis + 1).reshape(shape)
    return lax.slice_in_dim(interleaved, 0, length, axis=axis)


def _shift(x: jax.Array, by: int, length: int, axis: int) -> jax.Array:
    """Moves `x` by `by` places along `axis` within `length` places, filled with zeros."""
    after = length - by - x.shape[axis]
    config = [(0, 0, 0)] * x.ndim
    config[axis] = (by, after, 0)  # a negative margin crops
    return lax.pad(x, jnp.zeros((), x.dtype), config)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def sum_taps(x: jax.Array, window: int, stride: int, axis: int, length: int) -> jax.Array:
    """Sum of every window along `axis`, which is `length` long."""
    first, *others = taps(x, window, stride, axis)
    return sum(others, start=first)


def sum_taps_forward(
    x: jax.Array, window: int, stride: int, axis: int, length: int
) -> tuple[jax.Array, None]:
    return sum_taps(x, window, stride, axis, length), None


def sum_taps_backward(
    window: int, stride: int, axis: int, length: int, _: None, g: jax.Array
) -> tuple[jax.Array]:
    return (untap([g] * window, stride, axis, length),)


sum_taps.defvjp(sum_taps_forward, sum_taps_backward)
