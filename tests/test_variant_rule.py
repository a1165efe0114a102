"""Another update rule is one argument: Adam, trained on one device and on two."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alexnet_jax import (
    Augmentation,
    Hyperparameters,
    create_train_state,
    make_mesh,
    make_train_step,
    make_train_steps,
)
from alexnet_jax.augment import sized
from alexnet_jax.step import state_template
from tests.models.test_alexnet import small_model
from tests.tiers import slow

pytestmark = pytest.mark.usefixtures("quick_compilation")


MODEL = small_model("paper").clone(dropout_rate=0.0)
AUGMENTATION = Augmentation(crop="center", flip=False, color="none")
RATES = (0.001, 0.002, 0.001)


def batch_of(seed):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (4, 70, 70, 3), np.uint8),
        "label": rng.integers(0, MODEL.num_classes, 4).astype(np.int32),
    }


def train(rule, mesh=None):
    state = create_train_state(MODEL, jax.random.key(0), rule=rule, mesh=mesh)
    step = make_train_step(MODEL, AUGMENTATION, rule=rule, mesh=mesh)
    for seed, rate in enumerate(RATES):
        state, _ = step(state, batch_of(seed), Hyperparameters(learning_rate=rate))
    return jax.device_get(state.replace(key=None))


@pytest.fixture(scope="module")
def adam():
    return train(optax.adam)


def test_adam_is_that_of_optax(adam):
    """By hand: gradients of the mean loss, Optax's rule."""
    state = create_train_state(MODEL, jax.random.key(0))
    params, memory = state.params, optax.adam(0.0).init(state.params)

    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    @jax.grad
    def gradients(params, batch):
        (crops,) = sized(AUGMENTATION, 64).views(batch["image"])["center"]
        log_probs = jax.nn.log_softmax(MODEL.apply({"params": params}, crops))
        return -jnp.take_along_axis(log_probs, batch["label"][:, None], 1).mean()

    for seed, rate in enumerate(RATES):
        updates, memory = optax.adam(rate).update(gradients(params, batch_of(seed)), memory)
        params = optax.apply_updates(params, updates)
    chex.assert_trees_all_close(adam.params, jax.device_get(params), rtol=1e-2, atol=2e-5)
    assert adam.step == 3


@pytest.mark.parametrize("shape", slow((1, 2), (2, 2)))
def test_adam_is_the_same_on_a_mesh(adam, shape):
    found = train(optax.adam, make_mesh(*shape))
    chex.assert_trees_all_close(found, adam, rtol=1e-2, atol=2e-5)


def test_many_updates_take_another_rule_too(adam):
    batches = [batch_of(seed) for seed in range(len(RATES))]
    data = jax.tree.map(lambda *parts: np.concatenate(parts), *batches)
    steps = make_train_steps(MODEL, AUGMENTATION, rule=optax.adam)
    state = create_train_state(MODEL, jax.random.key(0), rule=optax.adam)
    hparams = jax.vmap(Hyperparameters)(jnp.array(RATES))
    state, _ = steps(state, data, np.arange(12, dtype=np.int32).reshape(3, 4), hparams)
    chex.assert_trees_all_close(jax.device_get(state.params), adam.params, rtol=1e-2, atol=2e-5)


def test_a_rule_is_called_with_the_fields_that_its_signature_names():
    seen = {}

    def all_of_them(**fields):
        seen["all"] = set(fields)
        return optax.sgd(fields["learning_rate"])

    def some(learning_rate, weight_decay, other=3):
        seen["some"] = weight_decay, other
        return optax.adamw(learning_rate, weight_decay=weight_decay)

    inner = partial(some, weight_decay=0.25)
    inner.title = "a partial with an attribute stays one inside another"
    for rule in (all_of_them, optax.adamw, partial(optax.rmsprop, decay=0.5), partial(inner)):
        state = state_template(MODEL, None, rule)
        make_train_step(MODEL, rule=rule).eval_shape(state, batch_of(0), Hyperparameters())
    assert seen["all"] == set(vars(Hyperparameters()))
    assert seen["some"] == (0.25, 3)  # what was given by name stays
