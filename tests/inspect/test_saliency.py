"""Occlusion against hiding one place by hand."""

import numpy as np

from alexnet_jax.inspect.saliency import occlusion_map, overlay


def test_map_holds_the_probability_lost_at_each_place(run, digits):
    image = digits.source[0]["image"]
    found = occlusion_map(run, image, 3, steps=3)
    assert found.shape == (3, 3)
    grey = np.round(run.augmentation.mean.mean((0, 1)))
    hidden = image.copy()
    hidden[4:20, 52:68] = grey  # top right: a 16-pixel square in the 64 pixels from 4 on
    whole, without = run.predict(np.stack([image, hidden]), views="center")[:, 3]
    np.testing.assert_allclose(found[0, 2], whole - without, atol=1e-6)


def test_overlay_colors_only_where_hiding_costs():
    image = np.full((32, 32, 3), 100, np.uint8)
    occlusion = np.zeros((5, 5))
    occlusion[0, 0] = 0.9
    shown = overlay(image, occlusion).astype(int)
    assert shown[4, 4, 0] - shown[4, 4, 1] > 80  # red at the top left
    assert (np.ptp(shown[20:, 20:], axis=-1) == 0).all()  # grey elsewhere
