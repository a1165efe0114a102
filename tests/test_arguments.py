"""What steps, states and networks are given: what does not fit is named in one line."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alexnet_jax import (
    AlexNet,
    Augmentation,
    Hyperparameters,
    alexnet,
    create_train_state,
    make_eval_step,
    make_mesh,
    make_predict_step,
    make_train_step,
    make_train_steps,
    network,
    update_rule,
)
from alexnet_jax.arguments import read_batch
from alexnet_jax.parallel import place_batch
from alexnet_jax.step import state_template
from tests.models.test_alexnet import small_model
from tests.test_step import STORED, batch_of, fresh_state


@pytest.fixture(scope="module")
def model():
    return small_model("paper")


LABELS = np.zeros(2, np.int32)
NO_BATCHES = {
    "a tuple": ((0, LABELS), "a batch is a dict with 'image' and 'label'; this one is a tuple"),
    "other names": ({"images": 0, "labels": 0}, "has 'image' and 'label'; this one has 'images'"),
    "a list": ({"label": [0, 1]}, "'label' of the batch is a list; give an array"),
    "fewer labels": ({"label": LABELS[:1]}, r"'label' .* shape \[1\] where \[2\] is wanted"),
    "one-hot": ({"label": np.eye(10)[:2]}, r"shape \[2, 10\] .*; of one-hot labels take argmax"),
    "numbers": (
        {"label": np.zeros(2, np.float32)},
        "labels are float32; give the classes' numbers, int32",
    ),
    "empty": ({"image": np.zeros((0, 72, 72, 3), np.uint8)}, "a batch of no images"),
}


@pytest.mark.parametrize("case", NO_BATCHES)
def test_what_is_no_batch_is_named(model, case):
    given, message = NO_BATCHES[case]
    if isinstance(given, dict) and "images" not in given:
        given = {"image": np.zeros((2, STORED, STORED, 3), np.uint8), "label": LABELS} | given
    state = fresh_state(model)
    for step in (make_train_step(model), make_train_steps(model), make_eval_step(model)):
        more = {"eval_step": (), "train_step": (Hyperparameters(),)}.get(
            step.__name__, (np.zeros((1, 2), np.int32), Hyperparameters())
        )
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(step.__wrapped__, state, given, *more)


def test_images_of_several_sizes_are_named(model):
    images = np.array([np.zeros((side, side, 3), np.uint8) for side in (8, 9)], object)
    told = (
        r"images are of dtype object \(of several sizes\?\); give one array, uint8 \[B, S, S, 3\]"
    )
    with pytest.raises(ValueError, match=told):
        make_predict_step(model)(fresh_state(model), {"image": images})


def test_what_is_no_state_or_no_hyperparameters_is_named(model):
    batch, state = batch_of(), fresh_state(model)
    step = make_train_step(model)
    with pytest.raises(ValueError, match="the state is a dict; `create_train_state` makes one"):
        step(state.params, batch, Hyperparameters())
    with pytest.raises(ValueError, match="the state is a dict"):
        make_predict_step(model)(state.params, batch)
    for hparams in ({"learning_rate": 0.1}, 0.1):
        with pytest.raises(ValueError, match="write Hyperparameters"):
            step(state, batch, hparams)
    with pytest.raises(ValueError, match=r"key=3 is no PRNG key; give jax.random.key\(3\)"):
        create_train_state(model, 3)


def test_the_state_of_a_larger_network_is_refused(model):
    """Its other layers would lie there untrained, and decay."""
    state, smaller = state_template(model, None), model.clone(remove=("conv4",))
    told = "the state has parameters of conv4, which the network has not"
    with pytest.raises(ValueError, match=told):
        make_train_step(smaller).eval_shape(state, batch_of(), Hyperparameters())
    for step in (make_eval_step, make_predict_step):
        with pytest.raises(ValueError, match=told):
            step(smaller).eval_shape(state, batch_of())


def test_a_mask_is_read_in_evaluation_alone(model):
    state, batch = state_template(model, None), batch_of()
    for mask, message in (
        (np.ones(3), r"'mask' of the batch has the shape \[3\]"),
        ([True] * len(batch["label"]), "'mask' of the batch is a list; give an array"),
    ):
        with pytest.raises(ValueError, match=message):
            make_eval_step(model).eval_shape(state, batch | {"mask": mask})
    masked = batch | {"mask": np.ones_like(batch["label"])}
    with pytest.raises(ValueError, match="has a 'mask' and training counts every image"):
        make_train_step(model).eval_shape(state, masked, Hyperparameters())
    with pytest.raises(ValueError, match="has a 'mask' and training counts every image"):
        hparams = jax.vmap(Hyperparameters)(jnp.zeros(1))
        make_train_steps(model).eval_shape(state, masked, np.zeros((1, 2), np.int32), hparams)


def test_what_else_a_batch_holds_stays_out_of_the_step(model):
    mesh = make_mesh(2, 1)
    state, batch = state_template(model, mesh), batch_of() | {"epoch": 3, "file": np.zeros(3)}
    make_train_step(model, mesh=mesh).eval_shape(state, batch, Hyperparameters())
    make_eval_step(model, mesh=mesh).eval_shape(state, batch)


@pytest.mark.parametrize("x64", [False, True])
def test_a_number_that_32_bits_lack_is_none_of_a_class(x64):
    """jax would cut it to one."""
    images = np.zeros((3, STORED, STORED, 3), np.uint8)
    for label, dtype in ((2**32, np.int64), (-(2**63), np.int64), (2**63, np.uint64)):
        labels = np.array([label, 1, 2], dtype)
        with jax.enable_x64(x64):
            arrays = (labels, jnp.asarray(labels)) if x64 else (labels,)
            for array in arrays:
                batch = {"image": images, "label": array, "mask": array}
                read = read_batch(batch, ("image", "label"), ("mask",))
                for name in ("label", "mask"):
                    np.testing.assert_array_equal(read[name], np.array([-1, 1, 2]))
                    assert read[name].dtype == np.int32
        placed = place_batch({"image": images, "label": labels}, make_mesh(1, 1))
        np.testing.assert_array_equal(placed["label"], [-1, 1, 2])


@pytest.mark.parametrize("field", ["learning_rate", "color_strength"])
def test_a_step_takes_scalars(model, field):
    hparams = Hyperparameters(**{field: np.ones(1)})
    with pytest.raises(ValueError, match=rf"hparams.{field} has the shape \[1\].*jax.vmap"):
        make_train_step(model).eval_shape(state_template(model, None), batch_of(), hparams)


def test_what_makes_no_step_is_named(model):
    for rule, message in (
        (optax.adam(0.1), "rule is a GradientTransformation.* where the function"),
        ("adam", "rule is a str where the function that makes one is wanted, such as optax.adam"),
    ):
        for make in (make_train_step, make_train_steps):
            with pytest.raises(ValueError, match=message):
                make(model, rule=rule)
        with pytest.raises(ValueError, match=message):
            create_train_state(model, jax.random.key(0), rule=rule)
    for number in (-1, 1.5, "often", True):
        with pytest.raises(ValueError, match=r"watch_every=.*; give a number of updates"):
            make_train_step(model, watch_every=number)
    make_train_step(model, watch_every=np.int64(5))
    for given, message in (
        (Augmentation, r"augmentation is a class; give one made of it: Augmentation\(\)"),
        ("none", "augmentation='none' has no `train` and `views`"),
        (3, "augmentation=3 has no"),
    ):
        for make in (make_train_step, make_eval_step, make_predict_step):
            with pytest.raises(ValueError, match=message):
                make(model, given)
    for make in (make_train_step, make_eval_step):
        with pytest.raises(ValueError, match=r"mesh is a str; give one that alexnet_jax.make_mesh"):
            make(model, mesh="2x1")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("valid224", r"model is a str; write alexnet\('valid224'\), or give another"),
        (AlexNet, r"model is a class; give one made of it: AlexNet\(\)$"),
        (None, r"model is a NoneType; write alexnet\('paper'\)"),
    ],
)
def test_what_is_no_network_is_named(given, message):
    create = partial(create_train_state, key=jax.random.key(0))
    for make in (make_train_step, make_train_steps, make_eval_step, make_predict_step, create):
        with pytest.raises(ValueError, match=message):
            make(given)


def test_a_state_of_another_rule_is_named(model):
    adam = make_train_step(model, rule=optax.adam)
    with pytest.raises(ValueError, match=r"made for another update rule.*the same rule="):
        adam(fresh_state(model), batch_of(), Hyperparameters())
    with pytest.raises(ValueError, match="rule gives no Optax transform: 3"):
        make_train_step(model, rule=lambda learning_rate: 3)(
            fresh_state(model), batch_of(), Hyperparameters()
        )


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (optax.inject_hyperparams(optax.sgd), "keeps its numbers in its state.*inject_hyperparams"),
        (optax.polyak_sgd, "fails with gradients, state and parameters, .*'value'; give another"),
    ],
)
def test_a_rule_that_a_step_cannot_serve_is_named(model, rule, message):
    state = state_template(model, None, rule)
    with pytest.raises(ValueError, match=message):
        make_train_step(model, rule=rule).eval_shape(state, batch_of(), Hyperparameters())


@pytest.mark.parametrize("field", ["rate_multipliers", "decay_multipliers"])
@pytest.mark.parametrize(
    "rule",
    [optax.adam, partial(update_rule, **{"rate_multipliers": None, "decay_multipliers": None})],
)
def test_multipliers_that_the_rule_does_not_take_are_named(model, field, rule):
    state = state_template(model, None, rule)
    hparams = Hyperparameters(**{field: {"conv99": 0}})
    with pytest.raises(ValueError, match=f"{field} are given and the update rule does not take"):
        make_train_step(model, rule=rule).eval_shape(state, batch_of(), hparams)


def test_several_updates_want_their_images_and_settings(model):
    steps = make_train_steps(model).__wrapped__
    batch, state = batch_of(), fresh_state(model)
    each = jax.vmap(Hyperparameters)(jnp.full(3, 0.1))
    indices = np.zeros((3, 2), np.int32)
    for given, hparams, message in (
        (indices, Hyperparameters(), r"hparams.learning_rate has the shape \[\] where \[3\] is"),
        (indices[:2], each, r"has the shape \[3\] where \[2\] is wanted, one value for each up"),
        (indices[0], each, r"indices are int32 \[2\]; give int32 \[T, B\]"),
        (indices * 1.0, each, r"indices are float\d\d \[3, 2\]; give int32"),
        (indices.tolist(), each, r"indices are a list; give an array, int32 \[T, B\]"),
        (indices, 0.1, "write Hyperparameters"),
    ):
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(steps, state, batch, given, hparams)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"learning_rate": None}, "learning_rate is None; give a number"),
        ({"momentum": "0.9 or so"}, "momentum='0.9 or so' is no number"),
        ({"learning_rate": [0.1, 0.2]}, r"learning_rate=\[0.1, 0.2\] is not one number"),
        ({"momentum": {}}, "momentum={} is not one number"),
        ({"learning_rate": "0.1"}, "learning_rate='0.1' is no number"),
        ({"learning_rate": b"0.1"}, "learning_rate=b'0.1' is no number"),
        ({"learning_rate": np.array("0.1")}, "learning_rate=array.* is no number"),
        ({"learning_rate": np.complex64(1j)}, "learning_rate=np.complex64.1j. is no number"),
        ({"learning_rate": True}, "learning_rate=True is no number"),
        ({"learning_rate": 10**400}, "learning_rate=10* is beyond float32; give 0, or from 1.18"),
        ({"learning_rate": 1e39}, "learning_rate=1e.39 is beyond float32"),
        ({"weight_decay": np.float64(-1e-40)}, "weight_decay=np.float64.-1e-40. is beyond float32"),
        ({"rate_multipliers": {"conv1": 1e39}}, "rate_multipliers={'conv1': 1e.39} is beyond"),
        ({"learning_rate": np.True_}, "learning_rate=np.True_ is no number"),
        ({"rate_multipliers": {"conv1": "low"}}, "rate_multipliers={'conv1': 'low'} is no number"),
    ],
)
def test_a_hyper_parameter_that_is_no_number_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Hyperparameters(**fields)


def test_a_training_pass_wants_a_key_for_each_image(model):
    images = jnp.zeros((3, model.image_size, model.image_size, 3))
    params = {"params": fresh_state(model).params}
    with pytest.raises(ValueError, match=r"give dropout_keys=.* keys, or rngs="):
        model.apply(params, images, train=True)
    for keys in (jax.random.key(0), jax.random.split(jax.random.key(0), 2)):
        with pytest.raises(ValueError, match=r"where \[3\] is wanted, one for each image"):
            model.apply(params, images, train=True, dropout_keys=keys)
    still = model.clone(dropout_rate=0.0)  # draws nothing
    jax.eval_shape(lambda params: still.apply(params, images, train=True), params)


@pytest.mark.parametrize("key", [3, np.int64(3), "3", np.zeros(2), np.zeros(3, np.uint32), None])
def test_what_is_no_key_is_named(key, model):
    with pytest.raises(ValueError, match=r"is no PRNG key; give jax.random.key\([03]\)"):
        create_train_state(model, key)


def test_what_is_no_choice_is_named():
    for make in (alexnet, network):
        with pytest.raises(ValueError, match="unknown preset 10; use one of paper"):
            make(10)
        with pytest.raises(ValueError, match=r"unknown preset \['paper'\]; did you mean 'paper'"):
            make(["paper"])
    for field in ("flip", "scale_with_color"):
        with pytest.raises(ValueError, match=f"{field}='no'; use one of"):
            Augmentation(**{field: "no"})
        with pytest.raises(ValueError, match=rf"{field}=array.*; use one of \(True, False\)"):
            Augmentation(**{field: np.array([True, False])})
