"""What happens to each unit by itself: its activation (section 3.1), and dropout (section 4.2)."""

from functools import partial

import jax
import jax.numpy as jnp

from alexnet_jax.kinds import is_kind
from alexnet_jax.ops.checks import check_floats
from alexnet_jax.wording import suggestion

# Section 3.1; `tanh` and `sigmoid` are the saturating units that figure 1 compares with.
ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid}
DROPOUT_STYLES = ("paper", "inverted")


def dropout_mask(keys: jax.Array, towers: jax.Array, features: int, rate: float) -> jax.Array:
    """Draws which units stay: bool [B, len(towers) * features], each with probability 1 - rate.

    A unit's draw depends on its image's key and its tower alone, so every split of the batch or
    of the towers over devices draws the same mask.

    Args:
      keys: [B] PRNG keys, one per image.
      towers: int32 [T], the numbers of the towers held here.
      features: units of one tower.
      rate: share of units dropped, from 0 to below 1.

    Raises:
      ValueError: a rate outside [0, 1).
    """
    _check_rate(rate)

    def draw(key: jax.Array, tower: jax.Array) -> jax.Array:
        keep = jnp.float32(1 - rate)  # the same draws under JAX_ENABLE_X64
        return jax.random.bernoulli(jax.random.fold_in(key, tower), keep, (features,))

    mask = jax.vmap(lambda key: jax.vmap(partial(draw, key))(towers))(keys)
    return mask.reshape(keys.shape[0], towers.shape[0] * features)


def _check_rate(rate: float) -> None:
    """Raises ValueError for a rate outside [0, 1); one that is traced passes."""
    number = is_kind(rate, like=0.5) or isinstance(rate, jax.Array)
    if not isinstance(rate, jax.core.Tracer) and not (number and 0 <= rate < 1):
        raise ValueError(f"rate={rate!r}; it is a share of units, in [0, 1)")


def check_dropout(rate: float, style: str) -> None:
    """Raises ValueError for another style, or a rate outside [0, 1); one that is traced passes."""
    _check_rate(rate)
    if style not in DROPOUT_STYLES:
        raise ValueError(f"style={style!r}; {suggestion(style, DROPOUT_STYLES)}")


def dropout(x: jax.Array, mask: jax.Array | None, rate: float, style: str = "paper") -> jax.Array:
    """Applies a drawn mask in training, or the expectation at test (`mask=None`).

    `paper` zeroes in training and multiplies by 1 - rate at test; `inverted` divides by 1 - rate
    in training and does nothing at test. They are different optimisation problems at equal
    initialisation, rate and decay.

    Args:
      x: [B, F], or maps [B, H, W, C].
      mask: bool, shaped as `x`, of the units that stay, or None at test.
      rate: share of units dropped, from 0 to below 1.
      style: "paper" or "inverted".

    Raises:
      ValueError: `x` holds no floats, another style, or a rate outside [0, 1).

    Source: AlexNet §4.2.
    """
    check_floats(x)
    check_dropout(rate, style)
    keep = jnp.asarray(1 - rate, x.dtype)
    if mask is None:
        return x * keep if style == "paper" else x
    kept = jnp.where(mask, x, 0)
    return kept if style == "paper" else kept / keep
