"""The authors' CIFAR-10 nets: their operations against NumPy, their sizes, a step of each."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from alexnet_jax import (
    Augmentation,
    Hyperparameters,
    create_train_state,
    make_mesh,
    make_train_step,
    network,
    ops,
)
from alexnet_jax.configs import cifar10, cifar10_conv_local_11pct
from alexnet_jax.models.cifar import CifarNet
from alexnet_jax.models.layer_table import layer_table
from alexnet_jax.models.layers import Layer
from alexnet_jax.runs.recipe import build_model
from tests.reference import alexnet_numpy as reference
from tests.test_ops import both_precisions, check, normal

pytestmark = pytest.mark.usefixtures("quick_compilation")

PARAMETERS = {
    "cifar10_quick": 89_578,
    "cifar10_18pct": 89_578,
    "cifar10_conv_local_13pct": 1_116_490,
    "cifar10_conv_local_11pct": 2_112_970,
}


# --- operations -----------------------------------------------------------------------------------


def windows_past_the_end(side, window, stride):
    """The (first, past the last) pixel of each window that begins on the map."""
    spans = []
    for start in range(0, side, stride):
        spans.append((start, min(start + window, side)))
        if start + window >= side:
            break
    return spans


def pooled(x, window, stride, choose):
    """Window by window; `choose` maps a window [h, w] to weights [h, w] whose sum it takes."""
    weights = {}
    rows, columns = (windows_past_the_end(side, window, stride) for side in x.shape[1:3])
    y = np.zeros((x.shape[0], len(rows), len(columns), x.shape[3]))
    for b, i, j, c in np.ndindex(y.shape):
        (top, bottom), (left, right) = rows[i], columns[j]
        part = x[b, top:bottom, left:right, c]
        weights[b, i, j, c] = choose(part)
        y[b, i, j, c] = (part * weights[b, i, j, c]).sum()

    def backward(g):
        d_x = np.zeros_like(x)
        for (b, i, j, c), weight in weights.items():
            (top, bottom), (left, right) = rows[i], columns[j]
            d_x[b, top:bottom, left:right, c] += g[b, i, j, c] * weight
        return (d_x,)

    return y, backward


def first_maximum(part):
    weight = np.zeros(part.size)
    weight[part.argmax()] = 1
    return weight.reshape(part.shape)


def mean(part):
    return np.full(part.shape, 1 / part.size)


@both_precisions
@pytest.mark.parametrize(
    ("height", "width", "window", "stride"),
    [(8, 8, 3, 2), (6, 7, 3, 2), (2, 1, 3, 2), (5, 8, 2, 3), (9, 10, 4, 3)],
)
def test_average_pool_counts_only_pixels_on_the_map(height, width, window, stride, dtype):
    def expected(x):
        return pooled(x, window, stride, mean)

    x = normal(2, height, width, 2)
    check(lambda x: ops.average_pool(x, window, stride), expected, (x,), dtype)


@pytest.mark.parametrize("values", [3, 1000])
@pytest.mark.parametrize(
    ("height", "width", "window", "stride"),
    [(8, 8, 3, 2), (6, 7, 3, 2), (2, 1, 3, 2), (5, 8, 2, 3), (9, 10, 4, 3)],
)
def test_max_pool_past_the_end_takes_pixels_on_the_map(height, width, window, stride, values):
    """All below zero, so that a margin of zeros would win; with many ties and with few."""

    def expected(x):
        return pooled(x, window, stride, first_maximum)

    shape = (2, height, width, 2)
    x = np.random.default_rng(0).integers(0, values, shape).astype(float) - values - 1
    check(lambda x: ops.max_pool(x, window, stride, ceil=True), expected, (x,))


def test_averages_of_bfloat16_are_computed_in_float32():
    x = jnp.asarray(normal(2, 8, 8, 3, scale=100), jnp.bfloat16)
    exact = ops.average_pool(x.astype(jnp.float32))
    found = ops.average_pool(x)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, exact.astype(jnp.bfloat16))


@both_precisions
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("stride", "pad"), [(1, (1, 1)), (2, (0, 1))])
def test_local_convolution_equals_a_product_for_each_position(stride, pad, groups, dtype):
    side, taps, channels, features = (5, 6), (3, 2), 4, 6
    places = tuple((n + sum(pad) - t) // stride + 1 for n, t in zip(side, taps, strict=True))
    kernel = normal(*places, *taps, channels // groups, features, seed=1)

    def expected(x, kernel):
        margins = ((0, 0), pad, pad, (0, 0))
        padded = np.pad(x, margins)
        each_in, each_out = channels // groups, features // groups

        def at(i, j, t):
            window = (
                slice(None),
                slice(i * stride, i * stride + taps[0]),
                slice(j * stride, j * stride + taps[1]),
                slice(t * each_in, (t + 1) * each_in),
            )
            return window, slice(t * each_out, (t + 1) * each_out)

        y = np.zeros((len(x), *places, features))
        for i, j, t in np.ndindex(*places, groups):
            window, out = at(i, j, t)
            y[:, i, j, out] = np.einsum("bhwc,hwcf->bf", padded[window], kernel[i, j][..., out])

        def backward(g):
            d_padded, d_kernel = np.zeros_like(padded), np.zeros_like(kernel)
            for i, j, t in np.ndindex(*places, groups):
                window, out = at(i, j, t)
                part = g[:, i, j, out]
                d_padded[window] += np.einsum("bf,hwcf->bhwc", part, kernel[i, j][..., out])
                d_kernel[i, j][..., out] = np.einsum("bf,bhwc->hwcf", part, padded[window])
            inside = tuple(slice(pad[0], pad[0] + n) for n in side)
            return d_padded[:, inside[0], inside[1]], d_kernel

        return y, backward

    def local(x, kernel):
        return ops.local_convolution(
            x, kernel, stride=stride, padding=(pad, pad), groups=groups, precision="highest"
        )

    check(local, expected, (normal(2, *side, channels), kernel), dtype)


def test_local_convolution_of_other_positions_is_refused():
    with pytest.raises(ValueError, match=r"kernels of \(4, 4\) positions where the windows are"):
        ops.local_convolution(jnp.zeros((1, 5, 5, 2)), jnp.zeros((4, 4, 3, 3, 2, 2)))


def test_the_norms_of_these_nets_equal_windows_one_by_one():
    x = normal(2, 4, 5, 12, scale=100)

    def across(x):
        y, back = reference.local_response_norm(x, 1.0, 9, 0.001 / 9, 0.75, 1)
        return y, lambda g: (back(g),)

    def within(x):
        y = np.zeros_like(x)
        for b, i, j, c in np.ndindex(x.shape):
            part = x[b, max(0, i - 1) : i + 2, max(0, j - 1) : j + 2, c]
            y[b, i, j, c] = x[b, i, j, c] / (1 + 5e-5 / 9 * (part**2).sum()) ** 0.75
        return y

    (conv1, conv2, *_) = network("cifar10_conv_local_11pct").layers
    assert (conv1.operations[-1], conv2.operations[1]) == (conv1.operations[2],) * 2
    towers = None  # not needed: one block of channels
    norm = conv1.operations[2]
    check(
        lambda x: ops.local_response_norm(x, norm.size, norm.k, norm.alpha, norm.beta),
        across,
        (x,),
    )
    with jax.enable_x64(True):
        norm = network("cifar10_18pct").layers[1].operations[2]
        np.testing.assert_allclose(norm(jnp.asarray(x), towers, None), within(x), rtol=1e-12)


# --- the nets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PARAMETERS)
def test_parameters_are_as_many_as_the_authors(preset):
    model = network(preset)
    rows = layer_table(model)
    assert sum(row.parameters for row in rows) == PARAMETERS[preset]
    assert [row.output[0] for row in rows if row.window.endswith("ceil")] == (
        [16, 8, 4] if model.image_size == 32 else [12, 6]
    )
    numbers = [layer.number for layer in model.layers]
    assert len(set(numbers)) == len(numbers)


def test_a_local_row_counts_its_kernels_once():
    local = {row.name: row for row in layer_table(network("cifar10_conv_local_11pct"))}["local3"]
    assert local.output == (6, 6, 64)
    assert local.macs == 36 * 576 * 64
    assert local.parameters == local.macs + 36 * 64


def shapes(model):
    state = jax.eval_shape(lambda: create_train_state(model, jax.random.key(0)))
    return {name: tuple(leaf[p].shape for p in ("kernel", "bias")) for name, leaf in
            state.params.items()}  # fmt: skip


def test_the_best_net_s_parameters():
    assert shapes(network("cifar10_conv_local_11pct")) == {
        "conv1": ((5, 5, 3, 64), (64,)),
        "conv2": ((5, 5, 64, 64), (64,)),
        "local3": ((6, 6, 3, 3, 64, 64), (6, 6, 64)),
        "local4": ((6, 6, 3, 3, 64, 32), (6, 6, 32)),
        "fc10": ((1152, 10), (10,)),
    }


def names(model):
    return [operation.name for layer in model.layers for operation in layer.operations]


def test_activation_and_norm_change_nothing_else():
    for preset, norm in (
        ("cifar10_18pct", "within-map norm"),
        ("cifar10_conv_local_11pct", "LRN"),
    ):
        whole, without = network(preset), network(preset, norm=False)
        assert names(whole).count(norm) == 2
        assert names(without) == [name for name in names(whole) if name != norm]
        assert shapes(without) == shapes(whole)
    tanh = names(network("cifar10_quick", activation="tanh"))
    assert tanh == [name.replace("relu", "tanh") for name in names(network("cifar10_quick"))]
    assert network("cifar10_18pct", norm=False).layers == network("cifar10_quick").layers


@pytest.mark.parametrize("preset", ["cifar10_18pct", "cifar10_conv_local_11pct"])
def test_steps_lower_the_loss(preset):
    model = network(preset, image_size=12, num_classes=3)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 12, 12, 3), np.uint8)
    batch = {"image": images, "label": np.arange(6, dtype=np.int32) % 3}
    augmentation = Augmentation(
        crop="center", flip=False, color="none", mean=np.full(3, 127.0, np.float32)
    )
    state = create_train_state(model, jax.random.key(0))
    before = jax.device_get(state.params)
    step = make_train_step(model, augmentation)
    losses = []
    for _ in range(6):
        state, metrics = step(state, batch, Hyperparameters(learning_rate=0.01))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0]
    moved = jax.tree.map(lambda a, b: bool((a != np.asarray(b)).any()), before, state.params)
    assert all(jax.tree.leaves(moved)), moved


def test_the_initial_weights_are_the_authors():
    params = create_train_state(network("cifar10_conv_local_13pct"), jax.random.key(0)).params
    found = {name: float(np.std(leaf["kernel"])) for name, leaf in params.items()}
    wanted = {"conv1": 1e-4, "conv2": 0.01, "local3": 0.04, "local4": 0.04, "fc10": 0.01}
    assert found == pytest.approx(wanted, rel=0.05)
    assert not any(np.asarray(leaf["bias"]).any() for leaf in params.values())


# --- what is refused ------------------------------------------------------------------------------


def test_a_split_is_refused_in_one_line():
    message = "a net of 1 tower cannot be split over model=2; use model=1 or a preset with 2 towers"
    with pytest.raises(ValueError, match=re.escape(message)):
        make_train_step(network("cifar10_quick"), mesh=make_mesh(1, 2))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"variant": "18"}, "variant='18'; use one of quick, 18pct"),
        ({"activation": "rleu"}, "activation='rleu'; did you mean 'relu'"),
        ({"precision": "half"}, "precision='half'; "),
        ({"norm": 1}, "norm=1; it is of type bool"),
        ({"towers": 2}, "towers=2; a net for CIFAR-10 has 1"),
        ({"num_classes": 0}, "num_classes=0; use 1 to"),
        ({"image_size": -1}, "image_size=-1; use 1 to"),
    ],
)
def test_a_bad_field_is_named(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        CifarNet(**fields)


def test_a_field_of_the_other_net_is_refused_by_name():
    config = cifar10.get_config()  # sets fields that only AlexNet has
    config.preset = "cifar10_quick"
    with pytest.raises(ValueError, match=r"CifarNet has no field '\w+' \(preset 'cifar10_quick'\)"):
        build_model(config, 10)
    config.model = ConfigDict({})
    assert build_model(config, 10) == network("cifar10_quick")
    config = cifar10_conv_local_11pct.get_config()
    config.model.norm = False
    assert build_model(config, 10) == network("cifar10_conv_local_11pct", norm=False)
    config.preset = "paper"
    with pytest.raises(ValueError, match=r"AlexNet has no field 'norm' \(preset 'paper'\)"):
        build_model(config, 10)


def test_a_full_connection_is_shared():
    with pytest.raises(ValueError, match="layer 'fc6' is not shared; give it a kernel_size"):
        Layer("fc6", 5, shared=False)
