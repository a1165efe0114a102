"""Figure 3: the kernels of the first layer as pictures, and how much of them is colour."""

import numpy as np

from alexnet_jax.inspect.drawing import image_grid

_GREY_AXIS = np.ones(3) / np.sqrt(3)


def filter_picture(
    kernel: np.ndarray, *, towers: int = 2, per_filter: bool = False, scale: int = 6
) -> np.ndarray:
    """The kernels 16 a row, tower 1 above tower 2, as uint8 [H, W, 3].

    Towers whose kernels do not fill rows of 16 have rows of 8 to 15 that they fill, if any.

    Args:
      kernel: conv1's, float [h, w, 3, N]; tower 1's N / towers kernels first.
      towers: each begins a new row.
      per_filter: scale each kernel to its own range instead of all to one.
      scale: side in pixels of one weight; enlarged without blur.

    Source: AlexNet figure 3; the gaps and the one scale are the authors' code's.
    """
    pictures = filter_pictures(kernel, per_filter=per_filter)
    each = len(pictures) // towers
    per_row = next((n for n in range(16, 7, -1) if each % n == 0), 16)
    rows = [
        list(tower[at : at + per_row])
        for tower in np.split(pictures, towers)
        for at in range(0, each, per_row)
    ]
    return image_grid(rows).repeat(scale, axis=0).repeat(scale, axis=1)


def filter_pictures(kernel: np.ndarray, *, per_filter: bool) -> np.ndarray:
    """Each kernel of float [h, w, 3, N] as a picture: uint8 [N, h, w, 3], the lowest weight black.

    Args:
      kernel: the first convolution's.
      per_filter: scale each to its own range instead of all to one.
    """
    kernel = np.asarray(kernel, np.float32)
    axes = (0, 1, 2) if per_filter else None
    low, high = (f(kernel, axis=axes, keepdims=True) for f in (np.min, np.max))
    levels = np.round(255 * (kernel - low) / np.maximum(high - low, 1e-12)).astype(np.uint8)
    return np.moveaxis(levels, -1, 0)


def spectra(kernel: np.ndarray, *, size: int = 32) -> np.ndarray:
    """The spatial frequencies that each kernel answers to: uint8 [N, size, size].

    The middle is what is even, the rim what changes from pixel to pixel of what the kernel reads;
    the strongest frequency is white, the weakest black. Of all inputs together, as root of the sum
    of squares.

    Args:
      kernel: a convolution's, float [h, w, inputs, N].
      size: side of the picture, at least h and w.
    """
    waves = np.fft.fft2(np.asarray(kernel, np.float32), (size, size), axes=(0, 1))
    strength = np.fft.fftshift(np.sqrt((np.abs(waves) ** 2).sum(2)), axes=(0, 1))
    strength -= strength.min((0, 1))
    strength /= np.maximum(strength.max((0, 1)), 1e-12)
    return np.moveaxis(np.round(255 * strength).astype(np.uint8), -1, 0)


def color_shares(kernel: np.ndarray, *, towers: int = 2) -> list[float]:
    """How much of each tower's kernels is colour: 0 is grey, 1 blind to brightness.

    The share of the sum of squared weights [h, w, 3, N] that lies off the grey axis R = G = B.
    Weights drawn independently, as at the start, have 2/3.

    Source: AlexNet §6.1 (one tower's kernels are colour-agnostic, the other's colour-specific).
    """
    shares = []
    for tower in np.split(np.asarray(kernel, np.float64), towers, axis=-1):
        grey = np.einsum("hwcn,c->hwn", tower, _GREY_AXIS)
        shares.append(float(1 - (grey**2).sum() / (tower**2).sum()))
    return shares


def splits_by_chance(kernel: np.ndarray, *, draws: int = 2000) -> np.ndarray:
    """How far apart the `color_shares` of two halves are, drawn at random among the kernels.

    What two towers that did not specialise would have: float64 [draws], the same at each call.

    Args:
      kernel: the first convolution's, float [h, w, 3, N].
      draws: number of draws.
    """
    rng = np.random.default_rng(0)
    shuffled = (kernel[..., rng.permutation(kernel.shape[-1])] for _ in range(draws))
    shares = np.array([color_shares(halves) for halves in shuffled])
    return np.abs(shares[:, 0] - shares[:, 1])
