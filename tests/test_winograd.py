"""Winograd's form of a convolution against the sum over taps: values, gradients, its use."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet_jax import ops
from alexnet_jax.ops import linear, winograd
from tests.reference import alexnet_numpy as reference
from tests.reference.cases import quick_jit
from tests.test_ops import normal

# Of the largest value: what the module says that it rounds to.
ROUNDING = 2e-5


def equals_sum_over_taps(convolve, x, kernel, stride, pad, groups=1):
    value, backward = reference.convolution(
        x, kernel, np.zeros(kernel.shape[-1]), stride, pad, groups
    )
    g = normal(*value.shape, seed=9)
    d_x, d_kernel = backward(g)

    @quick_jit
    def evaluate(x, kernel, g):
        found, vjp = jax.vjp(convolve, x, kernel)
        return found, *vjp(g)

    found = evaluate(*map(jnp.float32, (x, kernel, g)))
    for ours, theirs in zip(found, (value, d_x, d_kernel["kernel"]), strict=True):
        assert ours.dtype == jnp.float32
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= ROUNDING * np.abs(theirs).max()


@pytest.mark.parametrize(
    ("side", "taps", "stride", "pad", "channels", "features", "groups"),
    [
        (224, 11, 4, (0, 3), 3, 96, 1),
        (227, 11, 4, (0, 0), 3, 96, 1),
        (27, 5, 1, (2, 2), 96, 256, 2),
        (13, 3, 1, (1, 1), 384, 384, 2),
        (13, 3, 1, (1, 1), 256, 384, 1),
    ],
    ids=["conv1", "conv1 of caffe227", "conv2", "conv4", "conv3"],
)
def test_layers_of_the_paper(side, taps, stride, pad, channels, features, groups):
    x = normal(1, side, side, channels, scale=50)
    kernel = normal(taps, taps, channels // groups, features, seed=1, scale=0.01)
    per_group = (*kernel.shape[:3], features // groups)
    assert tile(per_group, side, stride, pad)

    def convolution(x, kernel):
        return ops.convolution(
            x, kernel, stride=stride, padding=(pad, pad), groups=groups, precision="highest"
        )

    equals_sum_over_taps(convolution, x, kernel, stride, pad, groups)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(data=st.data(), taps=st.integers(1, 5), batch=st.integers(1, 3), channels=st.integers(1, 4))
def test_maps_tiles_and_margins_of_any_size(data, taps, batch, channels):
    tile = data.draw(st.integers(1, winograd.MOST_INPUTS + 1 - taps))
    low, high = data.draw(st.integers(0, 3)), data.draw(st.integers(0, 3))
    side = data.draw(st.integers(max(1, taps - low - high), 14))
    x, kernel = normal(batch, side, side, channels), normal(taps, taps, channels, 2, seed=1)

    def convolution(x, kernel):
        return winograd.convolution(x, kernel, padding=((low, high), (low, high)), tile=tile)

    equals_sum_over_taps(convolution, x, kernel, 1, (low, high))


@settings(max_examples=12, deadline=None, derandomize=True)
@given(data=st.data(), stride=st.integers(2, 4), taps=st.integers(2, 12))
def test_blocks_that_are_filled_up_added_or_left_out(data, stride, taps):
    """`space_to_depth`: maps that are no whole blocks, and more or fewer than are read."""
    low, high = data.draw(st.integers(0, 6)), data.draw(st.integers(0, 6))
    side = data.draw(st.integers(max(1, taps - low - high), 22))
    x, kernel = normal(2, side, side, 2), normal(taps, taps, 2, 3, seed=1)

    def convolution(x, kernel):
        blocks, taps = winograd.space_to_depth(x, kernel, stride, ((low, high), (low, high)))
        return ops.convolution(blocks, taps, precision="highest")

    equals_sum_over_taps(convolution, x, kernel, stride, (low, high))


def test_height_and_width_may_differ():
    x, kernel = jnp.float32(normal(1, 9, 14, 3)), jnp.float32(normal(3, 3, 3, 2, seed=1))
    padding = ((1, 0), (0, 2))
    direct = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
    )
    found = winograd.convolution(x, kernel, padding=padding, tile=5)
    np.testing.assert_allclose(found, direct, atol=ROUNDING * np.abs(direct).max())


def tile(kernel, side=13, stride=1, pad=(1, 1), dtype="float32"):
    return linear._winograd_tile(jnp.dtype(dtype), (2, side, side), kernel, stride, (pad, pad))


def test_wide_layers_take_winograds_form():
    """Tile by tile as measured: those of the paper, and the 3 x 3 maps of 64-pixel images."""
    assert tile((11, 11, 3, 96), 224, 4, (0, 3)) == 5
    assert tile((5, 5, 48, 128), 27, pad=(2, 2)) == 4
    assert tile((3, 3, 256, 384)) == tile((3, 3, 192, 128)) == 5
    assert tile((3, 3, 96, 64), 3) == 3
    assert tile((3, 3, 128, 128), dtype="bfloat16")


def test_narrow_layers_exact_types_and_other_backends_keep_the_sum_over_taps(monkeypatch):
    assert not tile((3, 3, 8, 64))
    assert not tile((3, 3, 64, 8))
    assert not tile((1, 1, 128, 128))
    assert not tile((9, 9, 128, 128))
    assert not tile((3, 5, 128, 128))
    assert not tile((3, 3, 128, 128), dtype="float64")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not tile((3, 3, 128, 128))


def test_bfloat16_maps_are_multiplied_in_float32():
    """By kernels that are not rounded: only the result is."""
    x, kernel = normal(1, 13, 13, 128), normal(3, 3, 128, 128, seed=1)
    x = np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64)
    value, _ = reference.convolution(x, kernel, np.zeros(128), 1, (1, 1), 1)
    found = ops.convolution(
        jnp.asarray(x, jnp.bfloat16), jnp.float32(kernel), padding=((1, 1), (1, 1))
    )
    assert found.dtype == jnp.bfloat16
    error = np.abs(np.asarray(found, np.float64) - value)
    assert (error <= 2**-8 * np.abs(value) + ROUNDING * np.abs(value).max()).all()
