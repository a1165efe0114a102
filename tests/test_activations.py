"""What `features` gives for every name, against the operations one by one."""

import jax
import numpy as np
import pytest

from alexnet_jax import AlexNet, alexnet, ops, parallel
from alexnet_jax.activations import known_outputs, layers_named, outputs_of_batches
from alexnet_jax.augment import Augmentation, center_view
from alexnet_jax.data.batches import padded_batches
from alexnet_jax.step import create_train_state

SMALL = {
    "image_size": 64,
    "conv_features": (4, 8, 8, 8, 4),
    "fc_features": (16, 16),
    "num_classes": 3,
}
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 72, 72, 3)).astype(np.uint8)


def outputs(preset, layers, **how):
    side = 67 if preset == "caffenet" else 64
    model = alexnet(preset, **SMALL | {"image_size": side})
    augmentation = Augmentation(color="none")
    params = create_train_state(model, jax.random.key(0)).params
    batches = padded_batches(IMAGES, 4)  # the last with one image
    parts = list(outputs_of_batches(model, augmentation, params, batches, layers, **how))
    assert [len(part[layers[0]]) for part in parts] == [4, 1]
    crops = center_view(IMAGES, augmentation, side)[0]
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return model, params, crops, found


class Unhashable(AlexNet):
    """As a network with a list among its fields."""


Unhashable.__hash__ = None


def test_a_network_with_a_list_among_its_fields_has_outputs():
    model, augmentation = Unhashable(**SMALL), Augmentation(color="none")
    params = create_train_state(model, jax.random.key(0)).params
    (found,) = outputs_of_batches(model, augmentation, params, [{"image": IMAGES}], "fc6")
    (same,) = outputs_of_batches(AlexNet(**SMALL), augmentation, params, [{"image": IMAGES}], "fc6")
    np.testing.assert_array_equal(found["fc6"], same["fc6"])


def test_names_are_what_the_paper_does_in_its_order():
    names = ["conv1.linear", "conv1.relu", "conv1.lrn", "conv1.pool", "pool1", "conv1"]
    model, params, crops, found = outputs("paper", names)
    assert set(names) < set(known_outputs(model))
    linear = (
        jax.lax.conv_general_dilated(
            crops,
            params["conv1"]["kernel"],
            (4, 4),
            ((0, 3), (0, 3)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision="highest",
        )
        + params["conv1"]["bias"]
    )
    np.testing.assert_allclose(found["conv1.linear"], linear, atol=1e-3)
    np.testing.assert_array_equal(found["conv1.relu"], np.maximum(found["conv1.linear"], 0))
    halves = np.split(found["conv1.relu"], 2, axis=-1)  # the window stops at the tower's edge
    normed = np.concatenate([ops.local_response_norm(half) for half in halves], -1)
    np.testing.assert_allclose(found["conv1.lrn"], normed, rtol=1e-5)
    pooled = np.array(ops.max_pool(found["conv1.lrn"], 3, 2))
    np.testing.assert_allclose(found["pool1"], pooled, rtol=1e-6)
    for same in ("conv1.pool", "conv1"):
        np.testing.assert_array_equal(found[same], found["pool1"])


def test_pool1_is_before_the_norm_where_the_net_pools_first():
    _, _, _, found = outputs("caffenet", ["pool1", "conv1.lrn", "conv1", "conv1.relu"])
    assert (found["pool1"] > found["conv1"]).any()
    np.testing.assert_array_equal(found["conv1.lrn"], found["conv1"])
    pooled = np.array(ops.max_pool(found["conv1.relu"], 3, 2))
    np.testing.assert_array_equal(found["pool1"], pooled)


def test_dropout_at_test_halves_and_fc8_is_the_logits():
    model, params, crops, found = outputs("paper", ["fc6.relu", "fc6", "fc8"])
    np.testing.assert_array_equal(found["fc6"], found["fc6.relu"] / 2)
    logits = model.apply({"params": params}, crops)
    np.testing.assert_allclose(found["fc8"], logits, atol=1e-5)


@pytest.mark.parametrize("maps", ["mean", "max"])
def test_maps_are_pooled_over_places(maps):
    _, _, _, whole = outputs("paper", ["conv3", "fc7"])
    _, _, _, found = outputs("paper", ["conv3", "fc7"], maps=maps)
    np.testing.assert_allclose(found["conv3"], getattr(np, maps)(whole["conv3"], (1, 2)), rtol=1e-5)
    np.testing.assert_array_equal(found["fc7"], whole["fc7"])


def test_all_is_every_row_once_in_order():
    model = alexnet("paper")
    names = layers_named(model, ["fc7", "all"])
    assert sorted(names) == sorted(row.name for row in model.layers)
    assert layers_named(model, []) == ("fc7",)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"layers": ["conv9"]}, "no layer 'conv9'; did you mean"),
        ({"layers": ["conv1.lnr"]}, "did you mean 'conv1.lrn'"),
        ({"layers": ["norm1"]}, "no layer 'norm1'; did you mean 'conv1.lrn'"),
        ({"layers": ["fc7"], "maps": "median"}, "maps='median'"),
    ],
)
def test_unknown_names_are_told_with_a_suggestion(how, message):
    with pytest.raises(ValueError, match=message):
        outputs("paper", **how)


def test_towers_on_two_devices_give_the_same():
    model, augmentation = alexnet("paper", **SMALL), Augmentation(color="none")
    mesh = parallel.make_mesh(1, 2)
    found = []
    for where in (None, mesh):
        params = create_train_state(model, jax.random.key(0), mesh=where).params
        (part,) = outputs_of_batches(model, augmentation, params, [{"image": IMAGES[:4]}], ["all"])
        found.append(part)
    for layer in found[0]:
        np.testing.assert_allclose(found[1][layer], found[0][layer], rtol=1e-4, atol=1e-4)
