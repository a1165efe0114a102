"""The pure operations of the nets: convolution, LRN, pooling, dropout (sections 3.1-3.5, 4.2).

Each is an ordinary function of arrays. Those whose automatic gradient XLA compiles badly carry a
hand-written one; the mathematics is the same, and the tests hold both against NumPy. Where they do,
it is for reverse mode: `jax.grad` and `vjp` pass, `jax.jvp`, `jacfwd` and `hessian` do not.
"""

from alexnet_jax.ops.dtypes import at_least_float32
from alexnet_jax.ops.linear import add_bias, convolution, dense, local_convolution
from alexnet_jax.ops.norms import local_response_norm, within_map_norm
from alexnet_jax.ops.pools import average_pool, max_pool
from alexnet_jax.ops.units import ACTIVATIONS, dropout, dropout_mask

__all__ = [
    "ACTIVATIONS",
    "add_bias",
    "at_least_float32",
    "average_pool",
    "convolution",
    "dense",
    "dropout",
    "dropout_mask",
    "local_convolution",
    "local_response_norm",
    "max_pool",
    "within_map_norm",
]
