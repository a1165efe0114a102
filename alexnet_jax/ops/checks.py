"""What the operations are given, checked: what does not fit is named in one line."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax.kinds import is_kind


def check_floats(x: jax.Array, dims: int | None = None) -> None:
    """Raises ValueError where `x` holds no floats, or has another number of axes than `dims`."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"x is {x.dtype}; give floats, such as x.astype(jnp.float32)")
    if dims is not None and x.ndim != dims:
        raise ValueError(f"x has the shape {list(x.shape)}; give it {dims} axes")


def check_counts(**numbers: Any) -> None:
    """Raises ValueError for one that is no whole number from 1."""
    for name, value in numbers.items():
        if not (is_kind(value, like=0) and value >= 1):
            raise ValueError(f"{name}={value!r}; give a whole number from 1")


def check_padding(padding: Any) -> None:
    """Raises ValueError where `padding` is no (low, high) on H and on W."""
    numbers = np.asarray(padding, object)
    if numbers.shape != (2, 2) or not all(is_kind(number, like=0) for number in numbers.flat):
        raise ValueError(
            f"padding={padding!r}; give (low, high) on H and on W, such as ((1, 1), (1, 1))"
        )


def check_groups(x: jax.Array, kernel: jax.Array, groups: int, dims: int) -> None:
    """Raises ValueError where `kernel` [..., C / groups, F] of `dims` axes is not for `x`."""
    check_counts(groups=groups)
    if kernel.ndim != dims:
        raise ValueError(f"the kernel has the shape {list(kernel.shape)}; give it {dims} axes")
    inputs, outputs = kernel.shape[-2:]
    if outputs % groups:
        raise ValueError(f"{outputs} outputs do not divide by groups={groups}")
    if x.shape[-1] != inputs * groups:
        raise ValueError(
            f"x has {x.shape[-1]} channels and the kernel is for {groups} x {inputs}; give a "
            "kernel [..., C / groups, F]"
        )
