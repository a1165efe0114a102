"""In what numbers sums are made."""

from typing import Any

import jax.numpy as jnp


def at_least_float32(dtype: Any) -> Any:
    """float32 for floats of fewer bits, which sums are not made in; else `dtype`."""
    return jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype
