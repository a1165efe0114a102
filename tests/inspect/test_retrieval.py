"""The blocked search against brute force in NumPy."""

import numpy as np
import pytest

from alexnet_jax.inspect import retrieval
from alexnet_jax.inspect.retrieval import nearest, retrieval_figure, retrieval_precision


def brute_force(queries, gallery, k):
    """Indices and distances in float64, of equals the smaller index first."""
    differences = queries[:, None].astype(np.float64) - gallery[None].astype(np.float64)
    distances = np.sqrt((differences**2).sum(-1))
    indices = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return indices, np.take_along_axis(distances, indices, axis=1)


@pytest.mark.parametrize(
    ("rows", "block", "query_block"), [(100, None, 1024), (100, 100, 5), (103, 25, 7), (9, 4, 3)]
)
def test_neighbors_equal_brute_force_in_any_blocks(rows, block, query_block):
    rng = np.random.default_rng(rows)
    queries, gallery = rng.normal(size=(12, 20)), rng.normal(size=(rows, 20))
    queries, gallery = queries.astype(np.float32), gallery.astype(np.float32)
    indices, distances = brute_force(queries, gallery, 6)
    found = nearest(queries, gallery, 6, block=block, query_block=query_block)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-5)


def test_ties_go_to_the_smaller_index_across_blocks():
    rng = np.random.default_rng(0)
    gallery = rng.integers(0, 2, (200, 6)).astype(np.uint8)  # 64 different rows: many ties
    queries = rng.integers(0, 2, (11, 6)).astype(np.uint8)
    indices, distances = brute_force(queries, gallery, 8)
    found = nearest(queries, gallery, 8, block=30, query_block=4)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-6)


def test_near_copies_far_from_the_origin_are_told_apart():
    # |g|² - 2qg alone loses what sets these apart: they differ by 1e-3 at norms of 1e3.
    rng = np.random.default_rng(0)
    query = rng.normal(size=(1, 64)) + 100
    gallery = np.concatenate([query + 1e-3 * n * rng.normal(size=(1, 64)) for n in range(1, 7)])
    gallery = np.concatenate([gallery, rng.normal(size=(50, 64)) + 120]).astype(np.float32)
    query = query.astype(np.float32)
    indices, distances = brute_force(query, gallery, 4)
    found = nearest(query, gallery, 4)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-4)


def test_candidates_are_ranked_in_parts_that_fit(monkeypatch):
    rng = np.random.default_rng(0)
    queries, gallery = rng.normal(size=(7, 10)), rng.normal(size=(60, 10))
    whole = nearest(queries, gallery, 3)
    monkeypatch.setattr(retrieval, "VALUES", 300)
    parts = nearest(queries, gallery, 3)
    np.testing.assert_array_equal(parts.indices, whole.indices)


def test_gallery_may_be_a_file(tmp_path):
    rng = np.random.default_rng(0)
    queries, gallery = (rng.normal(size=(n, 8)).astype(np.float32) for n in (4, 50))
    np.save(tmp_path / "features.npy", gallery)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    found = nearest(queries, mapped, 5, block=16)
    np.testing.assert_array_equal(found.indices, brute_force(queries, gallery, 5)[0])


def test_errors_name_the_fact_and_the_mend():
    with pytest.raises(ValueError, match="k=6 neighbours of a gallery of 5"):
        nearest(np.zeros((1, 3)), np.zeros((5, 3)), 6)
    with pytest.raises(ValueError, match="take both from the same layer"):
        nearest(np.zeros((1, 3)), np.zeros((5, 4)), 2)


def test_precision_counts_neighbors_of_the_own_class():
    assert retrieval_precision(np.array([[1, 1, 2], [0, 3, 3]]), np.array([1, 3])) == 4 / 6


def test_figure_frames_neighbors_by_class():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    neighbors = np.zeros((2, 3, 8, 8, 3), np.uint8)
    labels = np.array([[0, 1, 0], [1, 1, 1]])
    figure = retrieval_figure(images, [0, 1], neighbors, labels, ["cat", "dog"])
    cells = np.array(figure.axes).reshape(2, 5)
    assert [cell.get_xlabel() for cell in cells[0, 2:]] == ["cat", "dog", "cat"]

    def frame(cell):
        return {spine.get_edgecolor() for spine in cell.spines.values()}

    same, other, again = map(frame, (cells[0, 2], cells[0, 3], cells[1, 2]))
    assert same == again != other
