"""Local response normalisation over channels (section 3.3), and within maps."""

from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from alexnet_jax.kinds import is_finite, is_kind
from alexnet_jax.ops.backend import on_cpu
from alexnet_jax.ops.checks import check_counts, check_floats
from alexnet_jax.ops.dtypes import at_least_float32
from alexnet_jax.ops.windows import sum_taps


def local_response_norm(
    x: jax.Array,
    size: int = 5,
    k: float = 2.0,
    alpha: float = 1e-4,
    beta: float = 0.75,
    towers: int = 1,
) -> jax.Array:
    """Divides each channel by (k + alpha Σ a²)^beta, the sum over `size` adjacent channels.

    The window of channel i is i - size//2 … i - size//2 + size - 1, clipped to the channels of
    i's own tower. `alpha` is used as it stands, not divided by `size`. Computed in float32 (or
    float64 for a float64 input) and returned in the dtype of `x`. On CPU the windows are summed as
    a product with zeros and ones: a channel whose square is not finite makes NaN of its tower's
    channels outside its window, too.

    Args:
      x: float [..., C].
      size: n of the paper, in channels.
      k: the constant in the denominator, above 0; as all that follow a Python or NumPy number,
        compiled in.
      alpha: factor of the sum of squares, at least 0.
      beta: the exponent.
      towers: number of equal blocks of channels that no window crosses.

    Raises:
      ValueError: `x` holds no floats, C does not divide by `towers`, or a constant is traced or
        out of its range.

    Source: AlexNet §3.3.
    """
    check_floats(x)
    check_counts(size=size, towers=towers)
    _check_constants(k, alpha, beta)
    if x.shape[-1] % towers:
        raise ValueError(f"{x.shape[-1]} channels do not divide by towers={towers}")
    return _local_response_norm(x, size, k, alpha, beta, towers)


def _check_constants(k: float, alpha: float, beta: float) -> None:
    for name, value in {"k": k, "alpha": alpha, "beta": beta}.items():
        if isinstance(value, jax.Array):
            raise ValueError(f"{name} is an array of JAX; give a Python number, it is compiled in")
        if not (is_kind(value, like=1.0) and is_finite(value)):
            raise ValueError(f"{name}={value!r}; give a number")
    if not (k > 0 and alpha >= 0):
        raise ValueError(f"k={k!r}, alpha={alpha!r}; give k above 0 and alpha of at least 0")


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4, 5))
def _local_response_norm(
    x: jax.Array, size: int, k: float, alpha: float, beta: float, towers: int
) -> jax.Array:
    return _lrn_forward(x, size, k, alpha, beta, towers)[0]


def _lrn_forward(
    x: jax.Array, size: int, k: float, alpha: float, beta: float, towers: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    a = x.astype(at_least_float32(x.dtype))
    s = _inverse_root(k + alpha * _window_sum(a * a, size, towers))
    return _times_power(a, s, 4 * beta).astype(x.dtype), (x, s)


def _lrn_backward(
    size: int,
    k: float,
    alpha: float,
    beta: float,
    towers: int,
    residuals: tuple[jax.Array, jax.Array],
    g: jax.Array,
) -> tuple[jax.Array]:
    # With the denominator d^β: b_i = a_i d_i^-β and ∂d_i/∂a_j = 2α a_j for j in the window of i, so
    # ∂L/∂a_j = g_j d_j^-β - 2αβ a_j Σ_{i: j in window of i} g_i a_i d_i^(-β-1).
    del k
    x, s = residuals
    a, g = x.astype(s.dtype), g.astype(s.dtype)
    scaled = _times_power(g, s, 4 * beta)
    spread = _window_sum(_times_power(scaled * a, s, 4), size, towers, transpose=True)
    return ((scaled - (2 * alpha * beta) * a * spread).astype(x.dtype),)


_local_response_norm.defvjp(_lrn_forward, _lrn_backward)


def _window_sum(x: jax.Array, size: int, towers: int, transpose: bool = False) -> jax.Array:
    """Sums over the channel window of each channel; `transpose`: over the windows it lies in."""
    add_up = _band_product if on_cpu() else _shifted_sum
    return add_up(x, size, towers, transpose)


def _shifted_sum(x: jax.Array, size: int, towers: int, transpose: bool) -> jax.Array:
    """As `size` shifted maps, added up: XLA:GPU joins them to what comes before and after."""
    margin = size // 2, size - 1 - size // 2
    by_tower = x.reshape(*x.shape[:-1], towers, x.shape[-1] // towers)
    ends = [(0, 0)] * x.ndim + [margin[::-1] if transpose else margin]
    padded, width = jnp.pad(by_tower, ends), by_tower.shape[-1]
    return reduce(jnp.add, [padded[..., k : k + width] for k in range(size)]).reshape(x.shape)


def _band_product(x: jax.Array, size: int, towers: int, transpose: bool) -> jax.Array:
    """As a product with a 0/1 band matrix: on CPU faster than additions."""
    channels = x.shape[-1] // towers
    j, i = np.arange(channels)[:, None], np.arange(channels)[None, :]
    within = (i - size // 2 <= j) & (j < i - size // 2 + size)  # [j, i]: j is in the window of i
    band = jnp.asarray(within.T if transpose else within, x.dtype)
    rows = x.reshape(-1, channels)  # one for each tower: no copy, unlike splitting
    return jnp.matmul(rows, band, precision=lax.Precision.HIGHEST).reshape(x.shape)


def _inverse_root(d: jax.Array) -> jax.Array:
    """d ** -1/4, of which the paper's d ** -3/4 is a power: two square roots, no logarithm."""
    return jnp.sqrt(lax.rsqrt(d))


def _times_power(x: jax.Array, s: jax.Array, exponent: float) -> jax.Array:
    """x * s ** exponent.

    A small whole power one factor after the other: as a product of its own, XLA would keep it
    beside `s` from the forward to the backward pass.
    """
    if exponent == int(exponent) and 0 <= exponent <= 8:
        return reduce(jnp.multiply, [s] * int(exponent), x)
    return x * s**exponent


def within_map_norm(
    x: jax.Array, size: int = 5, alpha: float = 0.001 / 25, beta: float = 0.75
) -> jax.Array:
    """Divides each value by (1 + alpha Σ a²)^beta, the sum over size x size of its own map.

    The authors' code has it after the LRN of the second layer; the paper does not mention it.
    `alpha` is used as it stands (theirs is 0.001, divided by the area of the window).

    Args:
      x: [B, H, W, C].
      size: side of the neighbourhood in pixels, clipped at the map's edge.
      alpha: factor of the sum of squares.
      beta: the exponent.

    Raises:
      ValueError: `x` holds no floats, or a constant is traced or out of its range.

    Source: the authors' `layer-params`, rnorm "cnorm2".
    """
    check_floats(x, dims=4)
    check_counts(size=size)
    _check_constants(1, alpha, beta)
    a = x.astype(at_least_float32(x.dtype))
    squares = a * a
    for axis in (2, 1):  # slices added up: XLA:CPU is slow at a sum over windows of its own
        margin = [(0, 0, 0)] * x.ndim
        margin[axis] = (size // 2, size - 1 - size // 2, 0)
        squares = lax.pad(squares, jnp.zeros((), a.dtype), margin)
        squares = sum_taps(squares, size, 1, axis, squares.shape[axis])
    return _times_power(a, _inverse_root(1 + alpha * squares), 4 * beta).astype(x.dtype)
