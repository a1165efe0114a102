"""The update rule of section 5, built from Optax transforms."""

import jax
import jax.numpy as jnp
import optax


def update_rule(
    learning_rate: jax.Array | float,
    momentum: jax.Array | float = 0.9,
    weight_decay: jax.Array | float = 5e-4,
    rate_multipliers=None,
    decay_multipliers=None,
) -> optax.GradientTransformation:
    """v ← momentum·v − rate·(decay·w + gradient); w ← w + v.

    The rate is inside the velocity, so old momentum keeps the rate it was gathered at
    (`optax.sgd` rescales it at every drop). Biases are not decayed unless told otherwise.

    Args:
      learning_rate: ε of the paper.
      momentum: 0.9 in the paper.
      weight_decay: 0.0005 in the paper.
      rate_multipliers: tree with the parameters' names, or a part of it, of factors on the rate:
        `{"conv1": 0.1, "fc8": {"bias": 2.0}}`. What it does not name has 1.
      decay_multipliers: the same for the decay; what it does not name has 1 for kernels and 0
        for biases.

    Returns:
      A transform whose updates are added to the parameters; its state holds the velocity.

    Raises:
      ValueError: at the update, where a multiplier names no parameter.

    Source: AlexNet §5.
    """

    def decayed(gradients, params):
        default = {"kernel": 1.0, "bias": 0.0}
        multipliers = expand(decay_multipliers, params, default)
        return jax.tree.map(
            lambda g, w, m: g + weight_decay * m * w, gradients, params, multipliers
        )

    def scaled(gradients, params):
        multipliers = expand(rate_multipliers, params, {"kernel": 1.0, "bias": 1.0})
        return jax.tree.map(lambda g, m: -learning_rate * m * g, gradients, multipliers)

    return optax.chain(optax.stateless(decayed), optax.stateless(scaled), optax.trace(momentum))


def expand(multipliers, params, default: dict[str, float]):
    """Completes a partial tree of multipliers to one factor a parameter.

    Args:
      multipliers: None, or layer -> factor, or layer -> {"kernel" or "bias" -> factor}.
      params: layer -> {"kernel", "bias"}.
      default: factor of the kernels and of the biases that are not named.

    Raises:
      ValueError: a name that no parameter has.
    """
    multipliers = multipliers or {}
    _check_names(multipliers, params, "")
    complete = {}
    for layer, leaves in params.items():
        given = multipliers.get(layer, {})
        one_factor = not isinstance(given, dict)
        complete[layer] = {
            name: given * (default[name] != 0) if one_factor else given.get(name, default[name])
            for name in leaves
        }
    return jax.tree.map(jnp.asarray, complete)


def _check_names(multipliers, params, path):
    for name, value in multipliers.items():
        if name not in params:
            raise ValueError(
                f"multiplier of {path + name!r}: no such parameter; there are {', '.join(params)}"
            )
        if isinstance(value, dict):
            _check_names(value, params[name], f"{name}/")
