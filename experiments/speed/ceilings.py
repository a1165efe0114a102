"""What the device could reach at most, measured in the run that is compared with it."""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from alexnet_jax.models.network import PRECISIONS
from experiments import harness


def ceilings(precisions: Sequence[str]) -> dict[str, float]:
    """TFLOP/s of a large product by precision, and TB/s of a copy (read and written)."""
    side = 2048 if jax.default_backend() == "cpu" else 8192
    side = 128 if harness.quick() else side
    found = {}
    key = jax.random.key(0)
    for name in precisions:
        dtype = jnp.bfloat16 if name == "bfloat16" else jnp.float32
        a = jax.random.normal(key, (side, side), dtype)
        product = jax.jit(
            partial(jnp.matmul, precision=PRECISIONS[name], preferred_element_type=jnp.float32)
        )
        found[f"{name} TFLOP/s"] = 2 * side**3 / _seconds(lambda a=a, f=product: f(a, a)) / 1e12
    x = jnp.ones((side**2 * 16,), jnp.float32)
    copy = jax.jit(lambda x: x + 1)
    found["copy TB/s"] = 2 * x.nbytes / _seconds(lambda: copy(x)) / 1e12
    return found


def _seconds(work: Callable[[], Any], calls: int = 5) -> float:
    jax.block_until_ready(work())
    times = []
    for _ in range(5):
        started = time.perf_counter()
        jax.block_until_ready([work() for _ in range(calls)][-1])
        times.append((time.perf_counter() - started) / calls)
    return statistics.median(times)
