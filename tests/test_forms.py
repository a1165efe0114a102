"""The forms of operations that race against those that ship compute the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax import ops
from experiments.speed import forms
from experiments.speed.forms import FORMS, forms_here, replaced


@pytest.fixture(scope="module")
def shipped() -> list[np.ndarray]:
    return results()


def results() -> list[np.ndarray]:
    """Values and gradients of every operation that a form replaces, on maps with ties."""
    rng = np.random.default_rng(0)
    # Few different values, so that windows of the pool have several maxima.
    x = jnp.asarray(rng.integers(-3, 4, (2, 13, 11, 8)), jnp.float32)
    image = jnp.asarray(rng.normal(size=(2, 31, 31, 3)), jnp.float32)
    first = jnp.asarray(rng.normal(size=(11, 11, 3, 8)), jnp.float32)
    grouped = jnp.asarray(rng.normal(size=(3, 3, 4, 6)), jnp.float32)
    bias = jnp.asarray(rng.normal(size=8), jnp.float32)
    ends = ((0, 3), (0, 3))

    def norm(x: jax.Array) -> jax.Array:
        return ops.local_response_norm(x, 5, 2.0, 0.1, 0.75, towers=2)

    found = []
    for function, arguments in (
        (norm, (x,)),
        (lambda x: ops.max_pool(x), (x,)),
        (lambda x, bias: ops.add_bias(x, bias), (x, bias)),
        (lambda x, k: ops.convolution(x, k, stride=4, padding=ends), (image, first)),
        (lambda x, k: ops.convolution(x, k, padding=((1, 1), (1, 1)), groups=2), (x, grouped)),
    ):
        shape = jax.eval_shape(function, *arguments).shape
        weights = jnp.asarray(rng.normal(size=shape), jnp.float32)

        @jax.jit
        def both(arguments, weights, function=function):
            y, back = jax.vjp(function, *arguments)
            return y, *back(weights)

        found += [np.asarray(part) for part in both(arguments, weights)]
    return found


@pytest.mark.parametrize("form", forms_here()[1:])
def test_a_form_computes_what_ships(form, shipped):
    with replaced(FORMS[form]):
        found = results()
    for ours, theirs in zip(shipped, found, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=2e-5, atol=2e-4)


@pytest.mark.parametrize("size", [4, 5])
def test_the_recomputed_lrn_is_the_same_norm(size):
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=(2, 3, 16)).astype(np.float32) * 30, rng.normal(size=(2, 3, 16))
    given = (size, 2.0, 0.01, 0.75, 2)

    def outcome(norm):
        return jax.value_and_grad(lambda x: (norm(x, *given) * g).sum())(x)

    expected, found = outcome(ops.local_response_norm), outcome(forms._lrn_recomputed)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-3, atol=1e-5)
