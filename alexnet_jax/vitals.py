"""A network's vital signs at an update: what every layer puts out, and how its weights move.

They tell a net that learns from one that cannot: the plateau of small initial weights (section 5),
units that no image activates, rates that are too large.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from alexnet_jax.models.layers import Activation, Layer, LocalResponseNorm, Network
from alexnet_jax.models.network import sown_name
from alexnet_jax.parallel import Axes

# "loss_spread", the standard deviation of the images' losses in nats, and "layers": layer -> sign,
# float32 scalars each:
#   mean, deviation: of what the products and the bias give
#   dead: share of the units that no image of the batch activates; of layers with ReLUs
#   suppression: share of the signal that neighbours take away in the norm; of layers with LRN
#   gradient: length of the kernel's
#   update: length of the kernel's, in lengths of the kernel
Vitals = dict[str, Any]

_TINY = jnp.finfo(jnp.float32).tiny


def due(step: Any, every: int) -> Any:
    """bool: whether the signs are taken at an update, `step` (int) of them done with it.

    At the first, too: a net that begins badly shows it there.
    """
    return (step % every == 0) | (step == 1)


@jax.named_scope("vitals")
def vitals_if(
    wanted: jax.Array,
    net: Network,
    axes: Axes,
    look: Callable[[], Mapping[str, Any]],
    losses: jax.Array,
    gradients: Mapping[str, Any],
    updates: Mapping[str, Any],
    params: Mapping[str, Any],
) -> tuple[Vitals, Any]:
    """The signs over the whole batch, and `updates`, which are now to come after them.

    The signs are the same on every device, and zeros where they are not `wanted`. Where they are,
    the batch passes once more: an update that keeps what the pass has sown, in case it is wanted,
    pays for it each time. The updates are handed through so that XLA knows the pass to come before
    the parameters change; it would copy all of them at every update otherwise.

    Args:
      wanted: bool, the same on every device.
      net: the part of the network that one device has.
      axes: of the mesh.
      look: passes the batch once more; gives what it sows, as `LayeredNetwork` says.
      losses: of each of this device's images, [B].
      gradients, updates, params: of this device; the parameters before the update.
    """

    def lengths(tree: Mapping[str, Any]) -> dict[str, jax.Array]:
        return {row.name: _length(tree[row.name]["kernel"], axes) for row in net.layers}

    def ahead() -> tuple[Any, ...]:
        sown, signals = look(), {}
        for row in net.layers:
            read = {part: sown[f"{row.name}_{part}"][0] for part in _names(row)}
            signals[row.name] = _signal(row, read, axes)
        return _moments(losses, axes)[1], signals, lengths(params)

    (spread, layers, weights), one = _where(wanted, ahead)
    (pulls, moves), _ = _where(wanted, lambda: (lengths(gradients), lengths(updates)))
    for name, signs in layers.items():
        signs["gradient"] = pulls[name]
        signs["update"] = moves[name] / jnp.maximum(weights[name], _TINY)
    after = jax.tree.map(lambda leaf: leaf * one.astype(leaf.dtype), updates)
    return {"loss_spread": spread, "layers": layers}, after


def _where(wanted: jax.Array, take: Callable[[], Any]) -> tuple[Any, jax.Array]:
    """What `take` gives, or zeros where it is not `wanted`; and 1.0, which is known thereafter."""
    shapes = jax.eval_shape(take)
    one = 1 - wanted.astype(jnp.float32)  # where it is returned; a constant would be found out

    def nothing() -> tuple[Any, jax.Array]:
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes), one

    return lax.cond(wanted, lambda: (take(), jnp.ones_like(one)), nothing)


def _names(row: Layer) -> list[str]:
    """What of a row's sown arrays is read: the products, the activation, the norm and its input."""
    names, before = ["linear"], "linear"
    for operation in row.operations:
        name = sown_name(operation)
        if isinstance(operation, LocalResponseNorm):
            names += [before, name]
        elif isinstance(operation, Activation):
            names.append(name)
        before = name
    return list(dict.fromkeys(names))


def _signal(row: Layer, read: Mapping[str, jax.Array], axes: Axes) -> dict[str, jax.Array]:
    """The signs of what a layer puts out."""
    mean, deviation = _moments(read["linear"], axes)
    signs = {"mean": mean, "deviation": deviation}
    before = "linear"
    for operation in row.operations:
        name = sown_name(operation)
        if isinstance(operation, Activation) and operation.function == "relu":
            largest = read[name].max(tuple(range(read[name].ndim - 1)))
            if axes.data is not None:
                largest = lax.pmax(largest, axes.data)
            signs["dead"] = _mean_over((largest <= 0).mean(dtype=jnp.float32), axes.towers)
        elif isinstance(operation, LocalResponseNorm):
            left, whole = (_over(_size(read[x]), axes) for x in (name, before))
            alone = whole * operation.k**-operation.beta  # what a unit without neighbours keeps
            signs["suppression"] = 1 - left / jnp.maximum(alone, _TINY)
        before = name
    return signs


def _moments(x: jax.Array, axes: Axes) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation over all devices' values, of which each has as many."""
    x = x.astype(jnp.float32)
    mean = _over(x.mean(), axes)
    return mean, jnp.sqrt(_over(((x - mean) ** 2).mean(), axes))


def _size(x: jax.Array) -> jax.Array:
    return jnp.abs(x.astype(jnp.float32)).mean()


def _length(kernel: jax.Array, axes: Axes) -> jax.Array:
    """Euclidean length of a kernel, both towers' together."""
    square = (kernel.astype(jnp.float32) ** 2).sum()
    return jnp.sqrt(square if axes.towers is None else lax.psum(square, axes.towers))


def _over(value: jax.Array, axes: Axes) -> jax.Array:
    """The mean over the devices."""
    for axis in (axes.data, axes.towers):
        value = _mean_over(value, axis)
    return value


def _mean_over(value: jax.Array, axis: str | None) -> jax.Array:
    return value if axis is None else lax.pmean(value, axis)
