"""How much of its device a training uses: model FLOPs against what the device can multiply."""

import functools
import time

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from alexnet_jax.models.layer_table import layer_table
from alexnet_jax.models.network import PRECISIONS, LayeredNetwork

# Sides of the squares that are multiplied: large enough to be fast, and no more.
_SIDE_ON_CPU, _SIDE = 1024, 8192
_TIMES = 3


def training_flops(model: LayeredNetwork) -> int:
    """Floating-point operations of an update for one image: products alone, a MAC being two.

    The pass back takes two products where the pass forward takes one, but for the first layer,
    which passes nothing on.
    """
    macs = [row.macs for row in layer_table(model) if row.macs]
    return 2 * (3 * sum(macs) - macs[0])


@functools.cache
def matmul_rate(precision: str) -> float:
    """FLOP/s of a device that multiplies large matrices: the best of a few, measured once."""
    side = _SIDE_ON_CPU if jax.default_backend() == "cpu" else _SIDE
    dtype = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
    x = jnp.ones((side, side), dtype)
    multiply = jax.jit(functools.partial(jnp.matmul, precision=PRECISIONS[precision]))
    multiply(x, x).block_until_ready()
    seconds = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        multiply(x, x).block_until_ready()
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / min(seconds)


def peak_images_per_second(model: LayeredNetwork, mesh: Mesh) -> float:
    """What the mesh's devices would train if they did nothing but multiply at `matmul_rate`.

    The simulated devices of a CPU share one.
    """
    devices = jax.process_count() if jax.default_backend() == "cpu" else mesh.size
    return devices * matmul_rate(model.precision) / training_flops(model)
