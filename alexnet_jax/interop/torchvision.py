"""torchvision's `alexnet`: `.safetensors`, or `.pt` where PyTorch is there.

torchvision's net has its maps in one tower, no norms, and sees pixels of 0 to 1 less a mean and
divided by deviations. Here conv1's kernels are divided by 255 times the deviations instead, so that
it sees pixels of 0 to 255 less the mean as all nets of this library do.
Source: torchvision's `models/alexnet.py` and its `IMAGENET1K_V1` transforms.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_jax.files import local_path, naming
from alexnet_jax.interop.imported import NO_ALEXNET, Imported, Params, checked, square_side
from alexnet_jax.interop.tensors import read_state, write_tensors
from alexnet_jax.models.alexnet import AlexNet
from alexnet_jax.models.network import LayeredNetwork
from alexnet_jax.models.presets import alexnet
from alexnet_jax.runs.workdir import Run

# Layer -> its name in torchvision's state dict.
NAMES = {
    "conv1": "features.0",
    "conv2": "features.3",
    "conv3": "features.6",
    "conv4": "features.8",
    "conv5": "features.10",
    "fc6": "classifier.1",
    "fc7": "classifier.4",
    "fc8": "classifier.6",
}
# What may differ: sizes, and what does nothing at test.
_FREE = (
    *("num_classes", "image_size", "conv_features", "fc_features"),
    *("dropout_rate", "dropout_at", "initialization", "hidden_bias", "precision"),
)
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATIONS = np.array([0.229, 0.224, 0.225], np.float32)


def read_torchvision(path: str | Path) -> Imported:
    """Reads the state dict of torchvision's `alexnet`, or of a net of its form and other widths.

    Args:
      path: `.safetensors`, or `.pt`, `.pth` as `torch.save` writes a state dict.

    Raises:
      ValueError: the file is damaged, is no such net, or PyTorch is wanted and not installed.
    """
    path = local_path(path)
    arrays = read_state(path).arrays
    with naming(path, NO_ALEXNET):
        return torchvision(arrays, path)


def torchvision(tensors: Mapping[str, np.ndarray], path: Path) -> Imported:
    """As `read_torchvision`, of arrays that are read already."""
    for layer, name in NAMES.items():
        for leaf in ("weight", "bias"):
            if f"{name}.{leaf}" not in tensors:
                raise ValueError(f"{path} has no {name}.{leaf}, which is the {leaf} of {layer}")
    known = {f"{name}.{leaf}" for name in NAMES.values() for leaf in ("weight", "bias")}
    for name in tensors:
        if name not in known:
            raise ValueError(f"{path} has {name!r}, which torchvision's alexnet has not")
    params, done = {}, {}
    for layer, name in NAMES.items():
        weight, bias = (np.asarray(tensors[f"{name}.{leaf}"], np.float32) for leaf in _LEAVES)
        if weight.ndim != (4 if layer.startswith("conv") else 2):
            raise ValueError(f"{path}: {name}.weight has the shape {weight.shape}")
        kernel = weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T
        params[layer], done[layer] = {"kernel": kernel, "bias": bias}, "transposed"
    params["conv1"]["kernel"] = params["conv1"]["kernel"] / (255 * DEVIATIONS)[:, None]
    done["conv1"] += ", divided by 255 times the deviations"
    channels = params["conv5"]["bias"].size
    rows = params["fc6"]["kernel"]
    side = square_side(len(rows), channels, path)
    rows = rows.reshape(channels, side, side, -1).transpose(1, 2, 0, 3).reshape(rows.shape)
    params["fc6"]["kernel"] = rows
    done["fc6"] += ", rows put from CHW into HWC"
    params = {
        layer: {name: np.ascontiguousarray(leaf) for name, leaf in leaves.items()}
        for layer, leaves in params.items()
    }
    return Imported(path, "torchvision", _fields(params, side), params, 255 * MEAN, done)


_LEAVES = ("weight", "bias")


def _fields(params: Params, side: int) -> dict[str, object]:
    size = {layer: leaves["bias"].size for layer, leaves in params.items()}
    # Backwards through three poolings of 3 with stride 2, and conv1 with two zeros on each side.
    image = ((((side * 2 + 1) * 2 + 1) * 2 + 1) - 1) * 4 + 11 - 4
    fields: dict[str, object] = {
        "num_classes": size["fc8"],
        "conv_features": tuple(size[f"conv{n}"] for n in range(1, 6)),
        "fc_features": (size["fc6"], size["fc7"]),
    }
    # 224 pixels leave a remainder of one, which the windows do not reach.
    return fields if side == 6 else fields | {"image_size": image}


def write_torchvision(run: Run | Imported, path: str | Path) -> None:
    """Writes a net of the preset torchvision as its state dict, `.safetensors`.

    Args:
      run: from `load_run`, or what a reader gave.
      path: of the file.

    Raises:
      ValueError: the net is another, or sees pixels less another mean than torchvision's, which its
        convolutions' rows of zeros keep from being folded into them.
    """
    path = local_path(path)
    net: LayeredNetwork
    if isinstance(run, Imported):
        net, mean, source = checked(run), run.mean, run.source
    elif isinstance(run, Run):
        net, mean, source = run.model, run.augmentation.mean, run.workdir
    else:
        raise ValueError(f"a {type(run).__name__} is no run; give what load_run returns")
    fields = {name: getattr(net, name) for name in _FREE if isinstance(net, AlexNet)}
    if net != alexnet("torchvision", **fields):
        raise ValueError(
            f"{source} is another net than torchvision's; only the preset torchvision is written"
        )
    if not np.allclose(mean, 255 * MEAN, atol=1e-3):
        raise ValueError(
            f"{source} was trained with another mean than torchvision's, which its alexnet cannot "
            "have; write it with convert --layout=pytorch"
        )
    params: Mapping[str, Mapping[str, Any]] = run.params
    tensors = {}
    for layer, name in NAMES.items():
        kernel = np.asarray(params[layer]["kernel"], np.float32)
        if layer == "conv1":
            kernel = kernel * (255 * DEVIATIONS)[:, None]
        if layer == "fc6":
            channels = np.size(params["conv5"]["bias"])
            side = square_side(len(kernel), channels, path)
            split = kernel.reshape(side, side, channels, -1).transpose(2, 0, 1, 3)
            kernel = split.reshape(kernel.shape)
        weight = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
        tensors[f"{name}.weight"] = np.ascontiguousarray(weight)
        tensors[f"{name}.bias"] = np.asarray(params[layer]["bias"], np.float32)
    write_tensors(path, tensors)
