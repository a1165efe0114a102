"""Other forms of the slow operations of `alexnet_jax.ops`, to be timed in the whole step.

Which form ships is chosen for each kind of device by measurement: see `experiments.speed.step`.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from alexnet_jax import ops
from alexnet_jax.ops import linear, norms, winograd
from alexnet_jax.ops.backend import on_cpu


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4, 5))
def _lrn_recomputed(x, size=5, k=2.0, alpha=1e-4, beta=0.75, towers=1):
    """LRN by shifted additions that keeps its input alone."""
    return _lrn_recomputed_forward(x, size, k, alpha, beta, towers)[0]


def _lrn_recomputed_forward(x, size, k, alpha, beta, towers):
    a = x.astype(ops.at_least_float32(x.dtype))
    s = norms._inverse_root(k + alpha * norms._shifted_sum(a * a, size, towers, transpose=False))
    return norms._times_power(a, s, 4 * beta).astype(x.dtype), x


def _lrn_recomputed_backward(size, k, alpha, beta, towers, x, g):
    a = x.astype(ops.at_least_float32(x.dtype))
    s = norms._inverse_root(k + alpha * norms._shifted_sum(a * a, size, towers, transpose=False))
    scaled = norms._times_power(g.astype(s.dtype), s, 4 * beta)
    spread = norms._shifted_sum(norms._times_power(scaled * a, s, 4), size, towers, transpose=True)
    return ((scaled - (2 * alpha * beta) * a * spread).astype(x.dtype),)


_lrn_recomputed.defvjp(_lrn_recomputed_forward, _lrn_recomputed_backward)


def _pool_by_window(
    x: jax.Array, window: int = 3, stride: int = 2, ceil: bool = False
) -> jax.Array:
    """`reduce_window`, whose gradient is `select_and_scatter`."""
    assert not ceil
    shape = (1, window, window, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, shape, (1, stride, stride, 1), "VALID")


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _pool_at_once(x: jax.Array, window: int = 3, stride: int = 2, ceil: bool = False) -> jax.Array:
    """Columns and rows in one comparison, and in one sum on the way back."""
    return _pool_at_once_forward(x, window, stride, ceil)[0]


def _pool_at_once_forward(x, window, stride, ceil):
    assert not ceil
    rows, columns = ((size - window) // stride + 1 for size in x.shape[1:3])
    pooled, which = None, None
    for k in range(window**2):
        at = divmod(k, window)
        ends = [
            start + (count - 1) * stride + 1
            for start, count in zip(at, (rows, columns), strict=True)
        ]
        tap = x[:, at[0] : ends[0] : stride, at[1] : ends[1] : stride]
        if pooled is None:
            pooled, which = tap, jnp.zeros(tap.shape, jnp.uint8)
        else:
            which = jnp.where(tap > pooled, jnp.uint8(k), which)
            pooled = jnp.maximum(pooled, tap)
    return pooled, (which, x.shape)


def _pool_at_once_backward(window, stride, ceil, residuals, g):
    which, shape = residuals
    total = 0
    for k in range(window**2):
        at = divmod(k, window)
        config = [(0, 0, 0), (0, 0, 0), (0, 0, 0), (0, 0, 0)]
        for axis, start in zip((1, 2), at, strict=True):
            span = (g.shape[axis] - 1) * stride + 1
            config[axis] = (start, shape[axis] - start - span, stride - 1)
        total = total + lax.pad(jnp.where(which == k, g, 0), jnp.zeros((), g.dtype), config)
    return (total,)


_pool_at_once.defvjp(_pool_at_once_forward, _pool_at_once_backward)


def _feature_groups(x, kernel, *, stride=1, padding=((0, 0), (0, 0)), groups=1, precision=None):
    return lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision=precision,
    )


_convolution = ops.convolution


def _more_channels(x, kernel, *, channels, **rest):
    """conv1 with its input filled up with channels of zeros."""
    if x.shape[-1] == 3:
        more = channels - 3
        x = jnp.pad(x, ((0, 0),) * 3 + ((0, more),))
        kernel = jnp.pad(kernel, ((0, 0), (0, 0), (0, more), (0, 0)))
    return _convolution(x, kernel, **rest)


def _space_to_depth(x, kernel, *, stride=1, padding=((0, 0), (0, 0)), **rest):
    """conv1, 11 x 11 with stride 4, as 3 x 3 over blocks of 4 x 4 pixels: 48 channels."""
    if stride == 1:
        return _convolution(x, kernel, padding=padding, **rest)
    return _convolution(*winograd.space_to_depth(x, kernel, stride, padding), **rest)


def _direct(dtype, x, kernel, stride, padding):
    """No tile: every convolution a sum over taps."""
    return 0


# What ships on CPU or elsewhere, in the place of the other.
_BAND = {"norms._shifted_sum": norms._band_product}
_SHIFTED = {"norms._band_product": norms._shifted_sum}
_PLAIN_BIAS = {"linear._product_with_ones": linear._plain_sum}
FORMS: dict[str, dict[str, Callable[..., Any]]] = {
    "as shipped": {},
    "convolution: direct": {"linear._winograd_tile": _direct},
    "LRN: band product": _BAND,
    "LRN: shifted sums": _SHIFTED,
    "LRN: shifted, recomputed": {"local_response_norm": _lrn_recomputed},
    "pool: reduce_window": {"max_pool": _pool_by_window},
    "bias: product with ones": {"linear._plain_sum": linear._product_with_ones},
    "bias: plain sum": _PLAIN_BIAS,
    "groups: feature_group_count": {"convolution": _feature_groups},
    "conv1: 4 channels": {"convolution": partial(_more_channels, channels=4)},
    "conv1: 8 channels": {"convolution": partial(_more_channels, channels=8)},
    "conv1: space to depth": {"convolution": _space_to_depth},
    "pool: both axes at once": {"max_pool": _pool_at_once},
    "LRN shifted, plain bias": {**_SHIFTED, **_PLAIN_BIAS},
    "LRN recomputed, plain bias": {
        **_PLAIN_BIAS,
        "local_response_norm": _lrn_recomputed,
    },
    "LRN recomputed, plain bias, space to depth": {
        **_PLAIN_BIAS,
        "local_response_norm": _lrn_recomputed,
        "convolution": _space_to_depth,
    },
    "LRN recomputed, plain bias, space to depth, pool at once": {
        **_PLAIN_BIAS,
        "local_response_norm": _lrn_recomputed,
        "convolution": _space_to_depth,
        "max_pool": _pool_at_once,
    },
}


def forms_here() -> list[str]:
    """The names of `FORMS` but for those that ship on this kind of device, under another name."""
    others = (
        ("LRN: band product", "bias: product with ones")
        if on_cpu()
        else (
            "convolution: direct",
            "LRN: shifted sums",
            "bias: plain sum",
            "LRN shifted, plain bias",
            "LRN recomputed, plain bias",  # as without the bias
        )
    )
    return [name for name in FORMS if name not in others]


@contextlib.contextmanager
def replaced(functions: dict[str, Callable[..., Any]]) -> Iterator[None]:
    """`alexnet_jax.ops` with some functions replaced, or, by dotted names, its modules'."""
    places = {}
    for path in functions:
        module, _, name = path.rpartition(".")
        places[path] = (getattr(ops, module) if module else ops), name
    kept = {path: getattr(*place) for path, place in places.items()}
    for path, place in places.items():
        setattr(*place, functions[path])
    jax.clear_caches()
    try:
        yield
    finally:
        for path, place in places.items():
            setattr(*place, kept[path])
