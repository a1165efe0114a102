"""The strongest patches are those that looking at everything finds."""

import numpy as np
import pytest

from alexnet_jax.data.batches import padded_batches
from alexnet_jax.inspect.units import patch, strongest
from alexnet_jax.models.receptive import ReceptiveField, receptive_fields

IMAGES = np.random.default_rng(0).integers(0, 256, (23, 72, 72, 3), dtype=np.uint8)


def strongest_of(run, images, batch_size, layer, count):
    batches = padded_batches(images, batch_size)
    return strongest(run.features_of_batches(batches, [layer]), count)[layer]


@pytest.mark.parametrize("layer", ["conv1", "conv3.linear", "conv5", "fc7"])
def test_they_are_those_of_a_search_through_all(run, layer):
    found = strongest_of(run, IMAGES, 5, layer, count=4)
    maps = run.features(IMAGES, [layer])[layer]
    maps = maps if maps.ndim == 4 else maps[:, None, None]
    for unit in range(maps.shape[-1]):
        best = []
        for image in range(len(IMAGES)):
            value, place = max(
                ((maps[image, y, x, unit], (-y, -x)) for y, x in np.ndindex(maps.shape[1:3])),
            )
            best.append((value, -image, tuple(-at for at in place)))
        best = sorted(best, reverse=True)[:4]
        np.testing.assert_allclose(found.values[unit], [value for value, _, _ in best], rtol=1e-5)
        if len({round(float(value), 5) for value, _, _ in best}) == 4:  # else rounding decides
            assert found.images[unit].tolist() == [-image for _, image, _ in best]
            assert [tuple(place) for place in found.places[unit].tolist()] == [p for *_, p in best]


def test_what_a_patch_leaves_out_changes_nothing(run):
    """Grey everywhere else, the unit answers as before."""
    layer, side = "conv2", run.model.image_size
    field = receptive_fields(run.model)[layer]
    found = strongest_of(run, IMAGES, 8, layer, count=1)
    margin = (72 - side) // 2
    for unit in range(3):
        place = tuple(found.places[unit, 0])
        rows, columns = (field.pixels(at, side) for at in place)
        image = IMAGES[found.images[unit, 0]]
        hidden = np.full_like(image, 128)
        window = np.s_[margin + rows.start : margin + rows.stop]
        across = np.s_[margin + columns.start : margin + columns.stop]
        hidden[window, across] = image[window, across]
        answer = run.features(hidden[None], [layer])[layer][0, *place, unit]
        assert answer == pytest.approx(found.values[unit, 0], rel=1e-5)
        crop = image[margin : margin + side, margin : margin + side]
        np.testing.assert_array_equal(patch(crop, field, place), image[window, across])


def test_fewer_images_than_are_wanted_are_all_there_are(run):
    found = strongest_of(run, IMAGES[:3], 8, "fc6", count=9)
    assert found.values.shape == found.images.shape == (32, 3)
    assert (np.sort(found.images, 1) == np.arange(3)).all()
    assert not found.places.any()


def test_nothing_to_look_at_and_no_such_layer(run):
    with pytest.raises(ValueError, match="there is no image"):
        strongest([])
    with pytest.raises(ValueError, match="no layer 'fc9'"):
        strongest_of(run, IMAGES, 8, "fc9", count=1)


def test_a_field_that_reaches_past_the_image_is_cut_there():
    crop = np.arange(6 * 6 * 3).reshape(6, 6, 3)
    cut = patch(crop, ReceptiveField(4, 2, -1), (0, 2))
    np.testing.assert_array_equal(cut, crop[0:3, 3:6])
