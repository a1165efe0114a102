"""The train and evaluation steps against the written recursion and the NumPy reference (§4, 5)."""

from collections import UserDict
from types import MappingProxyType

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax import (
    Augmentation,
    Hyperparameters,
    create_train_state,
    make_eval_step,
    make_mesh,
    make_predict_step,
    make_train_step,
    make_train_steps,
)
from alexnet_jax.models.alexnet import AlexNet
from alexnet_jax.scores import image_scores
from tests.models.test_alexnet import small_model
from tests.reference import alexnet_numpy as reference
from tests.reference import training_numpy
from tests.reference.cases import NETS, problem, relative
from tests.tiers import slow

NET, STORED, BATCH = NETS["paper"], 72, 4
MIDDLE = (STORED - NET.image_size) // 2
CENTER = slice(MIDDLE, MIDDLE + NET.image_size)
MEAN = np.random.default_rng(5).uniform(100, 150, (STORED, STORED, 3)).astype(np.float32)
EXACT = Augmentation(crop="center", flip=False, color="none", mean=MEAN)


def batch_of(count=BATCH, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (count, STORED, STORED, 3), np.uint8),
        "label": rng.integers(0, NET.num_classes, count).astype(np.int32),
    }


def lively_params():
    """Weights at which every unit matters, as float32."""
    return jax.tree.map(jnp.float32, problem(NET)[0])


def fresh_state(model, seed=0):
    return create_train_state(model, jax.random.key(seed)).replace(params=lively_params())


@pytest.fixture(scope="module")
def model():
    return small_model("paper")


@pytest.fixture
def quick_compile(monkeypatch):
    """For steps that are built for one test: compiling would take nearly all of its time."""
    options = {"xla_backend_optimization_level": 0}
    monkeypatch.setattr("alexnet_jax.compilation.compiler_options", lambda runs: options)


@pytest.fixture(scope="module")
def train_step(model):
    """With dropout and all augmentation; fails where it is traced twice."""
    return make_train_step(model, Augmentation(mean=MEAN), max_traces=1)


@pytest.fixture(scope="module")
def eval_step(model):
    return make_eval_step(model, EXACT)


# --- training -----------------------------------------------------------------------------------


def test_steps_equal_the_written_recursion_over_a_rate_drop(model):
    """Reference gradients and the paper's rule by hand, against the compiled step."""
    step = make_train_step(model.clone(dropout_rate=0.0), EXACT)
    state = fresh_state(model)
    params = jax.tree.map(np.float64, state.params)
    velocity = jax.tree.map(np.zeros_like, params)
    start = jax.tree.map(np.copy, params)
    net = reference.replace(NET, keep=1.0)
    for number, rate in enumerate([0.01, 0.01, 0.001, 0.001]):
        batch = batch_of(seed=number)
        state, metrics = step(state, batch, Hyperparameters(learning_rate=rate))
        images = (batch["image"] - MEAN.astype(float))[:, CENTER, CENTER]
        loss, logits, gradients = reference.loss_and_gradients(net, params, images, batch["label"])
        assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-4)
        for k in (1, 5):
            errors = [
                training_numpy.top_k_error(*one, k)
                for one in zip(logits, batch["label"], strict=True)
            ]
            assert float(metrics[f"top{k}_error"]) == pytest.approx(np.mean(errors))
        for layer, leaves in params.items():
            for leaf in leaves:
                params[layer][leaf], velocity[layer][leaf] = training_numpy.update(
                    params[layer][leaf],
                    velocity[layer][leaf],
                    gradients[layer][leaf],
                    rate=rate,
                    decay=0.0005 * (leaf == "kernel"),
                )
    assert int(state.step) == 4
    for layer, leaves in params.items():
        for leaf, expected in leaves.items():
            moved = expected - start[layer][leaf]
            found = np.asarray(state.params[layer][leaf]) - start[layer][leaf]
            assert relative(found, moved) < 1e-3, (layer, leaf)


@pytest.mark.parametrize("number", [int, float, np.float32, np.float64, np.int64, jnp.float32])
def test_no_way_of_writing_a_number_compiles_again(model, train_step, number):
    hparams = Hyperparameters(
        learning_rate=number(0),
        momentum=number(1),
        weight_decay=number(0),
        color_strength=number(1),
    )
    train_step(fresh_state(model), batch_of(), hparams)
    assert train_step._cache_size() <= 2  # NumPy batches, and those of jax


def test_batches_of_numpy_and_jax_give_the_same(model, train_step):
    hparams = Hyperparameters(learning_rate=0.01)
    numpy_result = train_step(fresh_state(model), batch_of(), hparams)
    jax_result = train_step(fresh_state(model), jax.tree.map(jnp.asarray, batch_of()), hparams)
    chex.assert_trees_all_equal(*map(without_key, (numpy_result, jax_result)))


def without_key(result):
    state, metrics = result
    return state.replace(key=jax.random.key_data(state.key)), metrics


def test_state_is_donated_and_made_of_jax_arrays(model, train_step):
    state = fresh_state(model)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    new, metrics = train_step(state, batch_of(), Hyperparameters(learning_rate=0.01))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves((new, metrics)))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(new))
    assert int(new.step) == 1


def test_a_run_is_a_function_of_its_seed(model, train_step):
    def losses(seed):
        state, result = fresh_state(model, seed), []
        for number in range(3):
            state, metrics = train_step(
                state, batch_of(seed=number), Hyperparameters(learning_rate=1e-4)
            )
            result.append(float(metrics["loss"]))
        return result

    assert losses(0) == losses(0)
    assert losses(0) != losses(1)


def test_every_step_draws_anew(model, train_step):
    """The same batch and weights, another step: other crops and masks, another loss."""
    still = Hyperparameters(learning_rate=0.0)
    state, first = train_step(fresh_state(model), batch_of(), still)
    _, second = train_step(state, batch_of(), still)
    assert float(first["loss"]) != float(second["loss"])


class Counted(AlexNet):
    """Tells how often it is initialised, which a compiled program does once."""

    def init(self, *args, **kwargs):
        Counted.times += 1
        return super().init(*args, **kwargs)


class Unhashable(Counted):
    """As a network with a list among its fields."""


Unhashable.__hash__ = None


@pytest.mark.parametrize(("network", "times"), [(Counted, 1), (Unhashable, 3)])
def test_states_of_many_seeds_are_one_program(network, times):
    Counted.times = 0
    small = {"num_classes": 3, "image_size": 64, "conv_features": (4,) * 5, "fc_features": (4, 4)}
    states = [create_train_state(network(**small), jax.random.key(seed)) for seed in (0, 1, 0)]
    assert Counted.times == times
    chex.assert_trees_all_equal(states[0], states[2])
    kernels = [state.params["conv1"]["kernel"] for state in states]
    assert not np.array_equal(kernels[0], kernels[1])


def test_vmap_over_seeds_and_rates_equals_runs_one_by_one(model, train_step, quick_compile):
    seeds, rates = jnp.arange(2), jnp.array([0.001, 0.01])
    batch = batch_of()

    def one(seed, rate):
        return fresh_state(model, seed), Hyperparameters(learning_rate=rate)

    states, hparams = jax.vmap(one)(seeds, rates)
    step = make_train_step(model, Augmentation(mean=MEAN))
    together, metrics = jax.vmap(step, in_axes=(0, None, 0))(states, batch, hparams)
    start = lively_params()
    for i, (seed, rate) in enumerate(zip(seeds, rates, strict=True)):
        own_state, own_hparams = one(seed, rate)
        alone, own_metrics = train_step(own_state, batch, own_hparams)
        for name, value in own_metrics.items():
            assert float(metrics[name][i]) == pytest.approx(float(value), rel=1e-5)

        def error(stacked, expected, before, run=i):
            return relative(stacked[run] - before, expected - before)

        errors = jax.tree.map(error, together.params, alone.params, start)
        assert max(jax.tree.leaves(errors)) < 1e-3, errors


def test_multipliers_reach_the_update(model, quick_compile):
    step = make_train_step(model, EXACT)
    start = lively_params()
    hparams = Hyperparameters(learning_rate=0.01, rate_multipliers={"conv1": 0, "fc8": {"bias": 0}})
    state, _ = step(fresh_state(model), batch_of(), hparams)
    chex.assert_trees_all_equal(state.params["conv1"], start["conv1"])
    chex.assert_trees_all_equal(state.params["fc8"]["bias"], start["fc8"]["bias"])
    assert not np.array_equal(state.params["fc8"]["kernel"], start["fc8"]["kernel"])


@pytest.mark.parametrize("on_mesh", [False, *slow(True)])
def test_many_updates_in_one_call_are_those_of_single_calls(model, on_mesh, quick_compile):
    mesh = make_mesh(data=2, model=2) if on_mesh else None
    settings = Augmentation(mean=MEAN)
    split = batch_of(12)
    indices = np.array([[3, 1, 0, 7], [4, 11, 2, 5], [3, 3, 9, 8]], np.int32)
    rates = (0.01, 0.005, 0.02)
    single = make_train_step(model, settings, mesh=mesh)
    state, losses = create_train_state(model, jax.random.key(0), mesh=mesh), []
    for chosen, rate in zip(indices, rates, strict=True):
        batch = {name: array[chosen] for name, array in split.items()}
        state, metrics = single(state, batch, Hyperparameters(learning_rate=rate))
        losses.append(float(metrics["loss"]))
    many = make_train_steps(model, settings, mesh=mesh)
    start = create_train_state(model, jax.random.key(0), mesh=mesh)
    found, metrics = many(start, split, indices, jax.vmap(Hyperparameters)(jnp.array(rates)))
    np.testing.assert_allclose(metrics["loss"], losses, rtol=1e-5)
    assert int(found.step) == 3
    chex.assert_trees_all_close(
        jax.device_get(found.params), jax.device_get(state.params), rtol=1e-4, atol=1e-6
    )
    indices = indices.astype(np.int64)
    for number in (-1, 12, 2**32):  # the number of no image: loud, not the last one's or the first
        indices[1, 2] = number
        _, metrics = many(found, split, indices, jax.vmap(Hyperparameters)(jnp.array(rates)))
        found = create_train_state(model, jax.random.key(0), mesh=mesh)
        np.testing.assert_array_equal(np.isnan(metrics["loss"]), [False, True, True])


def test_the_number_of_no_image_is_loud_whatever_holds_the_labels(quick_compile):
    """Of uint8, what a take fills in would be the last of 256 classes."""
    model = small_model("paper").clone(num_classes=256)
    split = batch_of(12) | {"label": np.arange(12, dtype=np.uint8)}
    many = make_train_steps(model, EXACT)
    start = create_train_state(model, jax.random.key(0))
    hparams = jax.vmap(Hyperparameters)(jnp.array([0.01]))
    _, metrics = many(start, split, np.array([[0, 1, 99]]), hparams)
    assert np.isnan(metrics["loss"]).all()


@pytest.mark.parametrize("label", [-1, -2, NET.num_classes, NET.num_classes + 5, 2**32, -(2**63)])
def test_a_label_of_no_class_is_loud_in_training_and_never_right_in_evaluation(
    model, train_step, eval_step, label
):
    """Indexing takes -1 for the last class, jax 2**32 for the first: a run would learn it."""
    batch = batch_of()
    batch["label"] = batch["label"].astype(np.int64)
    batch["label"][1] = label
    state, metrics = train_step(fresh_state(model), batch, Hyperparameters())
    assert np.isnan(metrics["loss"])
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(state.params["fc8"]))
    state = fresh_state(model)
    sums = eval_step(state, batch)
    others = eval_step(state, batch_of() | {"mask": np.arange(BATCH) != 1})
    for name, value in others.items():
        assert float(sums[name]) == pytest.approx(float(value) + (name != "loss")), name
    scores = image_scores(np.log(np.full((1, 6), 1 / 6, np.float32)), np.array([label]))
    assert [float(score[0]) for score in scores.values()] == [0, 1, 1]


@pytest.mark.parametrize("field", ["momentum", "weight_decay", "color_strength"])
def test_every_hyperparameter_reaches_the_update(model, train_step, field):
    def moved(value):
        hparams = Hyperparameters(**{field: value})
        state = fresh_state(model)
        for _ in range(2):
            state, _ = train_step(state, batch_of(), hparams)
        return np.asarray(state.params["fc8"]["kernel"])

    assert not np.array_equal(moved(0.1), moved(0.2))


# --- evaluation ---------------------------------------------------------------------------------


def expected_sums(batch, views):
    """Loss and errors summed over the images, from the mean of the views' probabilities."""
    params = problem(NET)[0]
    sums = {"loss": 0.0, "top1_error": 0.0, "top5_error": 0.0, "count": 0.0}
    for image, label in zip(batch["image"] - MEAN.astype(float), batch["label"], strict=True):
        if views == "ten":
            cuts = training_numpy.ten_views(image, NET.image_size)
        else:
            cuts = image[None, CENTER, CENTER]
        logits, _ = reference.forward(NET, params, cuts)
        odds = np.exp(logits - logits.max(1, keepdims=True))
        probabilities = (odds / odds.sum(1, keepdims=True)).mean(0)
        sums["loss"] -= np.log(probabilities[label])
        sums["top1_error"] += training_numpy.top_k_error(probabilities, label, 1)
        sums["top5_error"] += training_numpy.top_k_error(probabilities, label, 5)
        sums["count"] += 1
    return sums


def assert_sums(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value, rel=1e-4, abs=1e-5), name


@pytest.mark.parametrize("views", ["center", "ten"])
def test_evaluation_sums_equal_reference(model, views):
    state, batch = fresh_state(model), batch_of(8)
    found = make_eval_step(model, EXACT, views=views)(state, batch)
    assert_sums(found, expected_sums(batch, views))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("dtype", [np.float32, bool])
def test_masked_images_do_not_count(model, eval_step, dtype):
    """Whatever they hold: the padding of the last batch."""
    state, whole = fresh_state(model), batch_of(8)
    part = {name: value[:5] for name, value in whole.items()}
    whole["label"][5:] = -1
    mask = (np.arange(8) < 5).astype(dtype)
    assert_sums(eval_step(state, whole | {"mask": mask}), expected_sums(part, "center"))


def test_only_what_is_read_of_a_batch_is_given_to_jax(model, eval_step):
    batch = batch_of()
    files = {"file": np.array(["a.jpg"] * BATCH), "set": "train", "note": b""}
    expected = jax.device_get(eval_step(fresh_state(model), batch))
    for given in (batch | files, MappingProxyType(batch), UserDict(batch)):
        assert_sums(eval_step(fresh_state(model), given), expected)


@pytest.mark.parametrize("dtype", [jnp.int4, np.int8, np.int32])
def test_labels_are_of_any_whole_numbers(dtype):
    labels, log_probs = np.arange(3), np.log(np.full((3, 20), 1 / 20, np.float32))
    for xp in (np, jnp):
        found = image_scores(xp.asarray(log_probs), xp.asarray(labels).astype(dtype))
        np.testing.assert_allclose(found["loss"], np.log(20), rtol=1e-6)


def test_equal_scores_share_the_slots(model, eval_step):
    state = fresh_state(model)
    zeros = jax.tree.map(jnp.zeros_like, state.params)
    sums = eval_step(state.replace(params=zeros), batch_of(6))
    k = NET.num_classes
    expected = {"loss": 6 * np.log(k), "top1_error": 6 - 6 / k, "top5_error": 6 - 30 / k}
    assert_sums(sums, expected | {"count": 6})


def test_a_net_of_nans_is_always_wrong(model, eval_step):
    state = fresh_state(model)
    nans = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), state.params)
    sums = eval_step(state.replace(params=nans), batch_of(6))
    assert np.isnan(sums["loss"])
    assert float(sums["top1_error"]) == float(sums["top5_error"]) == 6


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, STORED, STORED, 1), "RGB"),
        ((2, STORED, STORED + 1, 3), "square"),
        ((2, 32, 32, 3), "image_size=64"),
    ],
)
def test_unusable_images_are_named(model, eval_step, shape, message):
    batch = {"image": np.zeros(shape, np.uint8), "label": np.zeros(2, np.int32)}
    with pytest.raises(ValueError, match=message):
        eval_step(fresh_state(model), batch)


def test_unknown_views_are_named(model):
    with pytest.raises(ValueError, match="views='five'; use one of center, ten"):
        make_eval_step(model, views="five")
    with pytest.raises(ValueError, match="views='tne'; did you mean 'ten'"):
        make_predict_step(model, views="tne")
