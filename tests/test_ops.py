"""The operations against the NumPy reference: values, gradients, edges (§3.1-3.4, 4.2)."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet_jax import ops
from alexnet_jax.models.layers import Dropout
from alexnet_jax.ops import linear
from tests.reference import alexnet_numpy as reference
from tests.reference.cases import quick_jit

FEW = settings(max_examples=8, deadline=None, derandomize=True)
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
both_backends = pytest.mark.parametrize("backend", ["cpu", "gpu"])
both_precisions = pytest.mark.parametrize("dtype", TOLERANCE)


def normal(*shape, seed=0, scale=1.0):
    return np.random.default_rng(seed).normal(0, scale, shape)


def close(found, expected, dtype):
    # Not a quotient: a gradient of nothing but zeros has no relative error.
    return np.linalg.norm(np.asarray(found) - expected) <= TOLERANCE[dtype] * np.linalg.norm(
        expected
    )


def check(operation, expected, inputs, dtype="float64"):
    """Value and gradients of `operation(*inputs)` equal those of the reference.

    `expected` returns (value, function from the gradient of the value to those of the inputs).
    """
    value, backward = expected(*inputs)
    g = normal(*value.shape, seed=99)

    @quick_jit
    def evaluate(inputs, g):
        found, vjp = jax.vjp(operation, *inputs)
        return found, vjp(g)

    with jax.enable_x64(dtype == "float64"):
        inputs, g_cast = jax.tree.map(lambda x: jnp.asarray(x, dtype), (inputs, g))
        found, gradients = evaluate(inputs, g_cast)
    assert found.dtype == dtype
    assert found.shape == value.shape
    assert close(found, value, dtype)
    for ours, theirs in zip(gradients, backward(g), strict=True):
        assert ours.dtype == dtype
        assert close(ours, theirs, dtype)


# --- convolution and full connection ------------------------------------------------------------


@both_precisions
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    ("taps", "stride", "pad"), [(11, 4, (0, 3)), (11, 4, (0, 0)), (5, 1, (2, 2)), (3, 1, (1, 1))]
)
def test_convolution_equals_sum_over_taps(taps, stride, pad, groups, dtype):
    x = normal(2, 20, 20, 4)
    kernel = normal(taps, taps, 4 // groups, 6, seed=1)

    def expected(x, kernel):
        y, back = reference.convolution(x, kernel, np.zeros(6), stride, pad, groups)

        def backward(g):
            d_x, d_kernel = back(g)
            return d_x, d_kernel["kernel"]

        return y, backward

    def convolution(x, kernel):
        return ops.convolution(
            x, kernel, stride=stride, padding=(pad, pad), groups=groups, precision="highest"
        )

    check(convolution, expected, (x, kernel), dtype)


@both_precisions
@pytest.mark.parametrize("rows", [3, linear._FEW_ROWS + 1])
@pytest.mark.parametrize("groups", [1, 2])
def test_dense_reads_its_own_towers(groups, rows, dtype):
    def expected(x, kernel):
        y, back = reference.dense(x, kernel, np.zeros(kernel.shape[1]), groups)

        def backward(g):
            d_x, d_kernel = back(g)
            return d_x, d_kernel["kernel"]

        return y, backward

    def dense(x, kernel):
        return ops.dense(x, kernel, groups=groups, precision="highest")

    check(dense, expected, (normal(rows, 8), normal(8 // groups, 6, seed=1)), dtype)


def test_few_rows_are_a_convolution_on_cpu_but_not_many_or_many_nets_at_once():
    def convolves(function, *shapes):
        shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
        return "convolution" in jax.jit(function).lower(*shapes).as_text()

    few, many = (linear._FEW_ROWS, 8), (linear._FEW_ROWS + 1, 8)
    assert convolves(ops.dense, few, (8, 6))
    assert not convolves(ops.dense, many, (8, 6))
    for axes in ((0, 0), (None, 0), (0, None)):
        x, kernel = normal(2, 3, 8), normal(2, 8, 6, seed=1)
        given = [a if axis == 0 else a[0] for a, axis in zip((x, kernel), axes, strict=True)]
        nets = jax.vmap(ops.dense, axes)
        assert not convolves(nets, *(a.shape for a in given))
        expected = np.stack([x[n * (axes[0] == 0)] @ kernel[n * (axes[1] == 0)] for n in (0, 1)])
        assert close(nets(*map(jnp.float32, given)), expected, "float32")


@both_backends
def test_a_product_of_bfloat16_is_near_the_exact_one_and_gives_its_weights_float32_gradients(
    backend, monkeypatch
):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    x, g = (jnp.asarray(normal(5, n, seed=n), jnp.bfloat16) for n in (64, 7))
    kernel, bias = jnp.float32(normal(64, 7)), jnp.float32(normal(7))

    def layer(x, kernel, bias):
        return ops.add_bias(ops.dense(x, kernel, precision="highest"), bias)

    y, vjp = jax.vjp(layer, x, kernel, bias)
    d_x, d_kernel, d_bias = vjp(g)
    assert (y.dtype, d_x.dtype) == (jnp.bfloat16, jnp.bfloat16)
    assert (d_kernel.dtype, d_bias.dtype) == (jnp.float32, jnp.float32)
    exact = [np.asarray(array, np.float64) for array in (x, kernel.astype(x.dtype), bias, g)]
    x64, kernel64, bias64, g64 = exact
    for found, expected in (
        (y, x64 @ kernel64 + bias64),
        (d_x, g64 @ kernel64.T),
        (d_kernel, x64.T @ g64),
        (d_bias, g64.sum(0)),
    ):
        np.testing.assert_allclose(
            np.asarray(found, np.float64), expected, atol=2**-6 * np.abs(expected).max()
        )


@pytest.mark.parametrize(
    ("backend", "has_instructions", "rows", "rounds"),
    [
        ("cpu", True, linear._FEW_ROWS, False),
        ("cpu", True, linear._FEW_ROWS + 1, True),
        ("cpu", False, linear._FEW_ROWS + 1, False),
        ("gpu", False, 1, True),
    ],
)
def test_weights_are_rounded_to_bfloat16_where_that_makes_the_product_faster(
    backend, has_instructions, rows, rounds, monkeypatch
):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(linear, "cpu_multiplies_bfloat16", lambda: has_instructions)

    def value_and_gradients(x, kernel):
        y, back = jax.vjp(ops.dense, x, kernel)
        return y, back(y)

    arrays = jnp.zeros((rows, 8), jnp.bfloat16), jnp.zeros((8, 6))
    assert ("tensor<8x6xbf16>" in jax.jit(value_and_gradients).lower(*arrays).as_text()) == rounds


@both_backends
@both_precisions
def test_bias_gradient_is_the_sum_over_images_and_positions(dtype, backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)

    def expected(x, bias):
        return x + bias, lambda g: (g, g.sum((0, 1, 2)))

    check(ops.add_bias, expected, (normal(3, 5, 5, 7), normal(7, seed=1)), dtype)


@both_backends
def test_bias_gradient_of_bfloat16_is_summed_in_float32(backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    maps, bias = jnp.ones((1, 17, 241, 3), jnp.bfloat16), jnp.zeros(3)
    _, back = jax.vjp(ops.add_bias, maps, bias)
    np.testing.assert_array_equal(back(maps)[1], 17 * 241)  # which bfloat16 does not have


@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid"])
@both_precisions
def test_activations_and_their_slopes(name, dtype):
    def expected(x):
        y, back = reference.activation(x, name)
        return y, lambda g: (back(g),)

    check(ops.ACTIVATIONS[name], expected, (normal(100, scale=3),), dtype)


def test_relu_passes_no_gradient_at_zero():
    assert jax.grad(ops.ACTIVATIONS["relu"])(0.0) == 0.0


# --- local response normalisation ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "alpha", "expected"),
    [
        (2, 1e-4, [12.5, 14.865089, 14.461559, 13.465396, 12.486180, 15.766808, 20.332207]),
        (2, 2e-5, [30.836784, 42.044821, 43.819129, 42.294851, 40.010272, 50.376104, 64.556445]),
        (1, 2e-5, [36.741959, 46.473616, 46.530243, 43.953634, 41.077261, 51.811395, 66.650308]),
    ],
    ids=["paper", "original", "caffe"],
)
def test_local_response_norm_equals_figures_of_paper_and_codes(k, alpha, expected):
    x = jnp.arange(100.0, 800.0, 100.0)[None]
    np.testing.assert_allclose(
        ops.local_response_norm(x, 5, k, alpha, 0.75)[0], expected, rtol=2e-7, atol=5e-7
    )


def lrn_equals_reference(channels, towers, size, k, alpha, beta, dtype="float64"):
    def expected(x):
        y, back = reference.local_response_norm(x, k, size, alpha, beta, towers)
        return y, lambda g: (back(g),)

    def norm(x):
        return ops.local_response_norm(x, size, k, alpha, beta, towers)

    check(norm, expected, (normal(2, 3, 3, channels * towers, scale=100),), dtype)


@both_backends
@both_precisions
@pytest.mark.parametrize("towers", [1, 2])
@pytest.mark.parametrize("beta", [0.75, 0.5])
def test_local_response_norm_equals_windows_one_by_one(towers, beta, dtype, backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    lrn_equals_reference(48, towers, 5, 2.0, 1e-4, beta, dtype)


@FEW
@given(
    channels=st.integers(1, 9),
    towers=st.integers(1, 3),
    size=st.integers(1, 12),
    k=st.sampled_from([1.0, 2.0]),
    backend=st.sampled_from(["cpu", "gpu"]),
)
def test_local_response_norm_clips_any_window(channels, towers, size, k, backend):
    """Odd, even, and larger than the tower."""
    with mock.patch.object(jax, "default_backend", lambda: backend):
        lrn_equals_reference(channels, towers, size, k, 1e-4, 0.75)


def test_local_response_norm_may_multiply():
    """A negative exponent whose quarter is whole is no power of 0."""
    lrn_equals_reference(8, 1, 5, 2.0, 1e-4, -0.5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"towers": 2}, "5 channels do not divide by towers=2"),
        ({"k": 0}, "k=0, alpha=0.0001; give k above 0"),
        ({"alpha": -1.0}, "k=2.0, alpha=-1.0; give k above 0 and alpha of at least 0"),
        ({"beta": float("nan")}, "beta=nan; give a number"),
        ({"beta": 10**400}, "beta=10*; give a number"),
        ({"beta": "a"}, "beta='a'; give a number"),
    ],
)
def test_what_makes_no_norm_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        ops.local_response_norm(jnp.ones(5), **fields)


@pytest.mark.parametrize("name", ["k", "alpha", "beta"])
def test_the_constants_of_the_norm_are_not_traced(name):
    norm = jax.jit(lambda value: ops.local_response_norm(jnp.ones(5), **{name: value}))
    with pytest.raises(ValueError, match=f"{name} is an array of JAX; give a Python number"):
        norm(1.0)


def test_local_response_norm_of_bfloat16_is_computed_in_float32():
    x = jnp.asarray(normal(2, 3, 3, 16, scale=100), jnp.bfloat16)
    exact = ops.local_response_norm(x.astype(jnp.float32))
    found = ops.local_response_norm(x)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, exact.astype(jnp.bfloat16))


@both_precisions
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 7), (6, 9)])
def test_within_map_norm_equals_neighbourhoods_one_by_one(height, width, dtype):
    def expected(x):
        y, back = reference.within_map_norm(x)
        return y, lambda g: (back(g),)

    check(ops.within_map_norm, expected, (normal(2, height, width, 3, scale=100),), dtype)


# --- pooling ------------------------------------------------------------------------------------


def pool_equals_reference(x, window, stride, dtype="float64"):
    def expected(x):
        y, back = reference.max_pool(x, window, stride)
        return y, lambda g: (back(g),)

    check(lambda x: ops.max_pool(x, window, stride), expected, (x,), dtype)


@both_precisions
@pytest.mark.parametrize(("window", "stride"), [(3, 2), (2, 2)])
@pytest.mark.parametrize("side", [14, 13])
def test_max_pool_without_ties(side, window, stride, dtype):
    pool_equals_reference(normal(1, side, side, 2), window, stride, dtype)


@both_precisions
@pytest.mark.parametrize(("window", "stride"), [(3, 2), (2, 2)])
def test_max_pool_with_ties_sends_the_gradient_to_the_first(window, stride, dtype):
    """ReLU leaves windows of zeros; flat backgrounds leave windows of one value."""
    ties = np.random.default_rng(0).integers(0, 3, (2, 13, 13, 4)).astype(float)
    pool_equals_reference(ties, window, stride, dtype)
    pool_equals_reference(np.zeros((1, 7, 7, 1)), window, stride, dtype)


def test_max_pool_of_bfloat16_gives_its_maxima_and_rounds_a_gradient_once_on_cpu():
    x = jnp.zeros((1, 7, 7, 1), jnp.bfloat16).at[:, 3, 3].set(3)  # the maximum of nine windows
    y, back = jax.vjp(lambda x: ops.max_pool(x, 3, 1), x)
    (gradient,) = back(jnp.full_like(y, 1 + 2**-7))
    assert (y.dtype, gradient.dtype) == (jnp.bfloat16, jnp.bfloat16)
    np.testing.assert_array_equal(y, reference.max_pool(np.asarray(x, np.float64), 3, 1)[0])
    assert gradient[0, 3, 3, 0] == jnp.bfloat16(9 * (1 + 2**-7))  # 9.125 if sums were rounded


def test_a_window_larger_than_the_map_is_named():
    x = jnp.ones((1, 4, 2, 1))
    with pytest.raises(ValueError, match="window=3 is larger than the map of 2 pixels"):
        ops.max_pool(x)
    assert ops.max_pool(x, ceil=True).shape == (1, 2, 1, 1)


@FEW
@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    window=st.integers(1, 4),
    stride=st.integers(1, 4),
    values=st.sampled_from([2, 1000]),
)
def test_max_pool_of_any_size(height, width, window, stride, values):
    """With many ties (2 values) and few; strides below, at and above the window."""
    height, width = max(height, window), max(width, window)
    x = np.random.default_rng(height).integers(0, values, (2, height, width, 2)).astype(float)
    pool_equals_reference(x, window, stride)


# --- dropout ------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["paper", "inverted"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("rate", [0.5, 0.2])
def test_dropout_equals_reference(style, training, rate):
    mask = np.random.default_rng(0).integers(0, 2, (4, 10)).astype(bool) if training else None

    def expected(x):
        y, back = reference.dropout(x, 1 - rate, style, mask)
        return y, lambda g: (back(g),)

    check(lambda x: ops.dropout(x, mask, rate, style), expected, (normal(4, 10),))


draw_mask = quick_jit(ops.dropout_mask, static_argnums=(2, 3))


@pytest.mark.parametrize(
    ("rate", "style", "message"),
    [
        (0.5, "Paper", "style='Paper'; did you mean 'paper'"),
        (1.0, "inverted", r"rate=1.0; it is a share of units, in \[0, 1\)"),
        (-0.1, "paper", "rate=-0.1"),
        (float("nan"), "paper", "rate=nan"),
        ("half", "paper", "rate='half'; it is a share"),
    ],
)
def test_what_is_no_dropout_is_named(rate, style, message):
    with pytest.raises(ValueError, match=message):
        ops.dropout(jnp.ones((1, 2)), None, rate, style)
    with pytest.raises(ValueError, match=message):
        Dropout(rate, style)
    if rate != 0.5:
        with pytest.raises(ValueError, match=message):
            ops.dropout_mask(keys(1), jnp.arange(1), 2, rate)


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


@pytest.mark.parametrize("rate", [0.5, 0.2])
def test_dropout_keeps_each_unit_with_its_probability(rate):
    mask = np.asarray(draw_mask(keys(64), jnp.arange(2), 512, rate))
    assert mask.shape == (64, 1024)
    assert mask.dtype == bool
    keep, six_sigma = 1 - rate, 6 * np.sqrt(rate * (1 - rate))
    assert abs(mask.mean() - keep) < six_sigma / np.sqrt(mask.size)
    assert np.abs(mask.mean(0) - keep).max() < six_sigma / np.sqrt(64)  # every unit
    assert np.abs(mask.mean(1) - keep).max() < six_sigma / np.sqrt(1024)  # every image


def test_dropout_draws_each_tower_and_image_independently():
    mask = np.asarray(draw_mask(keys(32), jnp.arange(2), 512, 0.5)) * 2.0 - 1
    towers = (mask[:, :512] * mask[:, 512:]).mean()
    images = (mask[:-1] * mask[1:]).mean()
    neighbours = (mask[:, :-1] * mask[:, 1:]).mean()
    assert np.abs([towers, images, neighbours]).max() < 6 / np.sqrt(32 * 512)


def test_dropout_mask_does_not_depend_on_how_batch_and_towers_are_split():
    whole = np.asarray(draw_mask(keys(6), jnp.arange(2), 8, 0.5))
    rows = [draw_mask(k, jnp.arange(2), 8, 0.5) for k in (keys(6)[:3], keys(6)[3:])]
    np.testing.assert_array_equal(whole, np.concatenate(rows))
    towers = [draw_mask(keys(6), jnp.array([t]), 8, 0.5) for t in (0, 1)]
    np.testing.assert_array_equal(whole, np.concatenate(towers, axis=1))


# --- what does not fit ----------------------------------------------------------------------------

MAPS = jnp.ones((1, 4, 4, 2))


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (lambda: ops.convolution(MAPS, jnp.ones((3, 3, 1, 3)), groups=2), "3 outputs do not div"),
        (lambda: ops.convolution(MAPS, jnp.ones((3, 3, 3, 4))), r"2 channels and .* for 1 x 3"),
        (
            lambda: ops.convolution(MAPS, jnp.ones((5, 3, 2, 4))),
            "5 x 3 is larger than the map of 4",
        ),
        (lambda: ops.convolution(MAPS, jnp.ones((3, 3, 2, 4)), stride=0), "stride=0; give a whole"),
        (lambda: ops.convolution(MAPS[0], jnp.ones((3, 3, 2, 4))), r"\[4, 4, 2\]; give it 4 axes"),
        (lambda: ops.local_convolution(MAPS, jnp.ones((2, 2, 3, 3, 3, 4))), "the kernel is for 1"),
        (lambda: ops.dense(MAPS[0], jnp.ones((2, 3))), "give it 2 axes"),
        (lambda: ops.dense(MAPS[0, 0], jnp.ones(2)), r"kernel has the shape \[2\]; give it 2 axes"),
        (lambda: ops.convolution(MAPS, jnp.ones((3, 2, 4))), "kernel has the .*; give it 4 axes"),
        (lambda: ops.local_convolution(MAPS, jnp.ones((3, 3, 2, 4))), "kernel .*; give it 6 axes"),
        *[
            (lambda pad=pad: ops.convolution(MAPS, jnp.ones((3, 3, 2, 4)), padding=pad), "padding=")
            for pad in ("SAME", 1, (1, 1), ((1, 1), (1,)), ((0.5, 1), (1, 1)))
        ],
        (
            lambda: ops.local_convolution(MAPS, jnp.ones((4, 4, 3, 3, 2, 4)), padding="SAME"),
            "padding='SAME'; give .low, high. on H and on W",
        ),
        (lambda: ops.dense(MAPS[0, 0], jnp.ones((2, 3)), groups=0), "groups=0; give a whole"),
        (lambda: ops.add_bias(MAPS, jnp.ones(1)), r"bias has the shape \[1\] for 2 channels"),
        (lambda: ops.max_pool(MAPS, window=0), "window=0; give a whole number from 1"),
        (lambda: ops.max_pool(MAPS, stride=0), "stride=0; give a whole"),
        (lambda: ops.average_pool(MAPS, stride=1.5), "stride=1.5; give a whole"),
        (lambda: ops.local_response_norm(MAPS, size=0), "size=0; give a whole"),
        (lambda: ops.local_response_norm(MAPS, towers=0), "towers=0; give a whole"),
        (lambda: ops.within_map_norm(MAPS, size=-1), "size=-1; give a whole"),
        (lambda: ops.within_map_norm(MAPS, alpha=-1.0), "alpha=-1.0; give k above 0"),
    ],
)
def test_what_does_not_fit_an_operation_is_named(operation, message):
    with pytest.raises(ValueError, match=message):
        operation()


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: ops.convolution(x, jnp.ones((3, 3, 2, 4))),
        lambda x: ops.local_convolution(x, jnp.ones((2, 2, 3, 3, 2, 4))),
        lambda x: ops.dense(x[0, 0], jnp.ones((2, 3))),
        lambda x: ops.add_bias(x, jnp.ones(2)),
        lambda x: ops.max_pool(x, ceil=True),
        ops.average_pool,
        ops.local_response_norm,
        ops.within_map_norm,
        lambda x: ops.dropout(x[0, 0], None, 0.5),
    ],
)
def test_pixels_that_nothing_made_floats_are_refused(operation):
    operation(MAPS)
    with pytest.raises(ValueError, match=r"x is uint8; give floats, such as x\.astype"):
        operation(MAPS.astype(jnp.uint8))


def test_dropout_keeps_the_type_of_its_input():
    x = jnp.ones((1, 4), jnp.bfloat16)
    for style in ("paper", "inverted"):
        for mask in (None, jnp.ones((1, 4), bool)):
            assert ops.dropout(x, mask, np.float32(0.5), style).dtype == jnp.bfloat16
