"""Convolution with fewer products, as Winograd's minimal filtering: the fast form on CPU.

A tile of m x m outputs of r x r taps reads n x n inputs, n = m + r - 1. Taken as polynomials, taps
and inputs are multiplied value by value at n points, so the tile costs n² products for each pair of
channels where the sum over taps costs m² r²: 64 instead of 400 for the paper's 5 x 5 kernels. The
values at the points come from small constant matrices; the products of all tiles at one point are
one matrix product over the channels.

Source: Winograd, "Arithmetic Complexity of Computations", 1980; Lavin & Gray, "Fast Algorithms for
Convolutional Neural Networks", 2016. The matrices are made here, by Cook and Toom's construction.
"""

import math
from collections.abc import Sequence
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Where the polynomials are evaluated, before infinity. Small numbers keep the rounding small.
_POINTS = (0, 1, -1, 2, -2, 1 / 2, -1 / 2)
MOST_INPUTS = len(_POINTS) + 1  # n above


def best_tile(outputs: tuple[int, int], side: int, channels: int, features: int) -> tuple[int, int]:
    """The tile with the fewest multiplications, and how many that is for an image.

    Args:
      outputs: H', W'.
      side: r, of the kernels.
      channels: C of the inputs.
      features: F of the outputs.
    """

    def multiplications(tile: int) -> int:
        inputs = (tile + side - 1) ** 2
        tiles = math.prod(-(-size // tile) for size in outputs)
        return tiles * inputs * (channels * features + inputs * channels + tile**2 * features)

    tiles = range(1, max(2, MOST_INPUTS + 2 - side))
    best = min(tiles, key=multiplications)
    return best, multiplications(best)


def convolution(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int = 1,
    padding: Sequence[tuple[int, int]],
    tile: int,
) -> jax.Array:
    """Cross-correlates `x` with `kernel` in float32.

    Rounds to about 2e-5 of the largest output, where a sum over taps rounds to about 1e-6. A value
    that is not finite makes NaN of all outputs of its tile.

    Args:
      x: [B, H, W, C].
      kernel: [r, r, C, F].
      stride: step of the window in pixels; more than 1 goes by `space_to_depth`.
      padding: zeros (low, high) on H and on W.
      tile: m, the side of the tiles of outputs; at most `MOST_INPUTS` + 1 - r, with r of the kernel
        of stride 1.

    Returns:
      [B, H', W', F] of the dtype of `x`.
    """
    dtype = x.dtype
    x, kernel = x.astype(jnp.float32), kernel.astype(jnp.float32)
    if stride > 1:
        x, kernel = space_to_depth(x, kernel, stride, padding)
        padding = ((0, 0), (0, 0))
    side, _, channels, features = kernel.shape
    inputs = tile + side - 1
    outputs = [size + sum(pad) + 1 - side for size, pad in zip(x.shape[1:3], padding, strict=True)]
    tiles = [-(-size // tile) for size in outputs]
    whole = -(-inputs // tile) - 1  # blocks that the last window reaches into after its own
    edges = [
        (low, (count + whole) * tile - size - low, 0)
        for size, (low, _), count in zip(x.shape[1:3], padding, tiles, strict=True)
    ]
    x = lax.pad(x, jnp.float32(0), [(0, 0, 0), *edges, (0, 0, 0)])
    of_inputs, of_taps, of_outputs = _matrices(tile, side)
    multiply = partial(jnp.matmul, precision=lax.Precision.HIGHEST)
    values = multiply(of_inputs, _windows(x, inputs, tile).reshape(inputs**2, -1))
    weights = multiply(of_taps, kernel.reshape(side**2, -1))
    products = multiply(
        values.reshape(inputs**2, -1, channels), weights.reshape(inputs**2, channels, features)
    )
    y = multiply(of_outputs, products.reshape(inputs**2, -1))
    batch = x.shape[0]  # no number where a program for any batch is exported
    y = y.reshape(tile, tile, batch, *tiles, features).transpose(2, 3, 0, 4, 1, 5)
    y = y.reshape(batch, tiles[0] * tile, tiles[1] * tile, features)
    return y[:, : outputs[0], : outputs[1]].astype(dtype)


def space_to_depth(
    x: jax.Array, kernel: jax.Array, stride: int, padding: Sequence[tuple[int, int]]
) -> tuple[jax.Array, jax.Array]:
    """Blocks of stride x stride pixels as channels: the same outputs, with stride 1.

    The paper's 11 x 11 taps with stride 4 over 3 channels become 3 x 3 over 48.

    Args:
      x: [B, H, W, C].
      kernel: [r, r, C, F].
      stride: s, of the convolution.
      padding: zeros (low, high) on H and on W.

    Returns:
      Those of a convolution of stride 1 without padding: [B, rows, columns, s² C] and
      [⌈r / s⌉, ⌈r / s⌉, s² C, F].
    """
    side = -(-kernel.shape[0] // stride)
    fill = side * stride - kernel.shape[0]
    kernel = jnp.pad(kernel, ((0, fill), (0, fill), (0, 0), (0, 0)))
    # Only what fills a block is padded as pixels. The rest is whole blocks: XLA:CPU would make the
    # pixels, augmentation and all, value by value in the loop that pads them: 34 ms instead of 6.
    pixels, whole = [], []
    for size, (low, high) in zip(x.shape[1:3], padding, strict=True):
        outputs = (size + low + high + fill - side * stride) // stride + 1
        begun = -(-(low + size) // stride)
        pixels.append((low, begun * stride - size - low, 0))
        whole.append((0, outputs - 1 + side - begun, 0))
    zero = jnp.zeros((), x.dtype)
    x = lax.pad(x, zero, [(0, 0, 0), *pixels, (0, 0, 0)])

    def blocks(array: jax.Array, axis: int) -> jax.Array:
        """[…, rows, columns, channels, …], rows at `axis`, to blocks."""
        rows, columns, channels, *rest = array.shape[axis:]
        before = array.shape[:axis]
        array = array.reshape(
            *before, rows // stride, stride, columns // stride, stride, channels, *rest
        )
        array = jnp.moveaxis(array, axis + 1, axis + 2)
        return array.reshape(
            *before, rows // stride, columns // stride, stride**2 * channels, *rest
        )

    x = lax.pad(blocks(x, 1), zero, [(0, 0, 0), *whole, (0, 0, 0)])
    return x, blocks(kernel, 0)


def _windows(x: jax.Array, inputs: int, tile: int) -> jax.Array:
    """[B, H, W, C] to [inputs, inputs, B, rows of tiles, columns of tiles, C].

    A window of n inputs begins every m: it is the tile there and the first n - m of what follows.
    So cutting and joining whole blocks does it, in a few operations that compile soon.
    """
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // tile, tile, width // tile, tile, channels)
    x = x.transpose(2, 4, 0, 1, 3, 5)
    blocks = -(-inputs // tile)  # that a window reaches into
    for within, across in ((0, 3), (1, 4)):
        tiles = x.shape[across] - blocks + 1
        parts = []
        for k in range(blocks):
            part = lax.slice_in_dim(x, k, k + tiles, axis=across)
            parts.append(lax.slice_in_dim(part, 0, min(tile, inputs - k * tile), axis=within))
        x = jnp.concatenate(parts, within)
    return x


@cache
def _matrices(tile: int, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What takes n² inputs and r² taps to n² values, and n² products to m² outputs; float32.

    Multiplying polynomials is evaluating both, multiplying, and interpolating. Correlation is the
    transpose: inputs are what is interpolated, outputs what is evaluated.
    """
    inputs = tile + side - 1
    points = np.array(_POINTS[: inputs - 1], np.float64)

    def evaluate(coefficients: int) -> np.ndarray:
        infinity = np.zeros((1, coefficients))
        infinity[0, -1] = 1
        return np.concatenate([np.vander(points, coefficients, increasing=True), infinity])

    of_taps, of_outputs = evaluate(side), evaluate(tile).T
    of_inputs = np.linalg.inv(evaluate(inputs)).T
    scale = np.abs(of_taps).sum(1, keepdims=True)  # values of the taps no larger than the taps
    pairs = (of_inputs * scale, of_taps / scale, of_outputs)
    of_inputs, of_taps, of_outputs = (np.kron(m, m).astype(np.float32) for m in pairs)
    return of_inputs, of_taps, of_outputs
