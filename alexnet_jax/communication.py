"""What a compiled training step sends between devices and holds on one (section 3.2, figure 2).

Read from the program that XLA made, so that it is what runs and not what was meant.
"""

import math
import re
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from alexnet_jax import parallel
from alexnet_jax.augment import Augmentation
from alexnet_jax.models.layer_table import towers_exchange
from alexnet_jax.models.layers import Network
from alexnet_jax.state import Hyperparameters
from alexnet_jax.step import make_train_step, state_template
from alexnet_jax.wording import align

_KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)
_INSTRUCTION = re.compile(rf"= (.*?) ({'|'.join(_KINDS)})(?:-start)?\((.*)")
_SHAPE = re.compile(r"\b([a-z]+\d+|pred)\[([\d,]*)\]")
_WITH_OPERANDS = ("all-gather", "collective-permute")  # XLA lists them first, if asynchronous
_PAIRS = re.compile(r"source_target_pairs=\{(\{[\d,{}]*\})\}")
_LISTED_GROUPS = re.compile(r"replica_groups=\{(\{[\d,{}]*\})\}")
_IOTA_GROUPS = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_NAMED_GROUPS = re.compile(r"replica_groups=mesh\[((?:'\w+'=\d+,?)+)\] \{((?:'\w+',?)+)\}")


class Collective(NamedTuple):
    """One collective operation of a compiled program.

    Fields:
      kind: XLA's name, such as "all-gather".
      axis: the mesh axis it runs over, "data" or "model"; "data, model" for all devices.
      direction: "forward" or "backward".
      layer: the layer that asked for it; "" for several at once or none.
      parts: the arrays it leaves on one device, as (dtype, shape).
      group: number of devices that talk.
    """

    kind: str
    axis: str
    direction: str
    layer: str
    parts: tuple[tuple[str, tuple[int, ...]], ...]
    group: int

    @property
    def sent(self) -> int:
        """Bytes that one device sends: in a ring, or all of its own to another."""
        size = sum(_bytes(dtype, shape) for dtype, shape in self.parts)
        if self.kind == "collective-permute":
            return size
        others = self.group - 1
        if self.kind == "all-gather":
            return size // self.group * others
        if self.kind == "reduce-scatter":
            return size * others
        return size * others * (2 if self.kind == "all-reduce" else 1) // self.group


def _bytes(dtype: str, shape: tuple[int, ...]) -> int:
    bits = 8 if dtype == "pred" else int(re.sub(r"\D", "", dtype))
    return math.prod(shape) * bits // 8


def collectives(compiled: jax.stages.Compiled, mesh: Mesh, model: Network) -> list[Collective]:
    """Every collective of a program that was compiled for `mesh`, in the order it stands there.

    Args:
      compiled: from `jax.jit(…).lower(…).compile()`.
      mesh: from `make_mesh`.
      model: the network, whose layers are looked for.

    Raises:
      ValueError: this jaxlib writes groups of devices in a form that is not known.
    """
    layers = {layer.name for layer in model.layers}
    found = []
    for line in (compiled.as_text() or "").splitlines():
        match = _INSTRUCTION.search(line)
        if not match:
            continue
        result, kind, rest = match.groups()
        name = re.search(r'op_name="([^"]*)"', rest)
        path = name[1] if name else ""
        shapes = [
            (dtype, tuple(int(n) for n in shape.split(",") if n))
            for dtype, shape in _SHAPE.findall(re.sub(r"/\*.*?\*/", "", result))
        ]
        groups = _groups(rest, mesh)
        both = kind in _WITH_OPERANDS and f" {kind}-start(" in line
        found.append(
            Collective(
                kind,
                _axis(groups, mesh),
                "backward" if "transpose(" in path else "forward",
                next((scope for scope in path.split("/") if scope in layers), ""),
                tuple(shapes[len(shapes) // 2 :] if both else shapes),
                len(groups[0]),
            )
        )
    return found


def _groups(text: str, mesh: Mesh) -> list[list[int]]:
    """The positions in the mesh that talk to each other.

    Raises:
      ValueError: this jaxlib writes them in a form of its own.
    """
    if match := _PAIRS.search(text):  # of a collective-permute, in place of groups
        joined = {n: [n] for n in range(mesh.size)}
        for source, target in (pair.split(",") for pair in match[1][1:-1].split("},{")):
            group = sorted({*joined[int(source)], *joined[int(target)]})
            joined |= dict.fromkeys(group, group)
        return [group for first, group in joined.items() if first == group[0]]
    if match := _LISTED_GROUPS.search(text):
        return [[int(n) for n in group.split(",")] for group in match[1][1:-1].split("},{")]
    if match := _IOTA_GROUPS.search(text):
        shape, dims, order = (
            [int(n) for n in (part or "").split(",") if n] for part in match.groups()
        )
        numbers = np.arange(math.prod(dims)).reshape(dims)
        groups: list[list[int]] = numbers.transpose(order or None).reshape(shape).tolist()
        return groups
    if match := _NAMED_GROUPS.search(text):  # as jax 0.12 writes them
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", match[1])}
        names = re.findall(r"\w+", match[2])
        numbers = np.arange(math.prod(sizes.values())).reshape(*sizes.values())
        places = [list(sizes).index(name) for name in names]
        last = np.moveaxis(numbers, places, range(-len(places), 0))
        named: list[list[int]] = last.reshape(-1, math.prod(sizes[n] for n in names)).tolist()
        return named
    if match := re.search(r"replica_groups=(?!\{\})[^\s,]+", text):
        raise ValueError(
            f"{match[0]} is no form that is known; use jax 0.10 to 0.12 to list collectives"
        )
    return [list(range(mesh.size))]


def _axis(groups: list[list[int]], mesh: Mesh) -> str:
    numbers = np.arange(mesh.size).reshape(mesh.devices.shape)
    for axis, rows in (("model", numbers), ("data", numbers.T)):
        if sorted(groups) == [list(row) for row in rows]:
            return axis
    return "data, model"


# Machine code of the slow kind, made in a fraction of the time.
QUICK: dict[str, Any] = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}


def compile_train_step(
    model: Network,
    mesh: Mesh | None,
    batch_size: int,
    stored_size: int = 256,
    augmentation: Augmentation | None = None,
) -> jax.stages.Compiled:
    """Compiles a training step from shapes alone, to look at: takes no memory on the devices.

    The operations, their order and their buffers are those of the real step; its machine code is
    not optimised.

    Args:
      model: the network.
      mesh: from `make_mesh`, or None for one device.
      batch_size: images of the global batch.
      stored_size: side of the stored images in pixels.
      augmentation: as for `make_train_step`.
    """
    rows = NamedSharding(mesh, parallel.batch_spec(mesh)) if mesh else None
    side = max(stored_size, model.image_size)
    batch = {
        "image": jax.ShapeDtypeStruct((batch_size, side, side, 3), np.uint8, sharding=rows),
        "label": jax.ShapeDtypeStruct((batch_size,), np.int32, sharding=rows),
    }
    step = make_train_step(model, augmentation, mesh=mesh)
    lowered: jax.stages.Lowered = step.lower(state_template(model, mesh), batch, Hyperparameters())
    return lowered.compile(compiler_options=QUICK)


class DeviceBytes(NamedTuple):
    """Bytes that one device holds in a training step."""

    parameters: int
    velocity: int
    batch: int
    temporary: int  # activations, gradients, scratch: what XLA allocates beside the arguments


def device_bytes(compiled: jax.stages.Compiled, model: Network, mesh: Mesh | None) -> DeviceBytes:
    """What one device holds while it runs a step of `compile_train_step`.

    Raises:
      ValueError: the platform does not tell.
    """

    def held(tree: Any) -> int:
        leaves = jax.tree.leaves(tree)
        shapes = [leaf.sharding.shard_shape(leaf.shape) for leaf in leaves]
        pairs = zip(leaves, shapes, strict=True)
        return sum(math.prod(shape) * leaf.dtype.itemsize for leaf, shape in pairs)

    state = state_template(model, mesh)
    parameters, velocity = held(state.params), held(state.opt_state)
    memory = compiled.memory_analysis()
    if memory is None:
        raise ValueError("this platform does not tell what a program holds; use the CPU")
    batch = memory.argument_size_in_bytes - parameters - velocity
    return DeviceBytes(parameters, velocity, batch, memory.temp_size_in_bytes)


def format_collectives(found: list[Collective], model: Network, images: int) -> str:
    """Collectives as text, in bytes that one device sends, beside those of the authors' GPUs.

    Args:
      found: from `collectives`.
      model: the network.
      images: that one device works on in a step.
    """
    theirs = {
        name: f"{values:,} values " + ("one way" if name == model.head else "each way")
        for name, values in towers_exchange(model).items()
    }
    head = ("pass", "axis", "layer", "collective", "arrays", "bytes/step", "bytes/image", "2012")
    lines = [
        (
            one.direction,
            one.axis,
            one.layer or "all",
            one.kind,
            str(len(one.parts)),
            f"{one.sent:,}",
            f"{one.sent // images:,}",
            theirs.get(one.layer, "") if one.direction == "forward" else "",
        )
        for one in found
    ]
    return align([head, *lines])


def format_bytes(held: dict[str, DeviceBytes]) -> str:
    """Bytes that a device holds, one column per mesh."""
    names = [*DeviceBytes._fields, "total"]
    columns = [[f"{n:,}" for n in (*bytes_, sum(bytes_))] for bytes_ in held.values()]
    return align([("bytes on a device", *held), *zip(names, *columns, strict=True)])


def describe_collectives(model: Network, batch_size: int) -> str:
    """What four devices send in a training step and what one or two hold, as text.

    Compiles the step for three meshes; takes four devices.

    Raises:
      ValueError: there are fewer devices, the batch or the network does not divide over them, the
        platform does not tell what a program holds, or as `collectives`.
    """
    mesh = parallel.make_mesh(data=2, model=2)
    found = collectives(compile_train_step(model, mesh, batch_size), mesh, model)
    held = {}
    for towers in (1, 2):
        alone = parallel.make_mesh(data=1, model=towers)
        compiled = compile_train_step(model, alone, batch_size)
        held[f"1x{towers}"] = device_bytes(compiled, model, alone)
    platform = mesh.devices.flat[0].platform
    return "\n".join(
        (
            f"What one device sends in a training step, batch {batch_size}, data=2 x model=2 "
            f"(compiled for {platform}); last column: between the authors' two GPUs, per image",
            format_collectives(found, model, batch_size // 2),
            f"\nWhat one device holds at batch {batch_size}; the authors' GPUs had 3 GB each",
            format_bytes(held),
        )
    )
