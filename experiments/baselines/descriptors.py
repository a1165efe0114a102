"""Local descriptors of the classic methods: SIFT and colour statistics on a dense grid of patches.

The same patches for both: 16 x 16 pixels, every 6 pixels, in the image at three scales.
"""

import cv2
import numpy as np

SIDE = 160  # pixels; the photographs are scaled to them, for our net to 256
PATCH, CELL, STEP = 16, 4, 6  # pixels
SIDES = (160, 112, 80)  # of the scaled image; the patch stays


def corners(side: int) -> np.ndarray:
    """First pixels of the patches along a side."""
    return np.arange(0, side - PATCH + 1, STEP)


def _places() -> np.ndarray:
    centers = [(corners(side) + PATCH / 2) / side for side in SIDES]
    grids = [np.stack(np.meshgrid(at, at, indexing="ij"), -1) for at in centers]
    return np.concatenate([grid.reshape(-1, 2) for grid in grids]).astype(np.float32)


PLACES = _places()  # [P, 2]: y and x of the patches' centres, 0 to 1, in the descriptors' order


def _scaled(image: np.ndarray) -> list[np.ndarray]:
    return [cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for side in SIDES]


def sift(image: np.ndarray) -> np.ndarray:
    """float32[P, 128] of uint8[S, S, 3]: upright SIFT; square roots of the shares (RootSIFT)."""
    found = []
    for gray in _scaled(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)):
        centers = (corners(len(gray)) + PATCH / 2).tolist()
        # OpenCV's descriptor is six times as wide as its point is large.
        points = [cv2.KeyPoint(x, y, PATCH / 6, 0) for y in centers for x in centers]
        found.append(cv2.SIFT_create().compute(gray, points)[1])
    values = np.concatenate(found)
    return np.sqrt(values / (values.sum(1, keepdims=True) + 1))


def color(image: np.ndarray) -> np.ndarray:
    """float32[P, 96] of uint8[S, S, 3]: mean and deviation of R, G, B in 16 cells of a patch."""
    found = []
    for pixels in _scaled(image.astype(np.float32) / 255):
        # At [y, x] the mean of the cell that starts there.
        mean, square = (cv2.blur(x, (CELL, CELL), anchor=(0, 0)) for x in (pixels, pixels**2))
        both = np.concatenate([mean, np.sqrt(np.maximum(square - mean**2, 0))], -1)
        first = corners(len(pixels))
        rows = (first[:, None] + np.arange(0, PATCH, CELL)).ravel()
        cells = both[np.ix_(rows, rows)].reshape(len(first), 4, len(first), 4, 6)
        found.append(cells.transpose(0, 2, 1, 3, 4).reshape(len(first) ** 2, -1))
    return np.concatenate(found)


KINDS = {"SIFT": sift, "colour": color}
