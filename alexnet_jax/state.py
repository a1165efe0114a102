"""What training changes, and what a sweep varies: pytrees of arrays (section 5)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from alexnet_jax.kinds import IN_FLOAT32, is_finite, is_in_float32

Batch = Mapping[str, Any]  # "image" uint8 [B, S, S, 3] and "label" int [B], NumPy or JAX


class TrainState(flax.struct.PyTreeNode):
    """All that changes in training; every leaf is a `jax.Array`.

    Parameters and what the update rule remembers are all there is: statistics of batches and
    other variables that a network changes as it runs (Flax's mutable collections) have no place.

    Fields:
      step: int32 number of updates done.
      params: layer -> {"kernel", "bias"}, float32.
      opt_state: the state of the update rule: the velocity, shaped as the parameters.
      key: the run's threefry PRNG key, never changed: draws fold in the step.
    """

    step: jax.Array
    params: dict[str, Any]
    opt_state: optax.OptState
    key: jax.Array


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, eq=False)
class Hyperparameters:
    """What a sweep varies without compiling again; the defaults are the paper's.

    However a number is written (Python, NumPy or JAX, integer or float), it becomes a float32
    `jax.Array`. `jax.vmap(Hyperparameters)(rates)` is a stack of them, one per rate,
    to `vmap` over.

    Fields:
      learning_rate: ε.
      momentum: 0.9.
      weight_decay: 0.0005, of kernels.
      color_strength: standard deviation of the colour shift.
      rate_multipliers: factors on the rate, a tree with the parameters' names or a part of it,
        such as `{"conv1": 0.1, "fc8": {"bias": 2.0}}`; 0 freezes. A tree of another structure
        compiles again, other values do not.
      decay_multipliers: the same for the decay, which biases have none of by default.

    Raises:
      ValueError: a field that holds no number, or one as text or a truth value, or one that
        float32 does not hold.
    """

    learning_rate: Any = 0.01
    momentum: Any = 0.9
    weight_decay: Any = 5e-4
    color_strength: Any = 0.1
    rate_multipliers: Any = None
    decay_multipliers: Any = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is None and field.default is not None:
                raise ValueError(f"{field.name} is None; give a number")
            if field.default is not None and not jax.tree_util.all_leaves([value]):
                raise ValueError(f"{field.name}={value!r} is not one number; give one, or an array")
            try:
                value = jax.tree.map(_as_number, value)
            except OverflowError as error:
                raise ValueError(
                    f"{field.name}={value!r:.80} is beyond float32; give {IN_FLOAT32}"
                ) from error
            except (TypeError, ValueError) as error:
                raise ValueError(f"{field.name}={value!r:.80} is no number; give one") from error
            object.__setattr__(self, field.name, value)

    def replace(self, **changes: Any) -> "Hyperparameters":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Any]], list[str]]:
        """For jax: fields are the children."""
        names = [field.name for field in dataclasses.fields(self)]
        keys = map(jax.tree_util.GetAttrKey, names)
        return [(key, getattr(self, name)) for key, name in zip(keys, names, strict=True)], names

    @classmethod
    def tree_unflatten(cls, names: list[str], children: Any) -> "Hyperparameters":
        """For jax: takes any children as they are, since jax puts placeholders into trees."""
        self = object.__new__(cls)
        for name, child in zip(names, children, strict=True):
            object.__setattr__(self, name, child)
        return self


def _as_number(x: Any) -> jax.Array:
    """float32. Raises TypeError for text, truth values and others that jax would take.

    OverflowError for a number that becomes infinite or 0; an array's values are taken as they are.
    """
    kind = getattr(getattr(x, "dtype", None), "kind", None)
    if isinstance(x, str | bytes | bool) or kind in tuple("bcSUOMm"):
        raise TypeError
    if isinstance(x, int | float | np.number) and is_finite(x) and not is_in_float32(float(x)):
        raise OverflowError
    return jnp.asarray(x, jnp.float32)


def run_key(seed: int) -> jax.Array:
    """The PRNG key of a run: threefry, whatever `JAX_DEFAULT_PRNG_IMPL` says.

    With other generators the draws would depend on the mesh.
    """
    return jax.random.key(seed, impl="threefry2x32")
