"""Occlusion against hiding one place by hand, gradients against changing one pixel."""

import dataclasses

import jax
import numpy as np
import pytest

from alexnet_jax.inspect.saliency import gradient_map, occlusion_map, overlay


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


def test_a_gradient_is_what_a_change_of_the_pixel_does(run, digits):
    image, label = digits.source[1]["image"], 7
    params = jax.tree.map(lambda leaf: 10 * leaf, run.params)  # else rounding would be as large
    run = dataclasses.replace(run, state=run.state.replace(params=params))
    found = gradient_map(run, image, label)
    assert found.shape == (64, 64)
    row, column = np.unravel_index(found.argmax(), found.shape)
    differences = []
    for color in range(3):
        changed = np.stack([image, image]).astype(int)
        changed[:, 4 + row, 4 + column, color] += (1, -1)
        logits = run.features(np.uint8(np.clip(changed, 0, 255)), ["fc8.linear"])["fc8.linear"]
        moved = np.ptp(np.clip(changed, 0, 255)[:, 4 + row, 4 + column, color])
        differences.append(abs(logits[0, label] - logits[1, label]) / moved)
    assert max(differences) == pytest.approx(found[row, column], rel=0.1)
