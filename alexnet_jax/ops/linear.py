"""Convolutions and full connections, group by group (section 3.5), in the form that suits them."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from alexnet_jax.ops import winograd
from alexnet_jax.ops.backend import cpu_multiplies_bfloat16, on_cpu
from alexnet_jax.ops.checks import check_counts, check_floats, check_groups, check_padding
from alexnet_jax.ops.dtypes import at_least_float32


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
    float32 whatever `precision`; there a value that is not finite makes NaN of outputs beside it,
    too.

    Args:
      x: [B, H, W, C].
      kernel: [kh, kw, C / groups, F], the outputs of group 0 first.
      stride: step of the window in pixels.
      padding: zeros (low, high) on H and on W.
      groups: 2 where each tower reads its own maps.
      precision: of the products.

    Returns:
      [B, H', W', F].

    Raises:
      ValueError: `x` holds no floats, the kernel is not for its channels, or is larger than the
        padded map, or the padding is no pair of pairs.

    Source: AlexNet §3.5.
    """
    check_floats(x, dims=4)
    check_counts(stride=stride)
    check_padding(padding)
    check_groups(x, kernel, groups, dims=4)
    _check_reach(x, kernel.shape[:2], padding)
    channels, features = x.shape[-1] // groups, kernel.shape[-1] // groups
    one = (*x.shape[:-1], channels), (*kernel.shape[:-1], features)  # of a group
    tile = _winograd_tile(x.dtype, *one, stride, padding)
    convolve = (
        partial(winograd.convolution, tile=tile)
        if tile
        else partial(_direct_convolution, precision=precision)
    )
    return _by_group(partial(convolve, stride=stride, padding=padding), x, kernel, groups)


def _check_reach(x: jax.Array, taps: Sequence[int], padding: Sequence[tuple[int, int]]) -> None:
    """Raises ValueError where a kernel of these taps is larger than the padded map."""
    sides = [side + sum(pad) for side, pad in zip(x.shape[1:3], padding, strict=True)]
    if any(tap > side for tap, side in zip(taps, sides, strict=True)):
        raise ValueError(
            f"the kernel of {taps[0]} x {taps[1]} is larger than the map of {sides[0]} x "
            f"{sides[1]}, padding included"
        )


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
    if not on_cpu() or exact or taps != width or not 1 < side < winograd.MOST_INPUTS:
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
      ValueError: `x` holds no floats, the kernel is not for its channels, or the windows over `x`
        are not H' x W', or the padding is no pair of pairs.

    Source: the authors' CIFAR-10 layer files, type "local".
    """
    check_floats(x, dims=4)
    check_counts(stride=stride)
    check_padding(padding)
    check_groups(x, kernel, groups, dims=6)
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


def dense(
    x: jax.Array, kernel: jax.Array, *, groups: int = 1, precision: lax.PrecisionLike = None
) -> jax.Array:
    """Multiplies `x` [B, I] by `kernel` [I / groups, O], group by group, to [B, O] of its dtype.

    On CPU bfloat16 is multiplied in float32, by the kernel as it is, where that is faster.

    Raises:
      ValueError: `x` holds no floats, or the kernel is not for it.
    """
    check_floats(x, dims=2)
    check_groups(x, kernel, groups, dims=2)
    multiply = _cpu_product if on_cpu() else _plain_product
    y = x.astype(_product_dtype(x))
    return _by_group(partial(multiply, precision=precision), y, kernel, groups).astype(x.dtype)


def _product_dtype(x: jax.Array) -> Any:
    """What `x` is multiplied in: on CPU float32 for bfloat16 that would be slower.

    It is without instructions for it. With few rows, too: a product of those takes as long as
    reading the kernel, and to round the kernel it would be read, written and read again.
    """
    if on_cpu() and (_few_rows(x) or not cpu_multiplies_bfloat16()):
        return at_least_float32(x.dtype)
    return x.dtype


def _few_rows(x: jax.Array) -> bool:
    rows = x.shape[0]  # no number where a program for any batch is exported
    return isinstance(rows, int) and rows <= _FEW_ROWS


def _plain_product(x: jax.Array, kernel: jax.Array, precision: lax.PrecisionLike) -> jax.Array:
    return jnp.matmul(x, kernel.astype(x.dtype), precision=precision)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _cpu_product(x: jax.Array, kernel: jax.Array, precision: lax.PrecisionLike) -> jax.Array:
    kernel = kernel.astype(x.dtype)
    few = x.dtype == jnp.float32 and _few_rows(x)
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


def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """Adds `bias` [C] to `x` [..., C]; the gradient of the bias is summed in float32 or better.

    Raises:
      ValueError: `x` holds no floats, or the bias is not one value for each channel.
    """
    check_floats(x)
    if bias.shape != x.shape[-1:]:
        raise ValueError(f"the bias has the shape {list(bias.shape)} for {x.shape[-1]} channels")
    return _add_bias(x, bias)


@jax.custom_vjp
def _add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    return x + jnp.broadcast_to(bias.astype(x.dtype), x.shape)


def _add_bias_forward(x: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _add_bias(x, bias), bias


def _add_bias_backward(bias: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    add_up = _product_with_ones if on_cpu() else _plain_sum
    return g, add_up(g.reshape(-1, g.shape[-1])).astype(bias.dtype)


def _plain_sum(rows: jax.Array) -> jax.Array:
    """The sum of up to a million rows [N, C], in float32 or better."""
    return jnp.sum(rows, 0, dtype=at_least_float32(rows.dtype))


def _product_with_ones(rows: jax.Array) -> jax.Array:
    """`_plain_sum`, which XLA:CPU would join to the whole backward pass as one slow reduction."""
    ones = jnp.ones(rows.shape[:1], rows.dtype)
    return jnp.matmul(
        ones,
        rows,
        precision=lax.Precision.HIGHEST,
        preferred_element_type=at_least_float32(rows.dtype),
    )


_add_bias.defvjp(_add_bias_forward, _add_bias_backward)
