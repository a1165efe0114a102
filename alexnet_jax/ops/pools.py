"""Overlapping pooling (section 3.4)."""

from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from alexnet_jax.ops.backend import on_cpu
from alexnet_jax.ops.checks import check_counts, check_floats
from alexnet_jax.ops.dtypes import at_least_float32
from alexnet_jax.ops.windows import sum_taps, taps, untap


def max_pool(x: jax.Array, window: int = 3, stride: int = 2, ceil: bool = False) -> jax.Array:
    """Maximum over window x window pixels, every `stride` pixels.

    The gradient goes to the first maximum of a window in reading order. A window larger than its
    stride overlaps its neighbour.

    Args:
      x: [B, H, W, C].
      window: z of the paper, in pixels.
      stride: s of the paper, in pixels.
      ceil: windows begin on the map but may reach past its end, where nothing counts; else every
        window lies on the map.

    Returns:
      [B, H', W', C] with H' = (H - window) / stride + 1, rounded down; for `ceil` as many as
      `average_pool` gives.

    Raises:
      ValueError: `x` holds no floats, a number of pixels is none, or the window is larger than the
        map, without `ceil`.

    Source: AlexNet §3.4; `ceil` is the authors' CIFAR-10 nets'.
    """
    check_floats(x, dims=4)
    check_counts(window=window, stride=stride)
    smallest = min(x.shape[1:3])
    if window > smallest and not ceil:
        raise ValueError(
            f"window={window} is larger than the map of {smallest} pixels; use ceil=True"
        )
    dtype = x.dtype
    if on_cpu():  # where bfloat16 is compared in float32, and each maximum would be rounded back
        x = x.astype(at_least_float32(dtype))
    # Columns first, so that the first row wins and, within it, the first column.
    for axis in (2, 1):
        if ceil:
            x = _reach(x, window, stride, axis, -jnp.inf)
        x = _max_pool_axis(x, window, stride, axis)
    return x.astype(dtype)


def average_pool(x: jax.Array, window: int = 3, stride: int = 2) -> jax.Array:
    """Mean over window x window pixels, every `stride` pixels.

    Windows begin on the map but may reach past its end; the mean is of the pixels on the map.
    Computed in float32 or better and returned in the dtype of `x`.

    Args:
      x: [B, H, W, C].
      window: in pixels.
      stride: in pixels.

    Returns:
      [B, H', W', C] with H' = (H - window) / stride + 1, rounded up, but at least 1 and, where the
      stride is larger than the window, at most H / stride, rounded up.

    Raises:
      ValueError: `x` holds no floats, or a number of pixels is none.

    Source: the authors' CIFAR-10 layer files, pool "avg".
    """
    check_floats(x, dims=4)
    check_counts(window=window, stride=stride)
    dtype = x.dtype
    x = x.astype(at_least_float32(dtype))
    for axis in (2, 1):
        length = x.shape[axis]
        x = _reach(x, window, stride, axis, 0)
        x = sum_taps(x, window, stride, axis, x.shape[axis])
        starts = np.arange(x.shape[axis]) * stride
        counts = np.minimum(starts + window, length) - starts
        share = jnp.asarray(1 / counts, x.dtype).reshape(-1, *(1,) * (x.ndim - 1 - axis))
        x = x * jnp.expand_dims(share, tuple(range(axis)))
    return x.astype(dtype)


def _reach(x: jax.Array, window: int, stride: int, axis: int, value: Any) -> jax.Array:
    """Pads the end of `axis` with `value`, as far as the last window that begins before it."""
    length = x.shape[axis]
    windows = max(1, min(-(-(length - window) // stride) + 1, -(-length // stride)))
    config = [(0, 0, 0)] * x.ndim
    config[axis] = (0, max(0, (windows - 1) * stride + window - length), 0)
    return lax.pad(x, jnp.asarray(value, x.dtype), config)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_pool_axis(x: jax.Array, window: int, stride: int, axis: int) -> jax.Array:
    return reduce(jnp.maximum, taps(x, window, stride, axis))


def _max_pool_axis_forward(
    x: jax.Array, window: int, stride: int, axis: int
) -> tuple[jax.Array, tuple[jax.Array, int]]:
    # Which tap was the first maximum is all that is kept: a byte instead of the map.
    pooled, *others = taps(x, window, stride, axis)
    which = jnp.zeros(pooled.shape, np.min_scalar_type(window))
    for k, tap in enumerate(others, 1):
        which = jnp.where(tap > pooled, which.dtype.type(k), which)
        pooled = jnp.maximum(pooled, tap)
    return pooled, (which, x.shape[axis])


def _max_pool_axis_backward(
    window: int, stride: int, axis: int, residuals: tuple[jax.Array, int], g: jax.Array
) -> tuple[jax.Array]:
    which, length = residuals
    routed = [jnp.where(which == k, g, 0) for k in range(window)]
    return (untap(routed, stride, axis, length),)


_max_pool_axis.defvjp(_max_pool_axis_forward, _max_pool_axis_backward)
