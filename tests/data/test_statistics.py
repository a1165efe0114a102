"""Mean image and colour axes: exact, the same in any order, never those of another data set."""

import os
from pathlib import Path

import numpy as np
import pytest
from absl import logging

from alexnet_jax.augment import IMAGENET_DEVIATIONS, IMAGENET_EIGENVECTORS, Augmentation
from alexnet_jax.data import statistics
from alexnet_jax.data.images import decode_image
from alexnet_jax.data.sets import open_dataset
from alexnet_jax.data.statistics import derive, load_statistics, moments
from tests.data.conftest import png, write_dataset

PIXELS = np.random.default_rng(0).integers(0, 256, (70, 6, 6, 3), np.uint8)
PIXELS[..., 1] = PIXELS[..., 0] // 2 + PIXELS[..., 1] // 3  # channels that go together


@pytest.fixture(autouse=True)
def cache_home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(data_dir, pixels=PIXELS):
    return write_dataset(data_dir, "photos", [png(p) for p in pixels], [0] * len(pixels), shards=2)


def open_train(data_dir):
    return open_dataset("photos", "train", data_dir=str(data_dir), stored_size=6)


def test_statistics_equal_numpys(tmp_path):
    write(tmp_path)
    found = load_statistics(open_train(tmp_path))
    np.testing.assert_array_equal(found.mean, PIXELS.mean(0, dtype=np.float64).astype(np.float32))
    covariance = np.cov(PIXELS.reshape(-1, 3).T.astype(np.float64), bias=True)
    axes, deviations = found.eigenvectors.astype(np.float64), found.deviations.astype(np.float64)
    np.testing.assert_allclose(axes * deviations**2 @ axes.T, covariance, rtol=1e-5, atol=1e-2)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)
    assert (np.diff(deviations) >= 0).all()
    assert all(array.dtype == np.float32 for array in found)


def test_covariance_of_nearly_equal_pixels_is_exact():
    """In float32, or as E[x²] - E[x]², nothing would be left of a variance of 3e-6."""
    images = np.full((300, 32, 32, 3), 255, np.uint8)
    images[0, 0, 0] = 254
    deviation = derive(moments(images)).deviations
    np.testing.assert_allclose(
        deviation[2], np.sqrt(3 * (300 * 1024 - 1)) / (300 * 1024), rtol=1e-6
    )


@pytest.mark.parametrize("cuts", [[], [1], [35], [10, 33, 64]])
def test_sums_do_not_depend_on_order_or_parts(cuts):
    shuffled = np.random.default_rng(1).permutation(PIXELS)
    first, *rest = (moments(part) for part in np.split(shuffled, cuts))
    for part in rest:
        first += part
    whole = moments(PIXELS)
    assert first.count == whole.count == 70
    np.testing.assert_array_equal(first.pixels, whole.pixels)
    np.testing.assert_array_equal(first.products, whole.products)


def kept(cache_home):
    return cache_home / "alexnet_jax/photos/1.0.0/statistics-train-6.npz"


@pytest.mark.parametrize("read_only", [True, False])
def test_they_are_kept_in_the_users_cache_and_never_beside_the_data(
    tmp_path, monkeypatch, cache_home, read_only
):
    path = write(tmp_path)
    if read_only:
        monkeypatch.setenv("ALEXNET_DATA_DIR", str(tmp_path))
    before = sorted(path.iterdir())
    first = load_statistics(open_train(tmp_path))
    assert sorted(path.iterdir()) == before
    assert [file.name for file in kept(cache_home).parent.iterdir()] == [kept(cache_home).name]
    monkeypatch.setattr(statistics, "compute_moments", None)
    for mine, earlier in zip(load_statistics(open_train(tmp_path)), first, strict=True):
        np.testing.assert_array_equal(mine, earlier)


def test_statistics_of_another_state_of_the_set_are_not_taken(tmp_path, cache_home):
    """Not even where all its files are as large to the byte, and described in the same words."""
    first = write(tmp_path / "a")
    load_statistics(open_train(tmp_path / "a"))
    second = write(tmp_path / "b", 255 - PIXELS)
    sizes = [[file.stat().st_size for file in sorted(path.iterdir())] for path in (first, second)]
    assert sizes[0] == sizes[1]
    expected = (255 - PIXELS).mean(0, dtype=np.float64).astype(np.float32)
    np.testing.assert_array_equal(load_statistics(open_train(tmp_path / "b")).mean, expected)


@pytest.mark.parametrize("content", [b"PK\x03\x04 nothing", b"", b"\x93NUMPY", b"half", b"bit"])
def test_a_damaged_file_is_computed_anew(tmp_path, cache_home, content):
    write(tmp_path)
    first = load_statistics(open_train(tmp_path))
    whole = kept(cache_home).read_bytes()
    if content == b"half":
        content = whole[: len(whole) // 2]
    if content == b"bit":
        content = whole[:200] + bytes([whole[200] ^ 1]) + whole[201:]
    kept(cache_home).write_bytes(content)
    np.testing.assert_array_equal(load_statistics(open_train(tmp_path)).mean, first.mean)
    assert len(kept(cache_home).read_bytes()) == len(whole)


@pytest.mark.parametrize(
    "change",
    [
        {"count": 0},
        {"count": 69},
        {"pixels": np.zeros((8, 8, 3), np.int64)},
        {"pixels": np.zeros((6, 6, 3))},
        {"products": np.zeros(3, np.int64)},
    ],
)
def test_sums_that_do_not_fit_the_set_are_computed_anew(tmp_path, cache_home, change):
    write(tmp_path)
    first = load_statistics(open_train(tmp_path))
    with np.load(kept(cache_home)) as file:
        content = dict(file) | change
    np.savez(kept(cache_home), **content)
    np.testing.assert_array_equal(load_statistics(open_train(tmp_path)).mean, first.mean)


@pytest.mark.parametrize("where", ["a file", "no home"])
def test_where_nothing_can_be_kept_they_are_computed_and_that_is_said(
    tmp_path, monkeypatch, caplog, where
):
    write(tmp_path)
    data = open_train(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file") if where == "a file" else "")
    if where == "no home":
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    logging.use_absl_handler()
    with caplog.at_level("WARNING", logger="absl"):
        load_statistics(data)
    assert "set XDG_CACHE_HOME to a folder that can be written to" in caplog.text


def test_they_fit_the_augmentation(tmp_path):
    write(tmp_path)
    augmentation = Augmentation(**load_statistics(open_train(tmp_path))._asdict())
    assert augmentation.mean.shape == (6, 6, 3)


def test_imagenet_photographs_have_imagenets_statistics(beside_data):
    """150 photographs against the mean image and the colour axes of all 1.2 million."""
    files = sorted(beside_data("imagenet_samples").glob("*/*"))
    images = np.stack([decode_image(file.read_bytes(), 64) for file in files])
    found = derive(moments(images))
    mean = np.load(beside_data("ilsvrc_2012_mean_rgb.npy"))
    assert np.abs(found.mean.mean((0, 1)) - mean.mean((0, 1))).max() < 10
    cosines = np.abs((found.eigenvectors * IMAGENET_EIGENVECTORS).sum(0))
    assert (cosines > 0.98).all()
    np.testing.assert_allclose(found.deviations, IMAGENET_DEVIATIONS, rtol=0.25)
