"""The two-GPU scheme: the mesh, what lies where, and where the towers talk (section 3.2).

The mesh has two axes. `data` splits the batch. `model` splits the kernels: with size 2 each
device holds one tower, the paper's figure 2. With size 1 a device holds both.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from alexnet_jax.kinds import is_kind
from alexnet_jax.scores import in_32_bits


def make_mesh(data: int | None = None, model: int = 1) -> Mesh:
    """Lays the devices out as `data` x `model`.

    Args:
      data: number of parts of the batch; None takes all the devices there are.
      model: 1, or 2 for one tower per device.

    Raises:
      ValueError: a size is none, or there are too few devices, or a process has none of them.
    """
    if not is_kind(model, like=0) or model not in (1, 2):
        raise ValueError(f"model={model!r}: the net has two towers, so the model axis is 1 or 2")
    if data is not None and not (is_kind(data, like=0) and data >= 1):
        raise ValueError(f"data={data!r}: use a number of devices from 1, or None for all of them")
    available = jax.device_count()
    data = max(available // model, 1) if data is None else data
    if data * model > available:
        fits = available // model
        smaller = f"data={fits} or less" if fits else "model=1"
        raise ValueError(
            f"a mesh of data={data} x model={model} needs {data * model} devices and there are "
            f"{available}; use {smaller} (or simulate devices on CPU with "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={data * model})"
        )
    devices = jax.devices()[: data * model]
    without = set(range(jax.process_count())) - {device.process_index for device in devices}
    if without:
        raise ValueError(
            f"a mesh of data={data} x model={model} has no device of process {min(without)}; "
            f"leave data out for all {available} devices, or start fewer processes"
        )
    return jax.make_mesh(
        (data, model), ("data", "model"), axis_types=(AxisType.Auto,) * 2, devices=devices
    )


def gather_towers(x: jax.Array, axis: str | None) -> jax.Array:
    """Both towers' channels [..., C] from this tower's [..., C / 2]; identity on one device."""
    return x if axis is None else lax.all_gather(x, axis, axis=-1, tiled=True)


def sum_towers(x: jax.Array, axis: str | None) -> jax.Array:
    """The sum of both towers' partial products; identity on one device."""
    return x if axis is None else lax.psum(x, axis)


def tower_numbers(towers: int, axis: str | None) -> jax.Array:
    """int32 numbers of the towers this device holds."""
    return jnp.arange(towers, dtype=jnp.int32) if axis is None else lax.axis_index(axis)[None]


class Axes(NamedTuple):
    """The mesh axes a step runs over, seen from one device; None where nothing is split."""

    data: str | None = None
    towers: str | None = None

    def positions(self, images: int) -> jax.Array:
        """int32 [images]: where this device's images stand in the global batch."""
        shard = 0 if self.data is None else lax.axis_index(self.data)
        return shard * images + jnp.arange(images, dtype=jnp.int32)

    def replicate(self, params: Any) -> Any:
        """Marks parameters as used by every data shard, so that their gradients are summed."""
        if self.data is None:
            return params
        return jax.tree.map(lambda p: lax.pcast(p, self.data, to="varying"), params)

    def sum(self, tree: Any) -> Any:
        """Sums a tree of equally shaped scalars over the data shards, in one collective."""
        if self.data is None:
            return tree
        leaves, structure = jax.tree.flatten(tree)
        return jax.tree.unflatten(structure, list(lax.psum(jnp.stack(leaves), self.data)))

    @property
    def shards(self) -> int:
        """Number of parts of the global batch."""
        return 1 if self.data is None else lax.axis_size(self.data)


def axes_of(mesh: Mesh | None) -> Axes:
    """The axes a step on `mesh` runs over."""
    if mesh is None:
        return Axes()
    data, towers = (name if mesh.shape[name] > 1 else None for name in ("data", "model"))
    return Axes(data, towers)


def batch_spec(mesh: Mesh | None) -> P:
    """How a batch lies on `mesh`: its rows over `data`, the same on every tower."""
    return P(axes_of(mesh).data)


class Partition(Protocol):
    """How a network is divided over the `model` axis; its own knowledge, see `models.layers`."""

    def check_split(self, parts: int) -> None:
        """Raises ValueError where the network cannot be split over `parts` devices."""
        ...

    def split_axis(self, layer: str, parameter: str) -> int | None:
        """The axis of a parameter that is divided over the towers; None: all of it everywhere."""
        ...


def check_kind(mesh: Any) -> None:
    """Raises ValueError where `mesh` is neither None nor one of `make_mesh`."""
    if mesh is None:
        return
    if not isinstance(mesh, Mesh):
        raise ValueError(
            f"mesh is a {type(mesh).__name__}; give one that alexnet_jax.make_mesh makes, or None"
        )
    if mesh.axis_names != ("data", "model"):
        raise ValueError(
            f"the mesh has the axes {mesh.axis_names} where ('data', 'model') are wanted; make it "
            "with alexnet_jax.make_mesh"
        )
    if set(mesh.axis_types) != {AxisType.Auto}:
        raise ValueError(
            f"the mesh has the axis types {mesh.axis_types} where Auto are wanted; make it with "
            "alexnet_jax.make_mesh, or give jax.make_mesh axis_types=(AxisType.Auto,) * 2"
        )


def check_mesh(model: Partition, mesh: Mesh | None) -> None:
    """Raises ValueError where `model` cannot be split over `mesh`, or it is no such mesh."""
    check_kind(mesh)
    if mesh is not None and mesh.shape["model"] > 1:
        model.check_split(mesh.shape["model"])


def check_batch(batch: Mapping[str, Any], mesh: Mesh) -> None:
    """Raises ValueError where the images of `batch` do not divide over the mesh."""
    shards = mesh.shape["data"]
    images = batch["image"].shape[0]
    if images % shards:
        below = images // shards * shards
        nearest = f"{below} or {below + shards}" if below else f"{shards}"
        raise ValueError(
            f"a batch of {images} does not divide over data={shards}; use a multiple of {shards}, "
            f"such as {nearest}"
        )


def partition_specs(tree: Any, model: Partition, mesh: Mesh) -> Any:
    """How each leaf of a train state (or of its parameters) lies on `mesh`.

    Parameters, and what an update rule keeps for each, are divided as the network says. All else
    (step and key) is on every device.
    """

    def spec(path: Any, leaf: Any) -> P:
        names = [entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey)]
        if mesh.shape["model"] == 1 or len(names) < 2 or not leaf.ndim:
            return P()
        axis = model.split_axis(*names[-2:])
        return P() if axis is None else P(*(None,) * (axis % leaf.ndim), "model")

    return jax.tree_util.tree_map_with_path(spec, tree)


def shardings(tree: Any, model: Partition, mesh: Mesh) -> Any:
    """`partition_specs` as shardings."""
    specs = partition_specs(tree, model, mesh)
    return jax.tree.map(lambda s: NamedSharding(mesh, s), specs, is_leaf=lambda s: isinstance(s, P))


def on_mesh(
    step: Callable[..., Any], model: Partition, mesh: Mesh | None, out_specs: P | None = None
) -> Callable[..., Any]:
    """`step` itself, or mapped over `mesh`: the state by its specs, the batch by its rows.

    Args:
      step: `(state, batch)`, which gives what all devices agree on, or `(state, batch, hparams)`,
        which gives a state and that.
      model: the network that the state is of.
      mesh: None is one device.
      out_specs: how else the result lies.

    Raises:
      ValueError: at a call, the batch does not divide over the mesh, or the step mixes the towers.
    """
    if mesh is None:
        return step

    def mapped(state: Any, batch: Mapping[str, Any], *rest: Any) -> Any:
        check_batch(batch, mesh)
        specs = partition_specs(state, model, mesh)
        out = out_specs if out_specs is not None else ((specs, P()) if rest else P())
        over = (specs, batch_spec(mesh), *(P() for _ in rest))
        on_all = jax.shard_map(step, mesh=mesh, in_specs=over, out_specs=out)
        try:
            return on_all(state, batch, *rest)
        except ValueError as error:
            if mesh.shape["model"] > 1 and str(error).startswith("shard_map applied"):
                raise ValueError(
                    "the update rule, or the network, mixes values of both towers, which are on "
                    "different devices; use model=1"
                ) from error
            raise

    return mapped


def local_rows(mesh: Mesh | None, batch_size: int) -> slice:
    """The rows of the global batch that this process loads (its devices' shares, contiguous)."""
    if mesh is None or jax.process_count() == 1:
        return slice(0, batch_size)
    sharding = NamedSharding(mesh, batch_spec(mesh))
    indices = sharding.addressable_devices_indices_map((batch_size,)).values()
    bounds = [index[0].indices(batch_size) for index in indices if index is not None]
    return slice(min(start for start, _, _ in bounds), max(stop for _, stop, _ in bounds))


def place_batch(batch: dict[str, np.ndarray], mesh: Mesh | None) -> dict[str, jax.Array]:
    """Puts this process's rows of a batch on its devices, as parts of one global batch."""
    batch = {name: in_32_bits(rows) for name, rows in batch.items()}
    if mesh is None:
        return {name: jnp.asarray(rows) for name, rows in batch.items()}
    sharding = NamedSharding(mesh, batch_spec(mesh))
    return {
        name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()
    }
