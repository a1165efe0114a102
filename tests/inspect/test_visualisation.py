"""Images made for units do activate them: more than the digits, and as much as is said."""

import jax
import numpy as np
import pytest

from alexnet_jax.data.batches import padded_batches
from alexnet_jax.inspect.units import strongest
from alexnet_jax.inspect.visualisation import visualise
from alexnet_jax.models.receptive import receptive_fields
from tests.tiers import slow

UNITS = [1, 7]


@pytest.mark.parametrize(
    "output", ["conv2.linear", *slow("conv1.linear", "conv3.linear", "fc6.linear")]
)
def test_an_image_activates_its_unit_more_than_any_digit(run, digits, output):
    images, values = visualise(run, output, UNITS, steps=24)
    searched = np.asarray(digits.source.read(np.arange(40))["image"])
    best = strongest(run.features_of_batches(padded_batches(searched, 20), [output]), 1)[output]
    assert (values > best.values[UNITS, 0]).all()
    field, size = receptive_fields(run.model)[output], run.model.image_size
    assert images.dtype == np.uint8 and images.shape == (2, *(min(field.size, size),) * 2, 3)


def test_the_activation_is_that_of_the_image_where_the_unit_looks(run):
    output = "conv2.linear"
    field = receptive_fields(run.model)[output]
    images, values = visualise(run, output, UNITS, steps=10)
    grey = run.augmentation.mean.mean((0, 1)).round()
    stored = np.broadcast_to(grey, (2, 72, 72, 3)).astype(np.uint8)
    maps = run.features(stored, [output])[output]
    middle = (maps.shape[1] - 1) // 2  # 51 pixels of 64: the only places that lie inside
    at = 4 + field.start + middle * field.stride
    stored = stored.copy()
    stored[:, at : at + field.size, at : at + field.size] = images
    maps = run.features(stored, [output])[output]
    np.testing.assert_allclose(maps[[0, 1], middle, middle, UNITS], values, rtol=0.02)


@pytest.mark.slow
def test_the_flag_for_double_precision_changes_nothing_but_rounding(run):
    with jax.enable_x64(True):
        double = visualise(run, "fc7.linear", [3], steps=4)[0]
    single = visualise(run, "fc7.linear", [3], steps=4)[0]
    np.testing.assert_allclose(double, single.astype(int), atol=1)


def test_the_same_seed_makes_the_same_images(run):
    once, again, other = (
        visualise(run, "fc7.linear", [3], steps=4, seed=seed)[0] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(once, again)
    assert (once != other).any()
