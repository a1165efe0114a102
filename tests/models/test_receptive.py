"""Receptive fields are the pixels whose gradient is not nought."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax import alexnet
from alexnet_jax.activations import known_outputs
from alexnet_jax.models.presets import network
from alexnet_jax.models.receptive import ReceptiveField, receptive_fields


def seen(model, layer, place, images):
    """First and last row and column of the pixels that any of many images' units depends on."""
    key = jax.random.key(0)
    side = model.image_size
    pixels = jax.random.normal(jax.random.key(1), (images, side, side, 3)) * 50
    params = model.init(key, pixels[:1])["params"]
    # Weights under which signals neither die nor grow, and no unit is dead for long.
    params = jax.tree.map(
        lambda leaf: (
            leaf * 0 + 0.1
            if leaf.ndim == 1
            else jax.random.normal(key, leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1]))
        ),
        params,
    )

    def unit(pixels):
        _, kept = model.apply({"params": params}, pixels, mutable=["intermediates"])
        return kept["intermediates"][known_outputs(model)[layer]][0][:, *place].sum()

    gradient = np.asarray(jax.jit(jax.grad(unit))(pixels))
    touched = np.abs(gradient).max((0, 3)) > 0
    rows, columns = np.flatnonzero(touched.any(1)), np.flatnonzero(touched.any(0))
    return [(rows[0], rows[-1] + 1), (columns[0], columns[-1] + 1)]


def narrow(preset, **fields):
    return alexnet(
        preset, conv_features=(4, 4, 4, 4, 4), fc_features=(4, 4), num_classes=4, **fields
    )


def assert_fields_are_seen(model, layers, images):
    fields = receptive_fields(model)
    outputs = jax.eval_shape(
        lambda: model.init_with_output(
            jax.random.key(0),
            jnp.zeros((1, model.image_size, model.image_size, 3)),
            mutable=["params", "intermediates"],
        )[1]["intermediates"]
    )
    for layer in layers:
        height, width = outputs[known_outputs(model)[layer]][0].shape[1:3]
        for place in ((0, width - 1), (height // 2, width // 2)):
            expected = [
                (window.start, window.stop)
                for at in place
                for window in [fields[layer].pixels(at, model.image_size)]
            ]
            assert seen(model, layer, place, images) == expected, (layer, place)


def test_the_second_layer_sees_the_pixels_with_a_gradient(quick_compilation):
    assert_fields_are_seen(narrow("original", image_size=67), ("conv2.linear",), images=12)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["original", "paper", "caffenet"])
def test_they_are_the_pixels_with_a_gradient(preset, quick_compilation):
    layers = ("conv1", "conv2.linear", "conv2", "conv5")
    assert_fields_are_seen(narrow(preset, image_size=131), layers, images=24)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["paper", "original"])
def test_they_are_those_of_the_whole_net(preset, sums_over_taps):
    assert_fields_are_seen(alexnet(preset), ("conv1", "conv2", "conv4", "conv5"), images=3)


def test_they_are_the_published_ones():
    """As computed for AlexNet elsewhere: 195 pixels and a stride of 32 at the end (Caffe's)."""
    fields = receptive_fields(alexnet("caffe"))
    assert fields["conv1.linear"] == ReceptiveField(11, 4, 0)
    assert fields["conv1"] == ReceptiveField(19, 8, 0)
    assert fields["conv2.linear"][:2] == (51, 8) and fields["conv2"][:2] == (67, 16)
    assert [fields[f"conv{n}"][:2] for n in (3, 4)] == [(99, 16), (131, 16)]
    assert fields["conv5.linear"][:2] == (163, 16) and fields["conv5"][:2] == (195, 32)
    assert fields["fc6"].pixels(0, 227) == slice(0, 227)


def test_nets_of_other_operations():
    fields = receptive_fields(network("cifar10_18pct"))
    # 5 pixels of the kernel, 3 places of the pooling, 3 of the norm within maps, two apart.
    assert fields["conv1"] == ReceptiveField(5 + 2 + 2 * 2, 2, -2 - 2)
