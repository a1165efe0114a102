"""Figure 3 against kernels written by hand."""

import numpy as np
import pytest

from alexnet_jax.inspect.filters import color_shares, filter_picture, spectra


def test_picture_has_sixteen_a_row_and_tower_one_above_tower_two():
    kernel = np.zeros((2, 2, 3, 96))
    kernel[..., :48] = 1.0
    kernel[..., 5] = 0.2
    picture = filter_picture(kernel, towers=2, scale=1)
    assert picture.shape == (6 * 3 + 1, 16 * 3 + 1, 3)
    rows = picture[1::3, 1::3, 0]
    np.testing.assert_array_equal(rows[:3] == 255, np.arange(48).reshape(3, 16) != 5)
    assert rows[0, 5] == 51
    np.testing.assert_array_equal(rows[3:], np.zeros((3, 16)))
    assert (picture[::3] == 0).all()  # dark gaps


@pytest.mark.parametrize(("each", "shape"), [(24, (2, 12)), (8, (1, 8)), (19, (2, 16))])
def test_narrower_towers_fill_their_rows_where_they_can(each, shape):
    picture = filter_picture(np.ones((2, 2, 3, 2 * each)), scale=1)
    assert picture.shape == (2 * shape[0] * 3 + 1, shape[1] * 3 + 1, 3)


def test_one_scale_for_all_keeps_strengths_apart_and_per_filter_does_not():
    kernel = np.zeros((1, 2, 3, 2))
    kernel[0, :, :, 0] = [[-1.0] * 3, [1.0] * 3]
    kernel[0, :, :, 1] = [[-0.5] * 3, [0.5] * 3]
    one = filter_picture(kernel, towers=1, scale=1)
    own = filter_picture(kernel, towers=1, scale=1, per_filter=True)
    assert one[1, [1, 2, 4, 5], 0].tolist() == [0, 255, 64, 191]
    assert own[1, [1, 2, 4, 5], 0].tolist() == [0, 255, 0, 255]


def test_enlargement_repeats_pixels():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 4))
    small = filter_picture(kernel, scale=1)
    large = filter_picture(kernel, scale=5)
    np.testing.assert_array_equal(large[2::5, 2::5], small)
    np.testing.assert_array_equal(large[::5, 4::5], small)


def test_color_share_of_grey_color_and_noise():
    rng = np.random.default_rng(0)
    grey = np.repeat(rng.normal(size=(11, 11, 1, 48)), 3, axis=2)
    color = rng.normal(size=(11, 11, 3, 48))
    color -= color.mean(axis=2, keepdims=True)
    assert color_shares(np.concatenate([grey, color], -1)) == pytest.approx([0.0, 1.0], abs=1e-9)
    (noise,) = color_shares(rng.normal(size=(11, 11, 3, 96)), towers=1)
    assert noise == pytest.approx(2 / 3, abs=0.01)


def test_a_spectrum_has_the_kernels_frequencies():
    x = np.arange(8)
    waves = [np.ones(8), np.cos(np.pi * x / 2), np.cos(np.pi * x)]  # even, 4 pixels long, 2
    kernel = np.stack([np.ones((8, 1)) * wave for wave in waves], -1)[:, :, None].repeat(2, 2)
    pictures = spectra(kernel)
    assert pictures.shape == (3, 32, 32) and pictures.dtype == np.uint8
    brightest = [set(map(tuple, np.argwhere(picture == 255))) for picture in pictures]
    assert brightest == [{(16, 16)}, {(16, 8), (16, 24)}, {(16, 0)}]
    assert pictures.min() == 0
