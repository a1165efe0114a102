"""The network against the independent NumPy reference and the published counts (section 3.5)."""

import math
import re
from dataclasses import fields as fields_of
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import export

from alexnet_jax import AlexNet, alexnet, network
from alexnet_jax.models.presets import PRESETS
from tests.reference import alexnet_numpy as reference
from tests.reference.cases import NETS, SMALL, problem, quick_jit, relative
from tests.tiers import slow

pytestmark = pytest.mark.usefixtures("quick_compilation")


TOLERANCE = {"float32": 1e-5, "float64": 1e-10}

# How the package is asked for the networks of `NETS`: a preset and what is overridden.
ASKED = {name: (name, {}) for name in reference.PRESETS} | {
    "tanh": ("paper", {"activation": "tanh"}),
    "sigmoid": ("paper", {"activation": "sigmoid"}),
    "no_lrn": ("original", {"lrn": False}),
    "no_exchange": ("paper", {"exchange": ("fc8",)}),
    "exchange_everywhere": (
        "paper",
        {"exchange": ("conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")},
    ),
    "without_conv3": ("paper", {"remove": ("conv3",)}),
    "without_conv4": ("paper", {"remove": ("conv4",)}),
    "without_conv5": ("paper", {"remove": ("conv5",)}),
    "norm_after_pool": ("caffe", {"conv1_order": ("activation", "pool", "lrn")}),
    "plain_pool": ("paper", {"pool_window": 2, "pool_stride": 2}),
    "even_window": ("paper", {"lrn_size": 4}),
    "merged_map": ("paper", {"image_size": 96, "conv_features": (4, 4, 4, 4, 4)}),
    "split_map": (
        "paper",
        {"image_size": 96, "conv_features": (4, 4, 4, 4, 4), "exchange": ("fc8",)},
    ),
}


def small_model(name: str):
    """The package's network for `NETS[name]`."""
    preset, changes = ASKED[name]
    fields = {
        "image_size": NETS[name].image_size,
        "conv_features": SMALL["conv"],
        "fc_features": SMALL["fc"],
        "num_classes": SMALL["num_classes"],
        "conv6_features": NETS[name].conv6 or 0,
    }
    return alexnet(preset, **(fields | changes))


@partial(quick_jit, static_argnums=0)
def logits_of(model, params, images):
    return model.apply({"params": params}, images)


def errors(model, net, dtype, train=False, batch=2):
    """Relative errors against the reference: logits, loss, the gradient of every parameter."""
    params, images, labels, _ = problem(net, batch=batch)

    def evaluate(params, images, one_hot):
        def loss(params):
            logits, sown = model.apply(
                {"params": params},
                images,
                train=train,
                rngs={"dropout": jax.random.key(3)} if train else None,
                mutable=["intermediates"],
            )
            return -(jax.nn.log_softmax(logits) * one_hot).sum() / batch, (logits, sown)

        return jax.value_and_grad(loss, has_aux=True)(params)

    with jax.enable_x64(dtype == "float64"):
        inputs = (params, images, np.eye(net.num_classes)[labels])
        inputs = jax.tree.map(lambda x: jnp.asarray(x, dtype), inputs)
        found = quick_jit(evaluate)(*inputs)
        (loss, (logits, sown)), gradients = jax.tree.map(np.asarray, found)
    assert logits.dtype == dtype
    masks = None
    if train:  # a unit that its activation left at zero has no part in the loss, dropped or kept
        masks = {name: sown["intermediates"][f"{name}_output"][0] != 0 for name in ("fc6", "fc7")}
    expected_loss, expected_logits, expected = reference.loss_and_gradients(
        net, params, images, labels, masks
    )
    assert gradients.keys() == expected.keys()
    return {
        "logits": relative(logits, expected_logits),
        "loss": abs(loss - expected_loss) / expected_loss,
    } | {
        f"{layer}/{leaf}": relative(gradients[layer][leaf], gradient)
        for layer, leaves in expected.items()
        for leaf, gradient in leaves.items()
    }


def assert_small(errors, dtype):
    for what, error in errors.items():
        assert error <= TOLERANCE[dtype], (what, error)


@pytest.mark.parametrize("name", ASKED)
def test_logits_and_gradients_equal_reference(name):
    assert_small(errors(small_model(name), NETS[name], "float64"), "float64")


@pytest.mark.parametrize("name", ["original", "valid224", "one_gpu", "six_conv"])
def test_presets_equal_reference_in_float32(name):
    assert_small(errors(small_model(name), NETS[name], "float32"), "float32")


@pytest.mark.parametrize("name", ["paper", "caffe"])
def test_training_with_dropout_equals_reference_in_float32(name):
    """The two styles of dropout, with the masks that were drawn."""
    assert_small(errors(small_model(name), NETS[name], "float32", train=True), "float32")


@pytest.mark.slow
@pytest.mark.parametrize("name", reference.PRESETS)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_full_width_presets_equal_reference(name, dtype):
    net = reference.PRESETS[name]
    assert_small(errors(alexnet(name), net, dtype, batch=1), dtype)


# --- two towers ---------------------------------------------------------------------------------


def test_exchanging_nets_equal_two_towers_computed_separately():
    """Each tower by itself with its own kernels; conv3 and the full connections read both."""
    net = NETS["paper"]
    params, images, _, _ = problem(net)
    k, n, alpha, beta = net.lrn

    def halves(array):
        return np.split(array, 2, axis=-1)

    def each(name, inputs, *window):
        """The layer's two towers, each on its own input; ReLU but for the last layer."""
        layer = params[name]
        operation = reference.convolution if window else reference.dense
        kernels = zip(inputs, halves(layer["kernel"]), halves(layer["bias"]), strict=True)
        sums = [operation(x, kernel, bias, *window)[0] for x, kernel, bias in kernels]
        return sums if name == "fc8" else [np.maximum(x, 0) for x in sums]

    def norm(towers):
        return [reference.local_response_norm(x, k, n, alpha, beta)[0] for x in towers]

    def pool(towers):
        return [reference.max_pool(x, 3, 2)[0] for x in towers]

    def both(towers):
        return [np.concatenate(towers, axis=-1)] * 2

    def flat(towers):
        return [x.reshape(len(x), -1) for x in towers]

    towers = pool(norm(each("conv1", [images, images], 4, (0, 3))))
    towers = pool(norm(each("conv2", towers, 1, (2, 2))))
    towers = each("conv3", both(towers), 1, (1, 1))
    towers = each("conv4", towers, 1, (1, 1))
    towers = pool(each("conv5", towers, 1, (1, 1)))
    towers = [0.5 * x for x in each("fc6", flat(both(towers)))]
    towers = [0.5 * x for x in each("fc7", both(towers))]
    expected = np.concatenate(each("fc8", both(towers)), axis=-1)

    found = logits_of(small_model("paper"), float32(params), jnp.float32(images))
    assert relative(np.asarray(found), expected) <= 1e-5


def test_towers_that_never_exchange_equal_two_half_nets():
    """Logits and gradients; the half nets' logits add up."""
    whole = small_model("no_exchange")
    half = alexnet(
        towers=1,
        image_size=whole.image_size,
        num_classes=whole.num_classes,
        conv_features=tuple(width // 2 for width in whole.conv_features),
        fc_features=tuple(width // 2 for width in whole.fc_features),
    )
    params, images, _, _ = problem(NETS["no_exchange"])
    params, images = float32(params), jnp.float32(images)

    def cut(tree, tower):
        """A tower's share: its outputs; of fc8 its inputs, and the bias counted once."""
        share = {
            name: {leaf: jnp.split(x, 2, axis=-1)[tower] for leaf, x in layer.items()}
            for name, layer in tree.items()
        }
        fc8 = tree["fc8"]
        bias = fc8["bias"] * (tower == 0)
        return share | {"fc8": {"kernel": jnp.split(fc8["kernel"], 2)[tower], "bias": bias}}

    def separately(towers):
        return sum(half.apply({"params": params}, images) for params in towers)

    def together(params):
        return whole.apply({"params": params}, images)

    @quick_jit
    def evaluate(params):
        logits, vjp = jax.vjp(together, params)
        expected, expected_vjp = jax.vjp(separately, [cut(params, 0), cut(params, 1)])
        g = jnp.cos(jnp.arange(logits.size)).reshape(logits.shape)
        return logits, expected, vjp(g)[0], expected_vjp(g)[0]

    logits, expected, gradient, expected_gradients = evaluate(params)
    assert relative(logits, expected) <= 1e-5
    for tower, theirs in enumerate(expected_gradients):
        ours = cut(gradient, tower)
        ours["fc8"]["bias"] = gradient["fc8"]["bias"]
        errors = jax.tree.map(relative, ours, theirs)
        assert max(jax.tree.leaves(errors)) <= 1e-5, errors


def float32(tree):
    return jax.tree.map(jnp.float32, tree)


# --- sizes --------------------------------------------------------------------------------------


def shapes(model):
    """Parameters and layer outputs for one image, as shapes: nothing is computed."""
    images = jax.ShapeDtypeStruct((1, model.image_size, model.image_size, 3), jnp.float32)
    run = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, mutable=["params", "intermediates"]),
        images,
    )
    logits, variables = run
    outputs = {
        name.removesuffix("_output"): leaf[0].shape[1:]
        for name, leaf in variables["intermediates"].items()
        if name.endswith("_output")
    }
    assert logits.shape == (1, model.num_classes)
    return variables["params"], outputs


def parameter_count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


MAPS = {  # after the pools, conv1 to conv5: section 1.1 of the sizes the authors' code gives
    "ceil": ((27, 27, 96), (13, 13, 256), (13, 13, 384), (13, 13, 384), (6, 6, 256)),
    "valid": ((26, 26, 96), (12, 12, 256), (12, 12, 384), (12, 12, 384), (5, 5, 256)),
    "torchvision": ((27, 27, 64), (13, 13, 192), (13, 13, 384), (13, 13, 256), (6, 6, 256)),
    "half": ((27, 27, 48), (13, 13, 128), (13, 13, 192), (13, 13, 192), (6, 6, 256)),
    "six": ((27, 27, 96), (13, 13, 256), (13, 13, 384), (13, 13, 384), (6, 6, 256), (6, 6, 256)),
}


@pytest.mark.parametrize(
    ("preset", "fields", "count", "maps"),
    [
        ("paper", {}, 60_965_224, "ceil"),
        ("original", {}, 60_965_224, "ceil"),
        ("caffe", {}, 60_965_224, "ceil"),
        ("caffenet", {}, 60_965_224, "ceil"),
        ("valid224", {}, 49_430_888, "valid"),
        ("torchvision", {}, 61_100_840, "torchvision"),
        ("one_gpu", {}, 59_798_312, "half"),
        ("six_conv", {}, 61_555_304, "six"),
        ("paper", {"num_classes": 10}, 56_909_194, "ceil"),
        ("paper", {"towers": 1}, 62_378_344, "ceil"),
        ("paper", {"pool_window": 2}, 60_965_224, "ceil"),
    ],
)
def test_sizes_are_the_published_ones(preset, fields, count, maps):
    model = alexnet(preset, **fields)
    params, outputs = shapes(model)
    assert parameter_count(params) == count
    full = {"fc6": (4096,), "fc7": (4096,), "fc8": (model.num_classes,)}
    assert outputs == {f"conv{i}": shape for i, shape in enumerate(MAPS[maps], 1)} | full


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({"remove": ("conv3",)}, 60_301_288),
        ({"remove": ("conv4",)}, 60_301_288),
        ({"remove": ("conv5",)}, 60_301_288),
        (
            {
                "exchange": ("fc8",),
                "conv_features": (96, 320, 384, 384, 256),
                "fc_features": (8192, 8192),
            },
            81_591_720,
        ),
    ],
    ids=["no conv3", "no conv4", "no conv5", "no communication"],
)
def test_parameter_counts_of_the_papers_other_nets(fields, count):
    assert parameter_count(shapes(alexnet(**fields))[0]) == count


@pytest.mark.parametrize("preset", reference.PRESETS)
def test_parameter_shapes_equal_reference(preset):
    params, _ = shapes(alexnet(preset))
    for name, size in reference.sizes(reference.PRESETS[preset]).items():
        assert params[name]["kernel"].shape == size.kernel
        assert params[name]["bias"].shape == size.kernel[-1:]


@pytest.mark.parametrize(
    "remove", [("conv3", "conv4"), ("conv4", "conv3"), ("conv3", "conv5"), ("conv4", "conv5")]
)
def test_two_removed_convolutions_leave_the_same_wiring_in_any_order(remove):
    params, _ = shapes(alexnet(remove=remove))
    sizes = reference.sizes(replace(reference.PAPER, remove=remove))
    assert {name: layer["kernel"].shape for name, layer in params.items()} == {
        name: size.kernel for name, size in sizes.items()
    }


@settings(max_examples=5, deadline=None, derandomize=True)
@given(size=st.integers(64, 300), geometry=st.sampled_from(["ceil", "floor"]))
def test_geometry_holds_for_any_image(size, geometry):
    size += 3 * (geometry == "floor")  # without padding the last pool needs a larger image
    net = replace(NETS["paper"], image_size=size, conv1=geometry)
    name = {"ceil": "ceil224", "floor": "valid224"}[geometry]
    fields = {"geometry": name, "image_size": size, "conv_features": SMALL["conv"]}
    model = alexnet(**fields, fc_features=SMALL["fc"], num_classes=6)
    params, outputs = shapes(model)
    sizes = reference.sizes(net)
    assert {name: layer["kernel"].shape for name, layer in params.items()} == {
        name: size.kernel for name, size in sizes.items()
    }
    windows = (size - 11) / 4
    side = 1 + int(np.ceil(windows) if geometry == "ceil" else np.floor(windows))
    assert outputs["conv1"][0] == (side - 3) // 2 + 1


# --- initialisation -----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["paper", "original", "caffe", "caffenet"])
def initial(request):
    """A preset's name and its initial parameters; layers of like sizes, and the sixth too."""
    model = alexnet(
        request.param,
        image_size=67,
        conv_features=(128, 128, 128, 128, 128),
        conv6_features=128,
        fc_features=(128, 128),
        num_classes=128,
    )
    images = jnp.zeros((1, 67, 67, 3))
    return request.param, quick_jit(model.init)(jax.random.key(1), images)["params"]


def test_initial_weights_are_normal_with_the_rules_deviations(initial):
    preset, params = initial
    assert len(params) == 9
    for name, layer in params.items():
        std = reference.INITIAL_STD[preset].get(name, 0.01)
        weights = np.asarray(layer["kernel"], np.float64).ravel() / std
        six_sigma = 6 / np.sqrt(weights.size)
        assert abs(weights.mean()) < six_sigma, name
        assert abs((weights**2).mean() - 1) < six_sigma * np.sqrt(2), name
        assert abs((weights**4).mean() - 3) < six_sigma * np.sqrt(96), name  # normal, not uniform
        bias = reference.INITIAL_BIAS[preset].get(name, 0.0)
        np.testing.assert_array_equal(layer["bias"], np.float32(bias), err_msg=name)


def test_towers_and_layers_start_with_different_weights(initial):
    _, params = initial
    kernels = {name: np.asarray(layer["kernel"]) for name, layer in params.items()}
    for name, kernel in kernels.items():
        first, second = np.split(kernel, 2, axis=-1)
        correlation = np.corrcoef(first.ravel(), second.ravel())[0, 1]
        assert abs(correlation) < 6 / np.sqrt(first.size), name
    correlation = np.corrcoef(kernels["conv4"].ravel(), kernels["conv5"].ravel())[0, 1]
    assert abs(correlation) < 6 / np.sqrt(kernels["conv4"].size)


# --- dropout in the net, precision --------------------------------------------------------------


@partial(quick_jit, static_argnums=0)
def training_outputs(model, params, images, how):
    """What each layer gives in training, dropout drawn from `rngs` or from `dropout_keys`."""
    _, sown = model.apply({"params": params}, images, train=True, mutable=["intermediates"], **how)
    return {
        name.removesuffix("_output"): x[0]
        for name, x in sown["intermediates"].items()
        if name.endswith("_output")
    }


@pytest.fixture(scope="module")
def sigmoid_problem():
    """A net whose units are never zero unless dropped."""
    model = alexnet(
        image_size=64,
        activation="sigmoid",
        conv_features=(4, 4, 4, 4, 4),
        fc_features=(512, 512),
        num_classes=4,
    )
    images = jnp.asarray(np.random.default_rng(0).normal(0, 50, (8, 64, 64, 3)), jnp.float32)
    params = quick_jit(model.init)(jax.random.key(1), images)["params"]
    return model, params, images


def test_dropout_falls_on_both_hidden_layers_independently(sigmoid_problem):
    outputs = training_outputs(*sigmoid_problem, {"rngs": {"dropout": jax.random.key(2)}})
    kept = {name: np.asarray(x != 0) for name, x in outputs.items()}
    assert all(mask.all() for name, mask in kept.items() if name not in ("fc6", "fc7"))
    six_sigma = 3 / np.sqrt(8 * 512)
    assert abs(kept["fc6"].mean() - 0.5) < six_sigma
    assert abs(kept["fc7"].mean() - 0.5) < six_sigma
    assert abs((kept["fc6"] == kept["fc7"]).mean() - 0.5) < six_sigma


def test_dropout_of_an_image_depends_on_its_key_alone(sigmoid_problem):
    model, params, images = sigmoid_problem
    keys = jax.random.split(jax.random.key(3), len(images))
    other = jnp.roll(jnp.arange(len(images)), 3)
    straight = training_outputs(model, params, images, {"dropout_keys": keys})["fc7"]
    rolled = training_outputs(model, params, images[other], {"dropout_keys": keys[other]})["fc7"]
    np.testing.assert_allclose(straight[other], rolled, rtol=1e-6)
    assert np.mean((straight == 0) == (rolled == 0)) < 0.6


def test_without_dropout_training_equals_test(sigmoid_problem):
    model, params, images = sigmoid_problem
    model = model.clone(dropout_rate=0.0)
    rngs = {"dropout": jax.random.key(2)}
    trained = training_outputs(model, params, images, {"rngs": rngs})["fc8"]
    np.testing.assert_allclose(trained, logits_of(model, params, images), rtol=1e-6)


def test_bfloat16_gives_float32_logits_near_the_exact_ones():
    params, images, _, _ = problem(NETS["paper"])
    params, images = float32(params), jnp.float32(images)
    exact = logits_of(small_model("paper"), params, images)
    rounded = logits_of(small_model("paper").clone(precision="bfloat16"), params, images)
    assert rounded.dtype == jnp.float32
    assert 0 < relative(rounded, exact) < 0.05


# --- elsewhere ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_flax_nnx_takes_the_net_training_included():
    """The bridge gives what Linen's `apply` gives."""
    model = small_model("paper")
    images = jnp.asarray(np.random.default_rng(0).normal(0, 50, (2, *[model.image_size] * 2, 3)))
    net = nnx.bridge.ToNNX(model, rngs=nnx.Rngs(0, dropout=1)).lazy_init(images)
    params = nnx.to_pure_dict(nnx.state(net, nnx.Param))
    assert set(params) == {layer.name for layer in model.layers}
    np.testing.assert_allclose(net(images), logits_of(model, params, images), rtol=1e-5, atol=1e-7)
    keys = jax.random.split(jax.random.key(3), 2)

    @nnx.jit
    def loss_and_gradient(net):
        def loss(net):
            logits = net(images, train=True, dropout_keys=keys)
            return (logits**2).sum(), logits

        return nnx.value_and_grad(loss, has_aux=True)(net)

    (_, logits), gradient = loss_and_gradient(net)
    expected = training_outputs(model, params, images, {"dropout_keys": keys})["fc8"]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-7)
    assert float(jnp.abs(nnx.to_pure_dict(gradient)["conv1"]["kernel"]).max()) > 0
    first, second = (np.asarray(net(images, train=True)) for _ in range(2))  # from `rngs`
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    "setting",
    [
        ("jax_enable_x64", True),
        *slow(
            ("jax_numpy_dtype_promotion", "strict"),
            ("jax_numpy_rank_promotion", "raise"),
            ("jax_default_prng_impl", "rbg"),
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("preset", ["original", *slow("caffe")])
def test_draws_and_logits_are_the_same_under_jax_settings(preset, setting):
    model = small_model(preset)
    shape = (2, model.image_size, model.image_size, 3)
    images = np.random.default_rng(0).normal(0, 50, shape).astype(np.float32)
    key = jax.random.key(0, impl="threefry2x32")

    def run():
        params = quick_jit(model.init)(key, images)["params"]
        keys = jax.random.split(key, 2)
        logits = quick_jit(partial(model.apply, train=True))(
            {"params": params}, images, dropout_keys=keys
        )
        return jax.device_get((params, logits))

    expected = run()
    name, value = setting
    before = getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        found = run()
    finally:
        jax.config.update(name, before)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert found[1].dtype == np.float32


@pytest.mark.parametrize("preset", ["original", *slow("caffenet")])
def test_one_exported_program_takes_any_batch(preset):
    model = small_model(preset)
    params, images, _, _ = problem(NETS[preset])
    params, images = float32(params), jnp.float32(images)
    (batch,) = export.symbolic_shape("b")
    shape = jax.ShapeDtypeStruct((batch, *images.shape[1:]), jnp.float32)
    program = export.export(quick_jit(lambda images: model.apply({"params": params}, images)))(
        shape
    )
    for count in (1, 2):
        found = program.call(images[:count])
        assert relative(found, logits_of(model, params, images[:count])) <= 1e-5


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "fields", "message"),
    [
        ("papre", {}, "did you mean 'paper'"),
        ("paper", {"num_clases": 10}, "did you mean 'num_classes'"),
        ("paper", {"geometry": "ceil"}, "ceil224"),
        ("paper", {"activation": "rleu"}, "relu"),
        ("paper", {"towers": 3}, "towers=3"),
        ("paper", {"conv_features": (95, 256, 384, 384, 256)}, "conv_features has 95"),
        ("paper", {"image_size": 40}, "image_size=40"),
        ("paper", {"remove": ("conv1",)}, "remove="),
        ("paper", {"exchange": ("conv3", "fc9", "fc8")}, "exchange="),
        ("paper", {"dropout_rate": 1.0}, "dropout_rate=1.0"),
    ],
)
def test_a_field_that_makes_no_network_is_named(preset, fields, message):
    with pytest.raises(ValueError, match=message):
        alexnet(preset, **fields)


def test_flax_prints_a_table_of_the_net():
    model = small_model("paper")
    images = jnp.zeros((1, model.image_size, model.image_size, 3))
    assert "conv1" in model.tabulate(jax.random.key(0), images)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_no_images_have_no_logits(backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    for model in (small_model("paper"), network("cifar10_conv_local_11pct", image_size=8)):
        images = jnp.zeros((0, model.image_size, model.image_size, 3))
        logits, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
        assert logits.shape == (0, model.num_classes)


def test_images_of_another_size_are_refused():
    model = small_model("paper")
    with pytest.raises(ValueError, match="image_size"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.int32])
def test_images_that_no_augmentation_prepared_are_refused(dtype):
    model = small_model("paper")
    images = jnp.zeros((1, model.image_size, model.image_size, 3), dtype)
    with pytest.raises(ValueError, match="where float32 without the mean is wanted"):
        jax.eval_shape(model.init, jax.random.key(0), images)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"exchange": "fc8"}, "exchange='fc8'; it is of type tuple, such as"),
        ({"conv1_order": "pool"}, "conv1_order='pool'; it is of type tuple"),
        ({"num_classes": "10"}, "num_classes='10'; it is of type int, such as 1000"),
        ({"lrn": 1}, "lrn=1; it is of type bool"),
        ({"lrn_k": True}, "lrn_k=True; it is of type float"),
        ({"pool_stride": 0}, "pool_stride=0; use 1 to 1,000,000"),
        ({"image_size": 63}, "image_size=63 leaves no pixel after the poolings (pool_window=3, "),
        ({"image_size": 63}, "pool_stride=2); use 64 or more"),
        ({"geometry": "valid224", "image_size": 64}, "use 67 or more"),
        ({"pool_stride": 11}, "pool_stride=11); use 1072 or more, or smaller poolings"),
        ({"fc_features": ("a", "b")}, "fc_features=('a', 'b'); it is of type tuple, such as (4096"),
        ({"conv_features": (96, 256)}, "conv_features=(96, 256); it has 5 numbers, one per layer"),
        ({"conv_features": (96, 256, 384, 384, 0)}, "conv_features has 0; for 2 tower(s) use mult"),
        ({"conv6_features": -2}, "conv6_features has -2; for 2 tower(s) use multiples of 2 from 0"),
        ({"fc_features": (10**30, 8)}, "fc_features has 1000000000000000000000000000000; for 2"),
        ({"num_classes": 0}, "num_classes=0; use 1 to 1,000,000"),
        ({"num_classes": True}, "num_classes=True; it is of type int, such as 1000"),
        ({"image_size": None}, "image_size=None; it is of type int"),
        ({"image_size": -224}, "image_size=-224 leaves no pixel"),
        ({"lrn_alpha": math.nan}, "lrn_alpha=nan; use a number from 0 to 1e6"),
        ({"lrn_beta": math.inf}, "lrn_beta=inf; use a number from 0 to 1e6"),
        ({"lrn_size": 0}, "lrn_size=0; use 1 to 1,000,000"),
        ({"lrn_k": -1}, "lrn_k=-1; use a number above 0, at most 1e6"),
        ({"hidden_bias": -math.inf}, "hidden_bias=-inf; use a number from -1e6 to 1e6"),
        ({"hidden_bias": 10**400}, "use a number from -1e6 to 1e6"),
        ({"dropout_rate": math.nan}, "dropout_rate=nan; it is a share of units, in [0, 1)"),
        ({"remove": ("conv1",)}, "remove=('conv1',); 'conv1' is none of its names, "),
        ({"remove": ("conv3", "conv3")}, "remove=('conv3', 'conv3') names 'conv3' twice"),
        ({"conv1_order": ("pool", "pool")}, "conv1_order=('pool', 'pool') names 'pool' twice"),
        ({"conv2_order": ([],)}, "conv2_order=([],); it is of type tuple"),
        ({"exchange": ("conv3",)}, "exchange=('conv3',); the logits need both towers, add 'fc8'"),
        ({"exchange": ("conv6", "fc8")}, "'conv6' is none of its names, did you mean 'conv5'?"),
        ({"exchange": ("x", "fc8")}, "use one of conv2, conv3, conv4, conv5, fc6, fc7, fc8"),
        ({"geometry": []}, "geometry=(); it is of type str"),
        ({"tower_axis": "model"}, "AlexNet has no field 'tower_axis'"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(fields, message):
    with pytest.raises(ValueError) as error:
        alexnet(**fields)
    assert message in str(error.value)


ODD = (
    *(None, True, False, 0, -1, 1, 2, 3, 5, 11, 224, 10**9, 10**400, 1e20, 0.5, -0.5, 5e-324),
    *(math.nan, math.inf, -math.inf, "", "a", "fc8", "relu", "conv\ud800", b"x", 1j, [], {}, set()),
    *((), ("a", "b"), ("pool", "pool"), ("conv1",), ("conv3",), ("conv3", "conv3"), (None,)),
    *(((1,),), ([],), (96, 256), (1.0, 2, 3, 4, 5), (10**30,) * 5, (math.nan,) * 2, (True,) * 5),
    *((2,) * 5, (8, 8), [1, 2], object(), len, np.int64(4), np.float32(3), np.float64("nan")),
    *(np.array([1, 2]), np.bool_(True), np.str_("relu"), range(2)),
)
FIELDS = [field.name for field in fields_of(AlexNet) if field.name not in ("parent", "name")]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    preset=st.sampled_from(sorted(PRESETS)),
    changes=st.dictionaries(st.sampled_from(FIELDS), st.sampled_from(ODD), min_size=1, max_size=3),
)
def test_any_values_make_a_net_or_one_line_that_names_a_field(preset, changes):
    try:
        model = alexnet(preset, **changes)
    except ValueError as error:
        assert "\n" not in str(error)
        assert any(field in str(error) for field in changes)
    else:
        images = jnp.zeros((1, model.image_size, model.image_size, 3))
        jax.eval_shape(lambda: model.init(jax.random.key(0), images))


@pytest.mark.parametrize("smallest", [("ceil224", 64), ("valid224", 67)])
def test_the_smallest_image_leaves_one_pixel(smallest):
    geometry, size = smallest
    shapes = jax.eval_shape(
        alexnet(geometry=geometry, image_size=size).init,
        jax.random.key(0),
        jnp.zeros((1, size, size, 3)),
    )
    assert shapes["params"]["fc6"]["kernel"].shape == (256, 4096)


@pytest.mark.parametrize("remove", [("conv4", "conv5"), ("conv3", "conv4", "conv5")])
def test_removing_several_convolutions_keeps_the_later_shapes(remove):
    model = alexnet(remove=remove)
    images = jnp.zeros((1, 224, 224, 3))
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    assert shapes["fc6"]["kernel"].shape == (9216, 4096)
    names = [[operation.name for operation in layer.operations] for layer in model.layers]
    assert "LRN" in names[1] and names[len(shapes) - 4][-1] == "pool"


def test_float32_products_are_never_tf32():
    model = alexnet(num_classes=10)
    images = jnp.zeros((1, 224, 224, 3))
    params = jax.eval_shape(model.init, jax.random.key(0), images)
    text = jax.jit(model.apply).lower(params, images).as_text()
    products = re.findall(r"stablehlo\.(?:convolution|dot_general).*", text)
    assert len(products) >= 11  # conv2, conv4 and conv5 are two each
    assert all("HIGHEST" in product for product in products), products
