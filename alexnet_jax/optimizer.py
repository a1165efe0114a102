"""The update rule of section 5, built from Optax transforms."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax


def update_rule(
    learning_rate: Any,
    momentum: Any = 0.9,
    weight_decay: Any = 5e-4,
    rate_multipliers: Any = None,
    decay_multipliers: Any = None,
) -> optax.GradientTransformation:
    """v ← momentum·v − rate·(decay·w + gradient); w ← w + v.

    The rate is inside the velocity, so old momentum keeps the rate it was gathered at
    (`optax.sgd` rescales it at every drop). Biases are not decayed unless told otherwise.

    Args:
      learning_rate: ε of the paper; a number or a traced array, as all that follow.
      momentum: 0.9 in the paper.
      weight_decay: 0.0005 in the paper.
      rate_multipliers: tree with the parameters' names, or a part of it, of factors on the rate:
        `{"conv1": 0.1, "fc8": {"bias": 2.0}}`. What it does not name has 1.
      decay_multipliers: the same for the decay. What it does not name has 0 if it is called
        "bias", else 1; a factor for a whole layer leaves its biases undecayed.

    Returns:
      A transform whose updates, of the gradients' dtypes, are added to the parameters; its state
      holds the velocity, shaped as the parameters.

    Raises:
      ValueError: a number is a function; or, at the update, the parameters are not given, or a
        multiplier names none of them, or is no number.

    Source: AlexNet §5.
    """

    numbers = {"learning_rate": learning_rate, "momentum": momentum, "weight_decay": weight_decay}
    for name, number in numbers.items():
        if callable(number):
            raise ValueError(f"{name} is a function; give its number at each update")

    def decayed(gradients: Any, params: Any) -> Any:
        multipliers = expand(decay_multipliers, params, {"bias": 0.0})
        return jax.tree.map(
            lambda g, w, m: g + weight_decay * m * w, gradients, params, multipliers
        )

    def scaled(gradients: Any, params: Any) -> Any:
        multipliers = expand(rate_multipliers, params, {})
        return jax.tree.map(lambda g, m: -learning_rate * m * g, gradients, multipliers)

    rule = optax.chain(optax.stateless(decayed), optax.stateless(scaled), optax.trace(momentum))

    def update(gradients: Any, state: Any, params: Any = None) -> Any:
        if params is None:
            raise ValueError("the parameters are decayed; give update(gradients, state, params)")
        # Of the dtypes given, whatever numbers the rates are, under JAX_ENABLE_X64 too.
        found = rule.update(gradients, state, params)
        return jax.tree.map(lambda new, old: new.astype(old.dtype), found, (gradients, state))

    return optax.GradientTransformation(rule.init, update)


def expand(multipliers: Any, params: Any, default: Mapping[str, float]) -> Any:
    """Completes a partial tree of multipliers to one factor per parameter.

    Args:
      multipliers: None, one factor, or name -> the same for what is below that name.
      params: nested mappings of arrays, of any depth; or another tree, which no multiplier names
        the parts of.
      default: the last part of a parameter's name, such as "bias" -> its factor where it is not
        named; 1 for all others. A 0 stays where one factor is given for all that lies above.

    Raises:
      ValueError: a name that no parameter has, or a factor that is not a number.
    """

    _check_multipliers(multipliers, params, "")

    def factor(path: Any, _: Any) -> jax.Array:
        given, of_all_below, name = multipliers, False, ""
        for name in map(_name, path):
            if isinstance(given, Mapping):
                given = given.get(name)
            else:
                of_all_below = True
        usual = default.get(name, 1.0)
        if given is None:
            return jnp.asarray(usual)
        return jnp.asarray(given * float(usual != 0) if of_all_below else given)

    return jax.tree_util.tree_map_with_path(factor, params)


def _name(entry: Any) -> Any:
    """What jax calls a part of a tree: its key, its field's name, or its place."""
    for kind in ("key", "name", "idx"):
        if hasattr(entry, kind):
            return getattr(entry, kind)
    return ""


def _check_multipliers(given: Any, params: Any, path: str) -> None:
    if isinstance(given, Mapping):
        names = list(params) if isinstance(params, Mapping) else []
        for name, value in given.items():
            here = f"{path}/{name}" if path else name
            if name not in names:
                raise ValueError(
                    f"multiplier of {here!r}: no such parameter; "
                    + (f"there are {', '.join(names)}" if names else f"{path!r} has no parts")
                )
            _check_multipliers(value, params[name], here)
    elif given is not None and (isinstance(given, list | tuple | str) or jnp.shape(given) != ()):
        raise ValueError(f"multiplier of {path!r} is {given!r}; give one number")
