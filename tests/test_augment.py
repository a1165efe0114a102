"""Crops, flips, colour and the ten views against NumPy (section 4.1)."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet_jax import augment
from alexnet_jax.augment import AlreadyAugmented, Augmentation
from tests.reference import training_numpy as reference
from tests.reference.cases import quick_jit

S, SIZE, COUNT = 20, 16, 4000  # stored and cropped side in pixels; images
MARGIN = S - SIZE
PLAIN = {"crop": "center", "flip": False, "color": "none", "mean": np.zeros(3, np.float32)}


def keys(count=COUNT, seed=0, step=0, positions=None):
    positions = jnp.arange(count) if positions is None else positions
    return augment.example_keys(jax.random.key(seed), step, positions)


def augmented(images, image_keys=None, size=SIZE, strength=0.1, **fields):
    image_keys = keys(len(images)) if image_keys is None else image_keys
    settings = Augmentation(**(PLAIN | fields))
    run = quick_jit(lambda x, k: augment.augment(x, k, settings, size, strength))
    return np.asarray(run(images, image_keys))


def maps(count=COUNT):
    """Images whose pixel at (y, x) is (y, x, 100): a crop tells where it was taken."""
    y, x = np.mgrid[:S, :S].astype(np.uint8)
    return np.broadcast_to(np.stack([y, x, np.full_like(y, 100)], -1), (count, S, S, 3))


def photographs(count=3, side=S, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def six_sigma(probability, count):
    return 6 * np.sqrt(probability * (1 - probability) / count)


# --- crop and flip ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crops():
    return augmented(maps(), crop="random", flip=True)


def test_crops_are_whole_windows_of_the_image(crops):
    for crop in crops[:200]:
        y, x = int(crop[0, 0, 0]), int(crop[0, :, 1].min())
        window = maps(1)[0, y : y + SIZE, x : x + SIZE]
        mirrored = crop[0, 0, 1] > crop[0, -1, 1]
        np.testing.assert_array_equal(crop, window[:, ::-1] if mirrored else window)


def test_every_offset_is_reached_and_all_equally_often(crops):
    offsets = Counter((int(c[0, 0, 0]), int(c[0, :, 1].min())) for c in crops)
    assert set(offsets) == {(y, x) for y in range(MARGIN + 1) for x in range(MARGIN + 1)}
    share = 1 / (MARGIN + 1) ** 2
    for count in offsets.values():
        assert abs(count / COUNT - share) < six_sigma(share, COUNT)


def test_half_of_the_crops_are_mirrored_whatever_their_offset(crops):
    mirrored = crops[:, 0, 0, 1] > crops[:, 0, -1, 1]
    assert abs(mirrored.mean() - 0.5) < six_sigma(0.5, COUNT)
    for y in range(MARGIN + 1):
        of_row = mirrored[crops[:, 0, 0, 0] == y]
        assert abs(of_row.mean() - 0.5) < six_sigma(0.5, len(of_row))


def test_flip_is_the_mirror_of_the_unflipped_crop():
    flipped = augmented(photographs(64), crop="random", flip=True)
    plain = augmented(photographs(64), crop="random", flip=False)
    same = [np.array_equal(a, b) for a, b in zip(flipped, plain, strict=True)]
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(flipped, plain, strict=True)]
    assert all(a != b for a, b in zip(same, mirrored, strict=True))
    assert any(same)
    assert any(mirrored)


def test_center_crop_is_the_middle_for_all():
    middle = MARGIN // 2
    expected = maps(5)[:, middle : middle + SIZE, middle : middle + SIZE]
    np.testing.assert_array_equal(augmented(maps(5)), expected)


def test_ten_crop_training_takes_the_test_views():
    found = augmented(maps(400), crop="ten", flip=True)
    views = {view.tobytes() for view in reference.ten_views(maps(1)[0], SIZE).astype(np.float32)}
    assert {crop.tobytes() for crop in found} == views


@settings(max_examples=5, deadline=None, derandomize=True)
@given(stored=st.integers(1, 9), margin=st.integers(0, 3))
def test_crops_of_any_size_are_inside(stored, margin):
    size = max(stored - margin, 1)
    images = photographs(2, stored)
    for crop, image in zip(augmented(images, size=size, crop="random"), images, strict=True):
        windows = [
            image[y : y + size, x : x + size]
            for y in range(stored - size + 1)
            for x in range(stored - size + 1)
        ]
        assert any(np.array_equal(crop, window) for window in windows)


# --- mean and colour ----------------------------------------------------------------------------


def test_mean_image_is_subtracted_where_the_crop_was_taken():
    mean = maps(1)[0].astype(np.float32)
    found = augmented(maps(8), crop="random", flip=True, mean=mean)
    np.testing.assert_array_equal(found, np.zeros_like(found))


def test_centre_of_the_mean_image_is_subtracted_as_the_authors_did():
    mean = maps(1)[0].astype(np.float32)
    middle = MARGIN // 2
    found = augmented(maps(8), crop="random", mean=mean, mean_at="center")
    crops = augmented(maps(8), crop="random")
    expected = crops - mean[middle : middle + SIZE, middle : middle + SIZE]
    np.testing.assert_array_equal(found, expected)


def centre(image):
    middle = (image.shape[0] - SIZE) // 2
    return image[middle : middle + SIZE, middle : middle + SIZE]


@pytest.mark.parametrize("mean_at", ["crop", "center"])
def test_a_mirrored_crop_has_the_mean_subtracted_as_the_paper_or_the_authors_do(mean_at):
    """The mean of the crop's place is mirrored with it; the centre of the mean image never is."""
    mean = photographs(1, seed=1)[0].astype(np.float32)
    fields = {"crop": "random", "flip": True}
    images, plain_images = photographs(64), photographs(64)
    found = augmented(images, mean=mean, mean_at=mean_at, **fields)
    crops = augmented(plain_images, **fields)
    if mean_at == "center":
        expected = crops - centre(mean)
    else:
        means = np.broadcast_to(mean.astype(np.uint8), images.shape)
        expected = crops - augmented(means, **fields)
    np.testing.assert_array_equal(found, expected)
    unflipped = augmented(images, crop="random")
    assert 0 < sum(np.array_equal(*pair) for pair in zip(crops, unflipped, strict=True)) < 64


def test_mirrored_views_have_the_centre_mean_subtracted_as_it_stands():
    mean = photographs(1, seed=1)[0].astype(np.float32)
    settings = Augmentation(mean=mean, mean_at="center")
    images = photographs()
    ten = augment.ten_views(images, settings, SIZE)
    expected = [reference.ten_views(image.astype(np.float32), SIZE) for image in images]
    np.testing.assert_array_equal(ten, np.stack(expected, axis=1) - centre(mean))
    np.testing.assert_array_equal(augment.center_view(images, settings, SIZE), ten[2:3])


@pytest.mark.parametrize(
    ("strength", "color", "divisor"), [(0.1, "std", 1.1), (0.0, "std", 1), (0.1, "none", 1)]
)
def test_images_are_divided_only_while_there_is_colour_noise(strength, color, divisor):
    images = maps(4)
    fields = {"color": color, "strength": np.float32(strength)}
    found = augmented(images, scale_with_color=True, **fields)
    np.testing.assert_allclose(found, augmented(images, **fields) / divisor, rtol=1e-6)
    np.testing.assert_array_equal(
        augment.center_view(images, Augmentation(**(PLAIN | {"scale_with_color": True})), SIZE)[0],
        augmented(images),
    )


def test_mean_colour_is_subtracted_everywhere():
    mean = np.array([1.5, 2.5, 3.5], np.float32)
    np.testing.assert_array_equal(augmented(maps(2), mean=mean), augmented(maps(2)) - mean)


@pytest.mark.parametrize(
    ("color", "strength", "scale"), [("std", 0.1, 1.0), ("std", 0.3, 1 / 1.1), ("eigenvalue", 2, 1)]
)
def test_colour_shifts_along_the_axes_by_their_deviations(color, strength, scale):
    settings = Augmentation()
    deviations = np.asarray(settings.deviations, float)
    if color == "eigenvalue":  # variances of pixels in 0-1, on pixels of 0-255
        deviations = (deviations / 255) ** 2 * 255
    axes = np.asarray(settings.eigenvectors, float)
    images = maps(COUNT)
    plain = augmented(images)
    found = augmented(images, color=color, strength=strength, scale=scale) / scale
    shift = (found - plain).astype(float)
    # One shift for all pixels of an image.
    assert np.ptp(shift, axis=(1, 2)).max() < 1e-4
    shift = shift.mean((1, 2))
    unit = np.stack([reference.color_shift(a, axes, deviations) for a in np.eye(3)], axis=1)
    alphas = np.linalg.solve(unit, shift.T).T  # what was drawn for each image and axis
    assert np.abs(alphas.mean(0)).max() < 6 * strength / np.sqrt(COUNT)
    spread = np.cov(alphas.T) / strength**2
    np.testing.assert_allclose(spread, np.eye(3), atol=6 * np.sqrt(2 / COUNT))
    kurtosis = ((alphas / strength) ** 4).mean(0)
    np.testing.assert_allclose(kurtosis, 3, atol=6 * np.sqrt(96 / COUNT))  # normal, not uniform


def test_colour_strength_zero_leaves_the_colours():
    images = photographs()
    np.testing.assert_array_equal(augmented(images, color="std", strength=0), augmented(images))


def test_imagenet_axes_are_orthonormal():
    axes = np.asarray(augment.IMAGENET_EIGENVECTORS, float)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=2e-5)


# --- test views ---------------------------------------------------------------------------------


def test_ten_views_are_the_authors_in_their_order():
    images = photographs(side=256)
    settings = Augmentation(mean=np.zeros(3, np.float32))
    found = augment.ten_views(images, settings, 224)
    assert found.dtype == jnp.float32
    expected = np.stack([reference.ten_views(image, 224) for image in images], axis=1)
    np.testing.assert_array_equal(found, expected)
    corners = [(0, 0), (0, 32), (16, 16), (32, 0), (32, 32)]
    for view, (y, x) in zip(found, corners, strict=False):
        np.testing.assert_array_equal(view[:, 0, 0], images[:, y, x])


def test_ten_views_subtract_the_mean_of_their_own_place():
    mean = photographs(1, seed=1)[0].astype(np.float32)
    images = photographs()
    found = augment.ten_views(images, Augmentation(mean=mean), SIZE)
    expected = [reference.ten_views(image.astype(np.float32) - mean, SIZE) for image in images]
    np.testing.assert_array_equal(found, np.stack(expected, axis=1))


def test_center_view_is_the_third_of_the_ten():
    settings = Augmentation()
    ten = augment.ten_views(photographs(), settings, SIZE)
    np.testing.assert_array_equal(augment.center_view(photographs(), settings, SIZE), ten[2:3])


# --- randomness ---------------------------------------------------------------------------------

FULL = {"crop": "random", "flip": True, "color": "std"}


def test_pixels_depend_on_seed_step_and_position_alone():
    images = np.broadcast_to(photographs(1), (8, S, S, 3))
    found = augmented(images, keys(8, step=3), **FULL)
    np.testing.assert_array_equal(found, augmented(images, keys(8, step=3), **FULL))
    for others in (keys(8, step=4), keys(8, step=3, seed=1), keys(8, step=3)[::-1]):
        changed = augmented(images, others, **FULL)
        assert not any(np.array_equal(a, b) for a, b in zip(found, changed, strict=True))
    distinct = {x.tobytes() for x in found}
    assert len(distinct) == len(images)


def test_pixels_do_not_depend_on_how_the_batch_is_split():
    images = photographs(6)
    whole = augmented(images, keys(6, step=3), **FULL)
    for rows in (slice(0, 2), slice(2, 6)):
        own = keys(step=3, positions=jnp.arange(6)[rows])
        np.testing.assert_array_equal(augmented(images[rows], own, **FULL), whole[rows])


# --- the protocol ---------------------------------------------------------------------------


def test_the_methods_are_the_functions_at_the_size_of_the_network():
    images = photographs()
    settings = augment.sized(Augmentation(), SIZE)
    np.testing.assert_array_equal(
        settings.train(images, keys(3), 0.1),
        augment.augment(images, keys(3), settings, SIZE, 0.1),
    )
    views = settings.views(images)
    assert {name: len(view) for name, view in views.items()} == {
        name: views.count for name, views in augment.VIEWS.items()
    }
    np.testing.assert_array_equal(views["ten"], augment.ten_views(images, settings, SIZE))
    assert augment.sized(settings, 99) is settings
    with pytest.raises(ValueError, match="image_size"):
        Augmentation().views(images)


def test_what_is_augmented_already_passes_and_is_tested_as_usual():
    settings = augment.sized(AlreadyAugmented(Augmentation()), SIZE)
    crops = np.ones((3, SIZE, SIZE, 3), np.float32)
    np.testing.assert_array_equal(settings.train(crops, keys(3), 0.1), crops)
    expected = augment.center_view(photographs(), Augmentation(), SIZE)
    np.testing.assert_array_equal(settings.views(photographs())["center"], expected)
    for wrong in (photographs(), crops.astype(np.float64), crops[:, 1:]):
        with pytest.raises(ValueError, match="float32"):
            settings.train(wrong, keys(3), 0.1)


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "fields", "message"),
    [
        (np.zeros((2, S, S, 1), np.uint8), {}, r"\(2, 20, 20, 1\)"),
        (np.zeros((2, S, S), np.uint8), {}, r"\(2, 20, 20\)"),
        (np.zeros((2, S, S + 1, 3), np.uint8), {}, "square"),
        (np.zeros((2, S, S, 3), np.float32), {}, "uint8"),
        (np.zeros((2, SIZE - 1, SIZE - 1, 3), np.uint8), {}, "image_size=16"),
        (maps(2), {"mean": np.zeros((8, 8, 3), np.float32)}, "8 pixels"),
        (maps(2), {"mean": np.zeros(2, np.float32)}, r"\(2,\)"),
        (maps(2), {"crop": "middle"}, "crop='middle'"),
        (maps(2), {"color": "pca"}, "color='pca'"),
        (maps(2), {"deviations": np.zeros(2)}, r"\(2,\)"),
        (maps(2), {"scale": "x"}, "scale='x'; give a number"),
        (maps(2), {"scale": float("nan")}, "scale=nan; give a number"),
        (maps(2), {"scale": 10**400}, "scale=10*; give a number"),
        *[
            (maps(2), {"image_size": size}, f"image_size={size}; give a number of pixels")
            for size in (0, -5, 2.5, True)
        ],
    ],
)
def test_unusable_images_and_settings_are_named(images, fields, message):
    with pytest.raises(ValueError, match=message):
        augmented(images, **fields)
