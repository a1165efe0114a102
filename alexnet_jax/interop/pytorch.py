"""PyTorch's layout of the grouped net: a state dict of `.weight` and `.bias`.

Five convolutions with `groups=2` in the second, fourth and fifth, and three linear layers, which
read maps channel by channel; ours read pixel by pixel. PyTorch scales up what dropout leaves and
does nothing at test; where ours halves at test, as the paper does, the next layer's weights are
halved there.
"""

import dataclasses
import io
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from alexnet_jax.augment import IMAGENET_MEAN
from alexnet_jax.files import local_path, naming, whole_file
from alexnet_jax.interop.exported import DAMAGED, Facts, facts_of, run_of
from alexnet_jax.interop.imported import NO_ALEXNET, Imported, Params, square_side
from alexnet_jax.interop.own import facts_in, run_in
from alexnet_jax.interop.tensors import Tensors, read_state, write_tensors
from alexnet_jax.interop.torchvision import NAMES, torchvision
from alexnet_jax.models.alexnet import AlexNet
from alexnet_jax.models.layer_table import layer_table
from alexnet_jax.models.layers import Dropout
from alexnet_jax.models.network import LayeredNetwork
from alexnet_jax.models.presets import alexnet
from alexnet_jax.runs.configuration import config_of
from alexnet_jax.runs.recipe import build_model
from alexnet_jax.runs.workdir import Run, names_in

_LEAVES = ("weight", "bias")
_PARTS = re.compile(r"(\d+)")
_TO_THEIRS = {4: (3, 2, 0, 1), 2: (1, 0)}
_TO_OURS = {4: (2, 3, 1, 0), 2: (1, 0)}


def read_state_dict(path: str | Path, *, preset: str | None = None) -> Imported | Run:
    """What a file of tensors holds: a run of this library's, or another's net.

    Args:
      path: `.safetensors`, `.pt` or `.pth`.
      preset: of a grouped net that this library has not written; None is "paper".

    Raises:
      ValueError: the file is damaged, or holds no AlexNet.
    """
    path = local_path(path)
    found = read_state(path)
    if "alexnet_jax" in found.texts:
        own = facts_in(found, path).get("layout") != "pytorch"
        return run_in(found, path) if own else pytorch_run(found, path)
    with naming(path, NO_ALEXNET):
        if preset == "torchvision" or (preset is None and _of_torchvision(found.arrays)):
            return torchvision(found.arrays, path)
        return grouped(found.arrays, path, preset or "paper")


def _of_torchvision(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether the names are torchvision's, and the second convolution has no groups."""
    nothing = np.zeros(0)
    first, second = (arrays.get(f"{NAMES[x]}.weight", nothing).shape for x in ("conv1", "conv2"))
    return len(first) == len(second) == 4 and second[1] == first[0]


def write_pytorch(run: Run, path: str | Path, facts: Facts | None = None) -> None:
    """Writes a run as a state dict "conv1.weight", …, "fc8.bias", and its mean as `NAME.mean.npy`.

    The network that takes it is in docs/convert.md.

    Args:
      run: from `load_run`.
      path: ends in .safetensors.
      facts: as of `own.write_weights`.

    Raises:
      ValueError: a full connection reads its own tower alone, which PyTorch has no layer for.
    """
    path = local_path(path)
    if not isinstance(run.model, AlexNet):
        raise ValueError(f"{run.workdir} is no AlexNet; its layers have no counterparts in PyTorch")
    arrays, scale = {}, _scales(run.model)
    for row in run.model.layers:
        leaves = {name: np.asarray(leaf) for name, leaf in run.params[row.name].items()}
        kernel = leaves["kernel"] * scale[row.name]
        if not row.kernel_size and row.reads == "tower" and run.model.towers > 1:
            raise ValueError(f"{row.name} reads its own tower alone, which torch.nn.Linear cannot")
        if row.name == "fc6":
            kernel = _channels_first(kernel, _maps(run.model), path)
        arrays[f"{row.name}.weight"] = kernel.transpose(*_TO_THEIRS[kernel.ndim])
        arrays[f"{row.name}.bias"] = leaves["bias"]
    text = json.dumps({**(facts or facts_of(as_written(run))), "layout": "pytorch"})
    write_tensors(path, arrays, {"format": "pt", "alexnet_jax": text})
    mean = io.BytesIO()  # to a file NumPy writes by itself, and does not say why it cannot
    np.save(mean, run.augmentation.mean)
    with whole_file(_mean_of(path), "wb") as file:
        file.write(mean.getvalue())


def as_written(run: Run) -> Run:
    """The run with the weights that a file of `write_pytorch` gives back.

    The same where what dropout leaves is a power of two; else float32 has rounded them twice.
    """
    scale = _scales(run.model)
    params = {
        name: {
            leaf: jnp.asarray(np.asarray(x) * scale[name] / scale[name] if leaf == "kernel" else x)
            for leaf, x in leaves.items()
        }
        for name, leaves in run.params.items()
    }
    return dataclasses.replace(run, state=run.state.replace(params=params))


def pytorch_run(found: Tensors, path: Path) -> Run:
    """The run in a file of `write_pytorch`. Raises ValueError where it is damaged, or another's."""
    facts = facts_in(found, path)
    if facts.get("layout") != "pytorch":
        raise ValueError(f"{path} is not in PyTorch's layout")
    try:
        mean = np.load(_mean_of(path), allow_pickle=False)
        if mean.dtype != np.float32 or not np.isfinite(mean).all():
            raise ValueError(f"{mean.dtype}, or not finite, where float32 numbers were written")
    except Exception as error:  # what a damaged file raises depends on where
        raise ValueError(f"{_mean_of(path)}, the mean of {path.name}: {error}") from error
    with naming(path, DAMAGED):
        model = build_model(config_of(facts["config"]), len(names_in(facts)))
        params = _ours(found.arrays, model, path)
    return run_of(facts, params, mean, path)


def read_pytorch(path: str | Path, *, preset: str = "paper") -> Imported:
    """Reads a state dict of the grouped net that somebody else has written.

    The layers are told by their shapes, whatever their names; see `_in_order`. Images are taken to
    be as here: RGB, 0 to 255, less ImageNet's mean colour.

    Args:
      path: `.safetensors`, or `.pt`, `.pth` as `torch.save` writes a state dict.
      preset: the net that it was: LRN's constants, the image's geometry, what comes first.

    Raises:
      ValueError: the file is damaged, or is no such net.
    """
    path = local_path(path)
    arrays = read_state(path).arrays
    with naming(path, NO_ALEXNET):
        return grouped(arrays, path, preset)


def grouped(arrays: Mapping[str, np.ndarray], path: Path, preset: str) -> Imported:
    """As `read_pytorch`, of arrays that are read already."""
    plain = alexnet(preset)
    if _of_torchvision(arrays):  # whose pixels and norms others have not
        raise ValueError(f"{path} is torchvision's alexnet by its names; leave out --preset")
    if len(plain.layers) != 8:
        raise ValueError(f"preset={preset!r} has {len(plain.layers)} layers; give one of eight")
    layers = _in_order(arrays, plain, path)
    shapes = [weight.shape for weight, _ in layers]
    side = square_side(shapes[5][1], shapes[4][0], path)
    maps = ((side * 2 + 1) * 2 + 1) * 2 + 1
    reach = 4 * (maps - 1) + 11
    fields: dict[str, object] = {
        "num_classes": shapes[7][0],
        "conv_features": tuple(shape[0] for shape in shapes[:5]),
        "fc_features": (shapes[5][0], shapes[6][0]),
    }
    if side != _own_side(plain):
        fields["image_size"] = reach - (3 if plain.geometry == "ceil224" else 0)
    net = alexnet(preset, **fields)
    names = [row.name for row in net.layers]
    tensors = {
        f"{name}.{leaf}": array
        for name, pair in zip(names, layers, strict=True)
        for leaf, array in zip(_LEAVES, pair, strict=True)
    }
    params = _ours(tensors, net, path)
    done = dict.fromkeys(names, "transposed")
    done["fc6"] += ", rows put from CHW into HWC"
    for name, factor in _scales(net).items():
        if factor != 1:
            done[name] += f", divided by {factor:g} (dropout)"
    return Imported(path, preset, fields, params, IMAGENET_MEAN, done)


def _ours(arrays: Mapping[str, np.ndarray], model: LayeredNetwork, path: Path) -> Params:
    """Parameters in this library's layout. Raises ValueError where an array is missing."""
    params, scale = {}, _scales(model)
    for row in model.layers:
        try:
            weight, bias = (np.asarray(arrays[f"{row.name}.{x}"], np.float32) for x in _LEAVES)
        except KeyError as error:
            raise ValueError(f"{path} has no {error.args[0]}") from error
        if weight.ndim not in _TO_OURS:
            raise ValueError(f"{path}: the weight of {row.name} has the shape {weight.shape}")
        kernel = weight.transpose(*_TO_OURS[weight.ndim])
        if row.name == "fc6":
            channels = _maps(model)
            side = square_side(len(kernel), channels, path)
            split = kernel.reshape(channels, side, side, -1).transpose(1, 2, 0, 3)
            kernel = split.reshape(kernel.shape)
        params[row.name] = {
            "kernel": np.ascontiguousarray(kernel / scale[row.name]),
            "bias": np.ascontiguousarray(bias),
        }
    return params


def _scales(model: LayeredNetwork) -> dict[str, np.float32]:
    """Layer -> factor on its weights in PyTorch: what ours does to its inputs at test."""
    scales, factor = {}, 1.0
    for row in model.layers:
        scales[row.name] = np.float32(factor)
        factor = 1.0
        for operation in row.operations:
            if isinstance(operation, Dropout) and operation.style == "paper":
                factor *= 1 - operation.rate
    return scales


def _own_side(model: AlexNet) -> int:
    """Of the maps that the first full connection reads, in pixels."""
    pools = [row for row in layer_table(model) if row.name == "pool5"]
    return pools[0].output[0]


def _maps(model: LayeredNetwork) -> int:
    """Channels of the maps that the first full connection reads."""
    return [row.features for row in model.layers if row.kernel_size][-1]


def _channels_first(kernel: np.ndarray, channels: int, path: Path) -> np.ndarray:
    side = square_side(len(kernel), channels, path)
    split = kernel.reshape(side, side, channels, -1).transpose(2, 0, 1, 3)
    return split.reshape(kernel.shape)


def _in_order(
    arrays: Mapping[str, np.ndarray], plain: AlexNet, path: Path
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weight and bias of each layer, in the order of the layers of `plain`.

    Shapes tell it, as each layer reads what the one before gives. Where they leave several orders,
    names that differ in their numbers alone tell it, or the file, if it is one of PyTorch's own,
    which keeps the layers' order; `.safetensors` sorts them by name.

    Raises:
      ValueError: they are no eight layers, or nothing tells their order.
    """
    keeps_order = path.suffix != ".safetensors"
    names = list(dict.fromkeys(name.rpartition(".")[0] for name in arrays))
    if not keeps_order:
        names.sort(key=_numbers_apart)
    found = {}
    for name in names:
        weight, bias = (arrays.get(f"{name}.{leaf}") for leaf in _LEAVES)
        if weight is None or bias is None:
            raise ValueError(f"{path}: {name!r} has no weight and bias")
        found[name] = weight, bias
    # Convolutions come first, whatever the words sort like.
    names.sort(key=lambda name: -found[name][0].ndim)
    dimensions = [found[name][0].ndim for name in names]
    if dimensions != [4] * 5 + [2] * 3:
        raise ValueError(
            f"{path} holds weights of {dimensions} dimensions; an AlexNet has five convolutions "
            "and three linear layers"
        )
    convolutions, linear = names[:5], names[5:]
    orders = [
        first + last
        for first in itertools.permutations(convolutions)
        for last in itertools.permutations(linear)
        if _is_chain([found[name][0].shape for name in first + last], plain)
    ]
    if not orders:  # what does not fit, `checked` says
        return [found[name] for name in names]
    for kind, layers in ((slice(5), convolutions), (slice(5, None), linear)):
        if len({order[kind] for order in orders}) > 1:
            told = {tuple(layers)} if keeps_order else set()
            if len({tuple(_PARTS.split(name)[::2]) for name in layers}) == 1:
                told.add(tuple(sorted(layers, key=_numbers_apart)))
            orders = [order for order in orders if order[kind] in told]
            if len({order[kind] for order in orders}) != 1:
                advice = (
                    "their numbers and places in the file do not tell one;"
                    if keeps_order
                    else ".safetensors keeps none; save the state dict as .pt, or"
                )
                raise ValueError(
                    f"{path}: shapes leave several orders of {', '.join(map(repr, layers))}, and "
                    f"{advice} number their names as they follow each other (fc6, fc7, fc8)"
                )
    return [found[name] for name in orders[0]]


def _numbers_apart(name: str) -> list[tuple[int, str]]:
    """By which names sort as people count: conv2 before conv10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in _PARTS.split(name)]


def _is_chain(shapes: Sequence[tuple[int, ...]], plain: AlexNet) -> bool:
    """Whether each layer of `shapes` reads what the one before gives, by the kernels of `plain`."""
    given = 3  # red, green, blue
    for row, shape in zip(plain.layers, shapes, strict=True):
        read = shape[1]
        if row.kernel_size:
            if shape[2:] != (row.kernel_size,) * 2:
                return False
            read *= plain.towers if row.reads == "tower" else 1
        elif row.name == "fc6":  # of square maps; `square_side` says what else they are
            read, rest = divmod(read, max(given, 1))
            side = math.isqrt(read)
            if rest or side**2 != read:
                return False
            read = given
        if read != given:
            return False
        given = shape[0]
    return True


def _mean_of(path: Path) -> Path:
    return path.with_suffix(".mean.npy")
