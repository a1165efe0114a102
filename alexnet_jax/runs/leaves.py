"""What a checkpoint notes of a tree's leaves, and in what a model differs from that."""

from typing import Any

import jax
import numpy as np


def leaves_of(tree: Any) -> tuple[dict[str, Any], Any]:
    """Leaves by path, such as `params/conv1/kernel`, and the structure."""
    leaves, structure = jax.tree.flatten_with_path(tree)
    name = {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves}
    return name, structure


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def bits(leaf: jax.Array) -> jax.Array:
    """PRNG keys as the uint32 they consist of; anything else as it is."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def abstract_bits(leaf: Any) -> jax.ShapeDtypeStruct:
    """The shape and type of `bits`, where the leaf lies or is to lie."""
    abstract = jax.eval_shape(bits, leaf)
    sharding = getattr(leaf, "sharding", None)
    sharding = sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(abstract.shape, abstract.dtype, sharding=sharding)


def signature(leaf: Any) -> dict[str, Any]:
    """Shape, type and, of PRNG keys, their kind, as JSON."""
    key = {"key": jax.random.key_impl(leaf)} if _is_key(leaf) else {}
    return {"shape": list(leaf.shape), "dtype": str(leaf.dtype)} | key


def zeros(signature: dict[str, Any]) -> np.ndarray:
    """An array of that signature."""
    return np.zeros(signature["shape"], signature["dtype"])


def difference(saved: dict[str, Any], wanted: dict[str, Any]) -> str | None:
    """The first leaf in which a checkpoint and a model differ, in words."""

    def describe(shape, dtype):
        return f"{dtype}[{', '.join(map(str, shape))}]"

    for path in saved | wanted:
        there = path in saved and describe(saved[path]["shape"], saved[path]["dtype"])
        here = path in wanted and describe(wanted[path].shape, wanted[path].dtype)
        if not here:
            return f"the model has no {path} ({there} in the checkpoint)"
        if not there:
            return f"the checkpoint has no {path} ({here} in the model)"
        if there != here:
            return f"{path} is {there} in the checkpoint, {here} in the model"
    return None
