"""Digests: numbers that tell whether data are what was saved, the same on every mesh."""

import math
import zlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp


def crc(data: bytes | memoryview) -> int:
    """The CRC-32 of bytes in the host's memory."""
    return zlib.crc32(data)


@jax.jit
def digests(leaves: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """`digest` of each array, where it lies."""
    return {path: digest(leaf) for path, leaf in leaves.items()}


def digest(array: jax.Array) -> jax.Array:
    """A uint32 of an array's bits that no mesh changes.

    The sum modulo 2^32 of every word, scrambled, times an odd weight for its position: each factor
    is a bijection, so any change within one word changes the digest, and larger ones all but
    2^-32 of the time.
    """
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    width = min(array.dtype.itemsize, 4)  # eight bytes become two words
    bits = jax.lax.bitcast_convert_type(array, f"uint{8 * width}").astype(jnp.uint32)
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x7FEB352D)
    bits = bits ^ (bits >> 15)
    position = jnp.zeros(bits.shape, jnp.uint32)
    for axis in range(bits.ndim):
        stride = math.prod(bits.shape[axis + 1 :]) % 2**32
        position += jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis) * jnp.uint32(stride)
    return jnp.sum(bits * (2 * position + 1), dtype=jnp.uint32)
