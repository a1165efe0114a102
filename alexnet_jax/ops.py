"""The pure operations of the nets: convolution, LRN, pooling, dropout (sections 3.1-3.4, 4.2).

Each is an ordinary function of arrays. Those whose automatic gradient XLA compiles badly carry a
hand-written one; the mathematics is the same, and the tests hold both against NumPy.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap

from alexnet_jax import winograd
from alexnet_jax.windows import taps, untap

# Section 3.1; `tanh` and `sigmoid` are the saturating units that figure 1 compares with.
ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid}


def convolution(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int = 1,
    padding: Sequence[tuple[int, int]] = ((0, 0), (0, 0)),
    groups: int = 1,
    precision: lax.PrecisionLike = None,
) -> jax.Array:
    """Cross-correlates `x` with `kernel`, each group of outputs seeing its own group of inputs.

    Groups are written as convolutions side by side: XLA:CPU has no fast path for
    `feature_group_count`. On CPU wide layers take Winograd's form (`winograd`), which multiplies in
    float32 whatever `precision`.

    Args:
      x: [B, H, W, C].
      kernel: [kh, kw, C / groups, F], the outputs of group 0 first.
      stride: step of the window in pixels.
      padding: zeros (low, high) on H and on W.
      groups: 2 where each tower reads its own maps.
      precision: of the products.

    Returns:
      [B, H', W', F].

    Source: AlexNet §3.5.
    """
    channels, features = x.shape[-1] // groups, kernel.shape[-1] // groups
    one = (*x.shape[:-1], channels), (*kernel.shape[:-1], features)  # of a group
    tile = _winograd_tile(x.dtype, *one, stride, padding)
    convolve = (
        partial(winograd.convolution, tile=tile)
        if tile
        else partial(_direct_convolution, precision=precision)
    )
    return _by_group(partial(convolve, stride=stride, padding=padding), x, kernel, groups)


def _direct_convolution(
    x: jax.Array,
    kernel: jax.Array,
    stride: int,
    padding: Sequence[tuple[int, int]],
    precision: lax.PrecisionLike,
) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )


# How many times fewer multiplications make Winograd's form worthwhile: its products are smaller,
# and it moves more. With AVX-512 and two cores, layers of 1.6 times were as fast either way.
_WORTHWHILE = 1.7


def _winograd_tile(
    dtype: Any,
    x: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: int,
    padding: Sequence[tuple[int, int]],
) -> int:
    """The tile for Winograd's form of a convolution of these shapes; 0 for the direct form."""
    taps, width, channels, features = kernel
    side = -(-taps // stride)
    exact = dtype not in (jnp.float32, jnp.bfloat16)
    if not _on_cpu() or exact or taps != width or not 1 < side < winograd.MOST_INPUTS:
        return 0
    rows, columns = (
        (size + sum(pad) - taps) // stride + 1 for size, pad in zip(x[1:3], padding, strict=True)
    )
    if min(rows, columns) < 1:
        return 0
    tile, multiplications = winograd.best_tile(
        (rows, columns), side, channels * stride**2, features
    )
    direct = rows * columns * math.prod(kernel)
    return tile if direct > _WORTHWHILE * multiplications else 0


def local_convolution(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int = 1,
    padding: Sequence[tuple[int, int]] = ((0, 0), (0, 0)),
    groups: int = 1,
    precision: lax.PrecisionLike = None,
) -> jax.Array:
    """A convolution whose every output position has kernels of its own.

    One product for each position, all in one batched multiplication of the windows, which are
    gathered as slices: no index of a window is left to a library's ordering.

    Args:
      x: [B, H, W, C].
      kernel: [H', W', kh, kw, C / groups, F], the outputs of group 0 first.
      stride: step of the window in pixels.
      padding: zeros (low, high) on H and on W.
      groups: 2 where each tower reads its own maps.
      precision: of the products.

    Returns:
      [B, H', W', F].

    Raises:
      ValueError: the windows over `x` are not H' x W'.

    Source: the authors' CIFAR-10 layer files, type "local".
    """
    wanted = tuple(
        (side + sum(pad) - reach) // stride + 1
        for side, pad, reach in zip(x.shape[1:3], padding, kernel.shape[2:4], strict=True)
    )
    if kernel.shape[:2] != wanted:
        raise ValueError(f"kernels of {kernel.shape[:2]} positions where the windows are {wanted}")
    convolve = partial(_local_convolution, stride=stride, padding=padding, precision=precision)
    return _by_group(convolve, x, kernel, groups)


def _local_convolution(
    x: jax.Array,
    kernel: jax.Array,
    stride: int,
    padding: Sequence[tuple[int, int]],
    precision: lax.PrecisionLike,
) -> jax.Array:
    rows, columns, kh, kw, _, features = kernel.shape
    x = jnp.pad(x.transpose(1, 2, 0, 3), (*padding, (0, 0), (0, 0)))  # positions first
    parts = [
        lax.slice(
            x,
            (i, j, 0, 0),
            (i + (rows - 1) * stride + 1, j + (columns - 1) * stride + 1, *x.shape[2:]),
            (stride, stride, 1, 1),
        )
        for i in range(kh)
        for j in range(kw)
    ]
    windows = jnp.concatenate(parts, -1)  # [H', W', B, kh * kw * C]
    windows = windows.reshape(rows * columns, *windows.shape[2:])
    weights = kernel.astype(x.dtype).reshape(rows * columns, windows.shape[-1], features)
    y = jnp.matmul(windows, weights, precision=precision)
    return y.reshape(rows, columns, -1, features).transpose(2, 0, 1, 3)


def at_least_float32(dtype: Any) -> Any:
    """float32 for floats of fewer bits, which sums are not made in; else `dtype`."""
    return jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def dense(
    x: jax.Array, kernel: jax.Array, *, groups: int = 1, precision: lax.PrecisionLike = None
) -> jax.Array:
    """Multiplies `x` [B, I] by `kernel` [I / groups, O], group by group, to [B, O] of its dtype."""
    multiply = _cpu_product if _on_cpu() else _plain_product
    return _by_group(partial(multiply, precision=precision), x, kernel, groups)


def _plain_product(x: jax.Array, kernel: jax.Array, precision: lax.PrecisionLike) -> jax.Array:
    return jnp.matmul(x, kernel.astype(x.dtype), precision=precision)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _cpu_product(x: jax.Array, kernel: jax.Array, precision: lax.PrecisionLike) -> jax.Array:
    kernel = kernel.astype(x.dtype)
    rows = x.shape[0]  # no number where a program for any batch is exported
    few = x.dtype == jnp.float32 and isinstance(rows, int) and rows <= _FEW_ROWS
    multiply = _product_of_few_rows if few else partial(_dot, axes=(1, 0))
    return multiply(x, kernel, precision=precision).astype(x.dtype)


# XLA:CPU gives products to YNNPACK, which packs all of the kernel first, and convolutions to Eigen,
# which packs it part by part: 32 images pass fc6 in 17 ms instead of 29, 128 in 42 either way (two
# cores with AVX-512).
_FEW_ROWS = 96


def _product_of_few_rows(
    x: jax.Array, kernel: jax.Array, precision: lax.PrecisionLike
) -> jax.Array:
    """The product [B, I] x [I, O] as a convolution of an image of B x 1 pixels."""

    @custom_vmap
    def multiply(x: jax.Array, kernel: jax.Array) -> jax.Array:
        image, taps = x[None, :, None], kernel[None, None]
        return _direct_convolution(image, taps, 1, ((0, 0), (0, 0)), precision)[0, :, 0]

    @multiply.def_vmap
    def many(_: int, batched: Sequence[bool], *matrices: jax.Array) -> tuple[jax.Array, bool]:
        # A convolution of many kernels at once would be a slow grouped one.
        product = partial(_dot, axes=(1, 0), precision=precision)
        axes = [0 if is_batched else None for is_batched in batched]
        return jax.vmap(product, axes)(*matrices), True

    return multiply(x, kernel)


def _cpu_product_forward(
    x: jax.Array, kernel: jax.Array, precision: lax.PrecisionLike
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _cpu_product(x, kernel, precision), (x, kernel)


def _cpu_product_backward(
    precision: lax.PrecisionLike, residuals: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    # The kernel, by far the largest array, is read as it lies: what is transposed is the result.
    # The barrier is there because XLA would otherwise make one product of both, and half as fast.
    x, kernel = residuals
    d_x = lax.optimization_barrier(_dot(kernel.astype(x.dtype), g, (1, 1), precision))
    return d_x.T.astype(x.dtype), _dot(x, g, (0, 0), precision).astype(kernel.dtype)


_cpu_product.defvjp(_cpu_product_forward, _cpu_product_backward)


def _dot(
    a: jax.Array, b: jax.Array, axes: tuple[int, int], precision: lax.PrecisionLike
) -> jax.Array:
    """The product of two matrices summed over an axis of each, in float32 or better.

    XLA:CPU multiplies bfloat16 as such only where the result is to be float32.
    """
    numbers = ((axes[:1], axes[1:]), ((), ()))
    return lax.dot_general(a, b, numbers, precision, at_least_float32(a.dtype))


def _by_group(
    operation: Callable[[jax.Array, jax.Array], jax.Array],
    x: jax.Array,
    kernel: jax.Array,
    groups: int,
) -> jax.Array:
    pairs = zip(jnp.split(x, groups, -1), jnp.split(kernel, groups, -1), strict=True)
    return jnp.concatenate([operation(*pair) for pair in pairs], axis=-1)


@jax.custom_vjp
def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """Adds `bias` [C] to `x` [..., C].

    The gradient of the bias is a product with ones: as a plain sum, XLA:CPU fuses the whole
    backward pass into one slow reduction.
    """
    return x + jnp.broadcast_to(bias.astype(x.dtype), x.shape)


def _add_bias_forward(x: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
    return add_bias(x, bias), bias


def _add_bias_backward(bias: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    rows = g.reshape(-1, g.shape[-1])
    ones = jnp.ones(rows.shape[:1], g.dtype)
    # The sum runs over up to a million rows, so it is kept in float32 or better.
    total = jnp.matmul(
        ones,
        rows,
        precision=lax.Precision.HIGHEST,
        preferred_element_type=at_least_float32(g.dtype),
    )
    return g, total.astype(bias.dtype)


add_bias.defvjp(_add_bias_forward, _add_bias_backward)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4, 5))
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
    float64 for a float64 input) and returned in the dtype of `x`.

    Args:
      x: [..., C].
      size: n of the paper, in channels.
      k: the constant in the denominator.
      alpha: factor of the sum of squares.
      beta: the exponent.
      towers: number of equal blocks of channels that no window crosses.

    Source: AlexNet §3.3.
    """
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


local_response_norm.defvjp(_lrn_forward, _lrn_backward)


def _window_sum(x: jax.Array, size: int, towers: int, transpose: bool = False) -> jax.Array:
    """Sums over the channel window of each channel, as a product with a 0/1 band matrix."""
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
    if exponent == int(exponent) and exponent <= 8:
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

    Source: the authors' `layer-params`, rnorm "cnorm2".
    """
    a = x.astype(at_least_float32(x.dtype))
    squares = a * a
    for axis in (2, 1):  # slices added up: XLA:CPU is slow at a sum over windows of its own
        margin = [(0, 0, 0)] * x.ndim
        margin[axis] = (size // 2, size - 1 - size // 2, 0)
        squares = lax.pad(squares, jnp.zeros((), a.dtype), margin)
        squares = _sum_pool_axis(squares, size, 1, axis, squares.shape[axis])
    return _times_power(a, _inverse_root(1 + alpha * squares), 4 * beta).astype(x.dtype)


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
      [B, H', W', C] with H' = (H - window) / stride + 1, rounded down, or up for `ceil`.

    Source: AlexNet §3.4; `ceil` is the authors' CIFAR-10 nets'.
    """
    # Columns first, so that the first row wins and, within it, the first column.
    for axis in (2, 1):
        if ceil:
            x = _reach(x, window, stride, axis, -jnp.inf)
        x = _max_pool_axis(x, window, stride, axis)
    return x


def average_pool(x: jax.Array, window: int = 3, stride: int = 2) -> jax.Array:
    """Mean over window x window pixels, every `stride` pixels.

    Windows begin on the map but may reach past its end; the mean is of the pixels on the map.
    Computed in float32 or better and returned in the dtype of `x`.

    Args:
      x: [B, H, W, C].
      window: in pixels.
      stride: in pixels.

    Returns:
      [B, H', W', C] with H' = (H - window) / stride + 1, rounded up, and at least 1.

    Source: the authors' CIFAR-10 layer files, pool "avg".
    """
    dtype = x.dtype
    x = x.astype(at_least_float32(dtype))
    for axis in (2, 1):
        length = x.shape[axis]
        x = _reach(x, window, stride, axis, 0)
        x = _sum_pool_axis(x, window, stride, axis, x.shape[axis])
        starts = np.arange(x.shape[axis]) * stride
        counts = np.minimum(starts + window, length) - starts
        x = x * jnp.asarray(1 / counts, x.dtype).reshape(-1, *(1,) * (x.ndim - 1 - axis))
    return x.astype(dtype)


def _reach(x: jax.Array, window: int, stride: int, axis: int, value: Any) -> jax.Array:
    """Pads the end of `axis` with `value`, as far as the last window that begins before it."""
    length = x.shape[axis]
    windows = max(1, min(-(-(length - window) // stride) + 1, -(-length // stride)))
    config = [(0, 0, 0)] * x.ndim
    config[axis] = (0, max(0, (windows - 1) * stride + window - length), 0)
    return lax.pad(x, jnp.asarray(value, x.dtype), config)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _sum_pool_axis(x: jax.Array, window: int, stride: int, axis: int, length: int) -> jax.Array:
    """Sum of every window along `axis`, which is `length` long."""
    first, *others = taps(x, window, stride, axis)
    return sum(others, start=first)


def _sum_pool_axis_forward(
    x: jax.Array, window: int, stride: int, axis: int, length: int
) -> tuple[jax.Array, None]:
    return _sum_pool_axis(x, window, stride, axis, length), None


def _sum_pool_axis_backward(
    window: int, stride: int, axis: int, length: int, _: None, g: jax.Array
) -> tuple[jax.Array]:
    return (untap([g] * window, stride, axis, length),)


_sum_pool_axis.defvjp(_sum_pool_axis_forward, _sum_pool_axis_backward)


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


def dropout_mask(keys: jax.Array, towers: jax.Array, features: int, rate: float) -> jax.Array:
    """Draws which units stay: bool [B, len(towers) * features], each with probability 1 - rate.

    A unit's draw depends on its image's key and its tower alone, so every split of the batch or
    of the towers over devices draws the same mask.

    Args:
      keys: [B] PRNG keys, one per image.
      towers: int32 [T], the numbers of the towers held here.
      features: units of one tower.
      rate: share of units dropped.
    """

    def draw(key: jax.Array, tower: jax.Array) -> jax.Array:
        keep = jnp.float32(1 - rate)  # the same draws under JAX_ENABLE_X64
        return jax.random.bernoulli(jax.random.fold_in(key, tower), keep, (features,))

    mask = jax.vmap(lambda key: jax.vmap(partial(draw, key))(towers))(keys)
    return mask.reshape(keys.shape[0], towers.shape[0] * features)


def dropout(x: jax.Array, mask: jax.Array | None, rate: float, style: str = "paper") -> jax.Array:
    """Applies a drawn mask in training, or the expectation at test (`mask=None`).

    `paper` zeroes in training and multiplies by 1 - rate at test; `inverted` divides by 1 - rate
    in training and does nothing at test. They are different optimisation problems at equal
    initialisation, rate and decay.

    Args:
      x: [B, F].
      mask: bool [B, F] of the units that stay, or None at test.
      rate: share of units dropped.
      style: "paper" or "inverted".

    Source: AlexNet §4.2.
    """
    keep = 1 - rate
    if mask is None:
        return x * keep if style == "paper" else x
    kept = jnp.where(mask, x, 0)
    return kept if style == "paper" else kept / keep
