"""The update rule against the paper's written recursion (section 5)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alexnet_jax.optimizer import update_rule
from tests.reference import training_numpy as reference

RATES = [0.01] * 4 + [0.001] * 4 + [0.0001] * 4  # across two drops
LEAVES = [(layer, leaf) for layer in ("conv1", "fc8") for leaf in ("kernel", "bias")]


def tree(seed: int):
    rng = np.random.default_rng(seed)
    return {
        layer: {"kernel": rng.normal(size=(3, 4)), "bias": rng.normal(size=4)}
        for layer in ("conv1", "fc8")
    }


def run(**fields):
    """Parameters after each of the steps, float64; the gradients are those of `tree(1 + step)`."""
    history = []
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, tree(0))
        state = update_rule(0.0).init(params)
        for step, rate in enumerate(RATES):
            rule = update_rule(rate, **fields)
            updates, state = rule.update(tree(1 + step), state, params)
            params = optax.apply_updates(params, updates)
            history.append(jax.tree.map(np.asarray, params))
    return history


def recursion(momentum=0.9, rate_factor=None, decay=None):
    """The same by hand: factors of the rate and decays by (layer, leaf)."""
    decay = decay or {(layer, leaf): 0.0005 * (leaf == "kernel") for layer, leaf in LEAVES}
    history = [tree(0)]
    velocity = jax.tree.map(np.zeros_like, tree(0))
    for step, rate in enumerate(RATES):
        params = {"conv1": {}, "fc8": {}}
        for layer, leaf in LEAVES:
            params[layer][leaf], velocity[layer][leaf] = reference.update(
                history[-1][layer][leaf],
                velocity[layer][leaf],
                tree(1 + step)[layer][leaf],
                rate=rate * (rate_factor or {}).get((layer, leaf), 1.0),
                momentum=momentum,
                decay=decay[layer, leaf],
            )
        history.append(params)
    return history[1:]


def assert_equal(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found, expected)


def test_rule_equals_recursion_across_rate_drops():
    assert_equal(run(), recursion())


def test_momentum_and_decay_are_the_given_ones():
    kernels = {(layer, leaf): 0.1 * (leaf == "kernel") for layer, leaf in LEAVES}
    assert_equal(run(momentum=0.5, weight_decay=0.1), recursion(0.5, decay=kernels))


def test_old_momentum_keeps_the_rate_it_was_gathered_at():
    """What `optax.sgd` does not: it gives the drop to the old velocity as well."""
    params = {"fc8": {"kernel": jnp.zeros(()), "bias": jnp.zeros(())}}
    state = update_rule(0.0).init(params)
    for rate in (1.0, 0.0):
        updates, state = update_rule(rate, weight_decay=0.0).update(
            jax.tree.map(jnp.ones_like, params), state, params
        )
    assert float(updates["fc8"]["kernel"]) == pytest.approx(-0.9)


def test_rate_multipliers_act_on_what_they_name():
    found = run(rate_multipliers={"conv1": 0.1, "fc8": {"bias": 2.0}})
    factor = {("conv1", "kernel"): 0.1, ("conv1", "bias"): 0.1, ("fc8", "bias"): 2.0}
    assert_equal(found, recursion(rate_factor=factor))


def test_a_rate_multiplier_of_zero_freezes():
    last = run(rate_multipliers={"conv1": 0})[-1]
    assert_equal(last["conv1"], tree(0)["conv1"])
    assert not np.allclose(last["fc8"]["kernel"], tree(0)["fc8"]["kernel"])


def test_decay_multipliers_act_on_what_they_name():
    found = run(decay_multipliers={"conv1": {"kernel": 0.0}, "fc8": {"bias": 3.0}})
    decay = {
        ("conv1", "kernel"): 0.0,
        ("conv1", "bias"): 0.0,
        ("fc8", "kernel"): 0.0005,
        ("fc8", "bias"): 0.0015,
    }
    assert_equal(found, recursion(decay=decay))


def test_a_decay_multiplier_of_a_layer_leaves_its_bias_undecayed():
    found = run(decay_multipliers={"fc8": 2.0})
    decay = {(layer, leaf): 0.0005 * (leaf == "kernel") for layer, leaf in LEAVES}
    decay["fc8", "kernel"] *= 2
    assert_equal(found, recursion(decay=decay))


@pytest.mark.parametrize("fields", ["rate_multipliers", "decay_multipliers"])
def test_a_multiplier_of_no_parameter_is_named(fields):
    with pytest.raises(ValueError, match="conv9"):
        run(**{fields: {"conv9": 1.0}})
    with pytest.raises(ValueError, match="fc8/weight"):
        run(**{fields: {"fc8": {"weight": 1.0}}})


def test_multipliers_are_of_leaves_of_any_name_and_depth():
    """As other networks have them; only what is called "bias" has no decay by default."""
    ones = {name: jnp.ones(()) for name in ("kernel", "bias", "scale")}
    params = {"block": {"conv": ones, "norm": {"scale": jnp.ones(())}}, "gain": jnp.ones(())}
    rule = update_rule(
        1.0,
        weight_decay=0.5,
        rate_multipliers={"block": {"conv": {"scale": 3.0}, "norm": 5.0}},
        decay_multipliers={"gain": 4.0, "block": {"conv": 2.0}},
    )
    still = jax.tree.map(jnp.zeros_like, params)
    updates, _ = rule.update(still, rule.init(params), params)
    assert jax.tree.map(float, updates) == {
        "block": {"conv": {"kernel": -1.0, "bias": 0.0, "scale": -3.0}, "norm": {"scale": -2.5}},
        "gain": -2.0,
    }


class Pair(NamedTuple):
    kernel: jax.Array
    bias: jax.Array


def test_parameters_are_any_tree():
    one = jnp.ones(())
    for params, expected in (
        (one, -0.5),
        ([one, one], [-0.5, -0.5]),
        ({"fc8": (Pair(one, one),)}, {"fc8": (Pair(-0.5, 0.0),)}),  # a bias by its field's name
    ):
        rule = update_rule(1.0, weight_decay=0.5, rate_multipliers=1.0)
        still = jax.tree.map(jnp.zeros_like, params)
        updates, _ = rule.update(still, rule.init(params), params)
        assert jax.tree.map(float, updates) == expected


def test_what_makes_no_update_is_named():
    with pytest.raises(ValueError, match="learning_rate is a function; give its number at each"):
        update_rule(optax.constant_schedule(0.1))
    params = {"fc8": {"kernel": jnp.ones(())}}
    rule = update_rule(0.1)
    with pytest.raises(ValueError, match=r"give update\(gradients, state, params\)"):
        rule.update(params, rule.init(params))


def test_a_multiplier_of_a_layer_promotes_no_dtypes():
    params = {"fc8": {"kernel": jnp.ones(2), "bias": jnp.ones(2)}}
    with jax.numpy_dtype_promotion("strict"):
        rule = update_rule(1.0, 0.9, 0.0, {"fc8": jnp.float32(0.5)}, {"fc8": jnp.float32(2.0)})
        updates, _ = rule.update(params, rule.init(params), params)
    assert float(updates["fc8"]["bias"][0]) == -0.5


def test_the_update_keeps_its_dtypes_whatever_the_numbers_are():
    params = {"fc8": {"kernel": jnp.ones(2, jnp.float32)}}
    with jax.enable_x64(True):
        two = np.float64(2)
        rule = update_rule(two, two, two, rate_multipliers={"fc8": two})
        found = rule.update(params, rule.init(params), params)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("factor", [[], [1.0, 2.0], np.ones(3)])
def test_a_multiplier_is_one_number(factor):
    with pytest.raises(ValueError, match="multiplier of 'fc8'"):
        run(rate_multipliers={"fc8": factor})
    with pytest.raises(ValueError, match="fc8/kernel/x"):
        run(rate_multipliers={"fc8": {"kernel": {"x": 1.0}}})
