"""Caffe's weights: `.caffemodel` (both kinds of layers) and the `bvlc_alexnet.npy` dictionary.

Caffe sees BGR and keeps kernels as [outputs, inputs, height, width], the inputs of one group. Its
first full connection reads channel by channel; ours pixel by pixel.
Source: Caffe's `caffe.proto`, `bvlc_alexnet` and `bvlc_reference_caffenet`.
"""

import io
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from alexnet_jax.files import local_path, naming
from alexnet_jax.interop.imported import NO_ALEXNET, Imported, read_mean, square_side
from alexnet_jax.interop.pickled import load_arrays
from alexnet_jax.models.alexnet import GEOMETRIES
from alexnet_jax.wording import first_line

Blobs = Mapping[str, list[np.ndarray]]  # layer -> kernel and bias, as Caffe has them

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
PRESETS = ("caffe", "caffenet")


def read_caffe(
    path: str | Path, *, preset: str | None = None, mean: str | Path | None = None
) -> Imported:
    """Reads bvlc_alexnet, bvlc_reference_caffenet, or a net of their form and other widths.

    Args:
      path: a `.caffemodel`, or a `.npy` file of a dictionary layer -> [kernel, bias].
      preset: "caffe" (normalises, then pools) or "caffenet" (pools first); None asks the file, a
        `.npy` file by its name alone.
      mean: a `.binaryproto`, or a `.npy` file of [3] or [3, S, S], BGR; None is ImageNet's colour.

    Raises:
      ValueError: the file is damaged, is no such net, or does not say which it is.
    """
    path = local_path(path)
    if preset not in (None, *PRESETS):
        raise ValueError(f"preset={preset!r}; Caffe's nets are {' and '.join(PRESETS)}")
    if path.suffix == ".npy":
        (blobs, known), rows = (_read_dictionary(path), _named(path.stem)), "HWC"
    else:
        (blobs, known), rows = _read_model(path), "CHW"
    if not (preset or known):
        raise ValueError(
            f"{path} does not say whether it pools first; give --preset=caffe (bvlc_alexnet) or "
            "--preset=caffenet (bvlc_reference_caffenet)"
        )
    values = read_mean(mean, _mean_of_binaryproto, bgr=True)
    with naming(path, NO_ALEXNET):
        return _imported(path, blobs, rows, preset or known or "", values)


def _imported(path: Path, blobs: Blobs, rows: str, preset: str, mean: np.ndarray) -> Imported:
    """The blobs in our layout; `rows` is the order of fc6's inputs."""
    head, odd = "fc8", [layer for layer in blobs if layer not in LAYERS]
    if head not in blobs and len(odd) == 1:  # fine-tuned, under a name of its own
        (head,) = odd
        blobs = {"fc8" if layer == head else layer: arrays for layer, arrays in blobs.items()}
    for layer in LAYERS:
        given = len(blobs.get(layer, []))
        if given != 2:
            what = f"{given} arrays" if given else "no weights"
            raise ValueError(
                f"{path} has {what} of {layer} where a kernel and a bias are wanted; its "
                f"layers are {', '.join(map(repr, blobs)):.200}"
            )
    for layer in blobs:
        if layer not in LAYERS:
            raise ValueError(f"{path} has a layer {layer!r}, which AlexNet has not")
    params, done = {}, {}
    for layer in LAYERS:
        kernel, bias = (np.asarray(blob, np.float32) for blob in blobs[layer])
        axes = 4 if layer.startswith("conv") else 2
        shape = kernel.shape
        if rows == "CHW":  # Caffe's own order
            while len(shape) > axes and shape[0] == 1:  # as older files pad them
                shape = shape[1:]
            if len(shape) == 4 > axes:  # a full connection that was made a convolution
                shape = (shape[0], math.prod(shape[1:]))
        if len(shape) != axes:
            raise ValueError(f"{path}: the kernel of {layer} has the shape {kernel.shape}")
        if rows == "CHW":
            kernel = kernel.reshape(shape).transpose((2, 3, 1, 0) if axes == 4 else (1, 0))
        done[layer] = "transposed" if rows == "CHW" else "as it was"
        params[layer] = {"kernel": kernel, "bias": bias.reshape(-1)}
    done["fc8"] += f", in the file {head!r}" * (head != "fc8")
    params["conv1"]["kernel"] = params["conv1"]["kernel"][:, :, ::-1]
    done["conv1"] += ", BGR made RGB"
    channels = params["conv5"]["bias"].size
    params["fc6"]["kernel"] = _fc6_rows(params["fc6"]["kernel"], channels, rows, path)
    done["fc6"] += ", rows put from CHW into HWC" * (rows == "CHW")
    params = {
        layer: {name: np.ascontiguousarray(leaf) for name, leaf in leaves.items()}
        for layer, leaves in params.items()
    }
    return Imported(path, preset, _fields(params), params, mean, done)


def _fc6_rows(kernel: np.ndarray, channels: int, order: str, path: Path) -> np.ndarray:
    """[inputs, units] with the inputs in the order of maps [H, W, C]."""
    side = square_side(len(kernel), channels, path)
    if order == "HWC":
        return kernel
    return kernel.reshape(channels, side, side, -1).transpose(1, 2, 0, 3).reshape(kernel.shape)


def _fields(params: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """The widths, and the size of the image that gives fc6 its inputs."""
    size = {layer: leaves["bias"].size for layer, leaves in params.items()}
    side = round((len(params["fc6"]["kernel"]) / size["conv5"]) ** 0.5)
    # Backwards through three poolings of 3 with stride 2, and conv1: 6 -> 13 -> 27 -> 55 -> 227.
    maps = ((side * 2 + 1) * 2 + 1) * 2 + 1
    image = (maps - 1) * 4 + 11
    fields = {
        "num_classes": size["fc8"],
        "conv_features": tuple(size[f"conv{n}"] for n in range(1, 6)),
        "fc_features": (size["fc6"], size["fc7"]),
    }
    return fields | ({} if image == GEOMETRIES["caffe227"][1] else {"image_size": image})


# --- files ----------------------------------------------------------------------------------------


def _read_model(path: Path) -> tuple[dict[str, list[np.ndarray]], str | None]:
    """The blobs of the layers that have some, and the preset if the file tells it."""
    net = _parse(path, "NetParameter")
    layers = [*net.layer, *net.layers]
    if not layers:
        raise ValueError(f"{path} holds no layers; is it a .caffemodel?")
    blobs: dict[str, list[np.ndarray]] = {}
    for layer in layers:
        name = _text(layer.name)
        if name in blobs and layer.blobs:  # such as of two files, one behind the other
            raise ValueError(f"{path} has the layer {name!r} twice")
        if layer.blobs:
            blobs[name] = [_array(blob, path, name) for blob in layer.blobs]
    order = [layer.name for layer in layers if layer.name in ("norm1", "pool1")]
    known = {("norm1", "pool1"): "caffe", ("pool1", "norm1"): "caffenet"}.get(tuple(order))
    return blobs, known or _named(_text(net.name))


def _text(name: str | bytes) -> str:
    """A name in a message; protobuf gives one that is no UTF-8 as bytes."""
    return name if isinstance(name, str) else name.decode(errors="replace")


def _named(name: str) -> str | None:
    """The preset that a name tells, such as "bvlc_alexnet"."""
    kinds = {"caffenet": "caffenet", "alexnet": "caffe"}
    return next((preset for kind, preset in kinds.items() if kind in name.lower()), None)


def _mean_of_binaryproto(path: Path) -> np.ndarray:
    return _array(_parse(path, "BlobProto"), path, "the mean")


def _array(blob: Any, path: Path, layer: str) -> np.ndarray:
    """The numbers of a blob, in its shape."""
    values = np.array(blob.double_data or blob.data, np.float32)
    shape = tuple(blob.shape.dim) or (blob.num, blob.channels, blob.height, blob.width)
    if any(size < 0 for size in shape) or np.prod(shape, dtype=object) != values.size:
        raise ValueError(f"{path}: {layer} has {values.size} numbers for the shape {shape}")
    return values.reshape(shape)


def _parse(path: Path, kind: str) -> Any:
    message = _schema()[kind]()
    try:
        message.ParseFromString(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from error
    except DecodeError as error:
        raise ValueError(f"{path} is damaged, or no file of Caffe ({error})") from error
    return message


@cache
def _schema() -> dict[str, Any]:
    """The parts of Caffe's messages that hold weights; all else is skipped when read."""
    field = descriptor_pb2.FieldDescriptorProto
    messages = {
        "BlobShape": [("dim", 1, field.TYPE_INT64, True)],
        "BlobProto": [
            ("num", 1, field.TYPE_INT32, False),
            ("channels", 2, field.TYPE_INT32, False),
            ("height", 3, field.TYPE_INT32, False),
            ("width", 4, field.TYPE_INT32, False),
            ("data", 5, field.TYPE_FLOAT, True),
            ("shape", 7, "BlobShape", False),
            ("double_data", 8, field.TYPE_DOUBLE, True),
        ],
        "LayerParameter": [("name", 1, field.TYPE_STRING, False), ("blobs", 7, "BlobProto", True)],
        "V1LayerParameter": [
            ("name", 4, field.TYPE_STRING, False),
            ("blobs", 6, "BlobProto", True),
        ],
        "NetParameter": [
            ("name", 1, field.TYPE_STRING, False),
            ("layers", 2, "V1LayerParameter", True),
            ("layer", 100, "LayerParameter", True),
        ],
    }
    file = descriptor_pb2.FileDescriptorProto(name="weights.proto", package="caffe_weights")
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for label, number, kind, repeated in fields:
            added = message.field.add(name=label, number=number)
            added.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            if isinstance(kind, str):
                added.type, added.type_name = field.TYPE_MESSAGE, f".caffe_weights.{kind}"
            else:
                added.type = kind
                added.options.packed = repeated and kind != field.TYPE_STRING
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe_weights.{name}"))
        for name in messages
    }


def _read_dictionary(path: Path) -> dict[str, list[np.ndarray]]:
    """The dictionary in a `.npy` file: layer -> [kernel [h, w, in, out] or [in, out], bias]."""
    try:
        file = io.BytesIO(path.read_bytes())
        major, _ = np.lib.format.read_magic(file)
        read_header = {
            1: np.lib.format.read_array_header_1_0,
            2: np.lib.format.read_array_header_2_0,
        }[major]
        shape, _, dtype = read_header(file)
        if shape or not dtype.hasobject:
            raise ValueError(f"an array of {dtype}, no dictionary")
        content = load_arrays(file)
        found = content.item() if isinstance(content, np.ndarray) else content
        return {
            str(layer): [_values(array, layer) for array in _pair(arrays)]
            for layer, arrays in found.items()
        }
    except Exception as error:  # a damaged pickle raises as many kinds as there are
        reason = first_line(error)
        raise ValueError(f"{path} is no dictionary of layers ({reason})") from error


def _values(array: Any, layer: object) -> np.ndarray:
    """float32, of numbers that are values: those of a quantised net want a scale that is not there.

    Raises ValueError where they are of another type.
    """
    array = np.asarray(array)
    if array.dtype.kind != "f":
        raise ValueError(f"{layer!r:.80} is of type {array.dtype}; save it as float32")
    return array.astype(np.float32)


def _pair(arrays: Any) -> Any:
    """Kernel and bias, which some files have under names: the kernel has more axes."""
    if not isinstance(arrays, Mapping):
        return arrays
    return sorted(arrays.values(), key=np.ndim, reverse=True)
