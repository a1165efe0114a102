"""Figure 4 (right): images whose features lie closest, by exact search on the device."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from matplotlib.figure import Figure

from alexnet_jax.inspect.drawing import COLORS, new_figure, shorten, show_image, style

SPARE = 8  # candidates beyond those asked for, to be ranked by their exact distances
VALUES = 2**26  # of the gallery on the device at a time: 256 MiB, 16,384 rows of fc7


class Neighbors(NamedTuple):
    """The nearest rows of a gallery, the closest first; of equals the smaller index first.

    Fields:
      indices: int64 [Q, k], rows of the gallery.
      distances: float32 [Q, k], Euclidean.
    """

    indices: np.ndarray
    distances: np.ndarray


def nearest(
    queries: np.ndarray, gallery: Any, k: int, *, block: int | None = None, query_block: int = 1024
) -> Neighbors:
    """The `k` rows of `gallery` nearest to each query, by comparing every pair on the device.

    The gallery goes through the device in blocks, so it may be as large as the host can hold, or
    map from a file (`numpy.load(..., mmap_mode="r")`): 1.28 million features are 79 blocks.
    Pairs are compared by |g|² - 2qg in float32; the best k and a few spare ones are then ranked
    by their distances proper.

    Args:
      queries: [Q, D], any real type.
      gallery: [N, D], NumPy or JAX; what lies on the device already is not moved.
      k: neighbours a query.
      block: rows of the gallery at a time; None: as many as make `VALUES` numbers.
      query_block: queries at a time; block x query_block distances are held.

    Raises:
      ValueError: widths differ, or the gallery has fewer than `k` rows.

    Source: AlexNet §6.1.
    """
    if queries.shape[1:] != gallery.shape[1:]:
        raise ValueError(
            f"queries of {queries.shape[1:]} and gallery of {gallery.shape[1:]} values a row; "
            "take both from the same layer"
        )
    if not 0 < k <= len(gallery):
        raise ValueError(f"k={k} neighbours of a gallery of {len(gallery)}; use 1 to that many")
    width = queries.shape[1]
    block = min(block or max(VALUES // width, 1), len(gallery))
    found = min(k + SPARE, len(gallery))
    parts = [queries[at : at + query_block] for at in range(0, len(queries), query_block)]
    best = [_nothing_yet(len(part), found) for part in parts]
    for end in range(block, len(gallery) + block, block):
        # The last block begins early, so that all are of one size, and skips what was seen.
        start = min(end, len(gallery)) - block
        rows = jax.device_put(gallery[start : start + block])
        best = [
            _merge(kept, part, rows, start, end - block)
            for kept, part in zip(best, parts, strict=True)
        ]
    candidates = np.concatenate([kept.indices for kept in best])
    rows_ranked = max(VALUES // (found * width), 1)
    ranked = []
    for at in range(0, len(queries), rows_ranked):
        some = slice(at, at + rows_ranked)
        ranked.append(_rank(queries[some], gallery[candidates[some]], candidates[some], k))
    indices, distances = (np.concatenate(column) for column in zip(*ranked, strict=True))
    return Neighbors(indices.astype(np.int64), distances)


class _Best(NamedTuple):
    """Candidates so far: int32 [Q, K] rows and float32 [Q, K] scores, the highest first."""

    indices: jax.Array
    scores: jax.Array


def _nothing_yet(queries: int, found: int) -> _Best:
    shape = (queries, found)
    return _Best(jnp.zeros(shape, jnp.int32), jnp.full(shape, -jnp.inf, jnp.float32))


@jax.jit
def _merge(best: _Best, queries, rows, start, fresh) -> _Best:
    """The best of `best` and of the gallery's `rows`, which begin at `start`, from `fresh` on.

    Equal scores keep their order in `top_k`, and earlier rows stand first: ties go to them.
    """
    queries, rows = queries.astype(jnp.float32), rows.astype(jnp.float32)
    products = jnp.matmul(queries, rows.T, precision=lax.Precision.HIGHEST)
    scores = 2 * products - (rows * rows).sum(-1)
    places = start + jnp.arange(len(rows))
    scores = jnp.where(places < fresh, -jnp.inf, scores)
    found = min(best.scores.shape[1], len(rows))
    scores, chosen = lax.top_k(scores, found)
    scores = jnp.concatenate([best.scores, scores], axis=1)
    indices = jnp.concatenate([best.indices, places[chosen]], axis=1)
    scores, chosen = lax.top_k(scores, best.scores.shape[1])
    return _Best(jnp.take_along_axis(indices, chosen, axis=1), scores)


@functools.partial(jax.jit, static_argnames="k")
def _rank(queries, candidates, indices, k):
    """The k nearest of candidates [Q, K, D], by distance and then by index."""
    differences = candidates.astype(jnp.float32) - queries.astype(jnp.float32)[:, None]
    distances = jnp.sqrt((differences * differences).sum(-1))
    distances, indices = lax.sort((distances, indices), num_keys=2)
    return indices[:, :k], distances[:, :k]


def retrieval_precision(found: np.ndarray, wanted: np.ndarray) -> float:
    """Share of neighbours of the query's class: labels found [Q, k], wanted [Q]."""
    return float(np.mean(np.asarray(found) == np.asarray(wanted)[:, None]))


def retrieval_figure(
    queries: np.ndarray,
    query_labels: Sequence[int],
    neighbors: np.ndarray,
    neighbor_labels: np.ndarray,
    class_names: Sequence[str],
) -> Figure:
    """A row a query: the query, then its neighbours, framed by whether the class is the same.

    Args:
      queries: uint8 [Q, H, W, 3].
      query_labels: int [Q].
      neighbors: uint8 [Q, k, H, W, 3], the closest first.
      neighbor_labels: int [Q, k].
      class_names: one a class.

    Source: AlexNet figure 4 (right).
    """
    count, k = neighbors.shape[:2]
    with style():
        figure = new_figure(5, 0.86 * count)
        cells = figure.subplots(count, k + 2, width_ratios=[1, 0.12] + [1] * k, squeeze=False)
        for row in range(count):
            cells[row, 1].set_axis_off()
            _framed(cells[row, 0], queries[row], class_names[query_labels[row]], COLORS["muted"])
            for column in range(k):
                label = neighbor_labels[row, column]
                color = COLORS["blue" if label == query_labels[row] else "red"]
                cell = cells[row, column + 2]
                _framed(cell, neighbors[row, column], class_names[label], color)
    return figure


def _framed(cell, image, name, color):
    show_image(cell, image)
    cell.set_axis_on()
    cell.grid(False)
    cell.set(xticks=[], yticks=[])
    cell.spines[:].set_visible(True)
    cell.spines[:].set_color(color)
    cell.spines[:].set_linewidth(2)
    cell.set_xlabel(shorten(name, 12), fontsize=6.5, labelpad=2)
