"""Files of named arrays: `.safetensors`, with texts in the header, and PyTorch's `.pt`."""

import json
import pickle
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from alexnet_jax.files import reading, whole_file

# Types of a .safetensors header whose numbers are no values by themselves.
_NO_VALUES = re.compile(r"BOOL|[UIC]\d+|F[468](_.*)?")


class Tensors(NamedTuple):
    """What a file holds: its arrays by name, and the header's texts."""

    arrays: dict[str, np.ndarray]
    texts: dict[str, str]


def read_tensors(path: Path) -> Tensors:
    """Reads a file; its header is compared with its size before anything else is read.

    Raises:
      ValueError: it is damaged, or the package safetensors is not installed.
    """
    load = safetensors().load_file
    with reading(path, " is no whole .safetensors file"):
        header = _header(path)
        for name, entry in header.items():
            if name != "__metadata__" and _NO_VALUES.fullmatch(str(entry["dtype"])):
                raise _no_values(path, name, entry["dtype"])
        return Tensors(load(path), dict(header.get("__metadata__", {})))


def _no_values(path: Path, name: object, kind: object) -> ValueError:
    return ValueError(f"{path}: {name!r:.80} is of type {kind!s:.40}; save it as float32")


def _header(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\xff"))
        if length > size - 8:
            raise ValueError(f"its header claims {length:,} of {size:,} bytes")
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is no table")
    return header


def write_tensors(
    path: Path, arrays: Mapping[str, np.ndarray], texts: Mapping[str, str] | None = None
) -> None:
    """Writes arrays, whole or not at all; the same arrays and texts are the same bytes.

    Raises:
      ValueError: the package safetensors is not installed.
    """
    save = safetensors().save
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with whole_file(path, "wb") as file:
        file.write(_in_order(save(whole, metadata=dict(texts) if texts else None)))


def _in_order(content: bytes) -> bytes:
    """A file with the texts of its header by name; the package gives them in a random order."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the arrays begin at a multiple of eight bytes
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def safetensors() -> ModuleType:
    """The package's part for NumPy. Raises ValueError where it is not installed."""
    try:
        import safetensors.numpy  # noqa: PLC0415
    except ImportError as error:
        raise ValueError(
            "reading and writing .safetensors wants the package: pip install 'alexnet-jax[interop]'"
        ) from error
    return safetensors.numpy


def read_state(path: Path) -> Tensors:
    """Reads a state dict: `.safetensors`, or `.pt`, `.pth` as `torch.save` writes it.

    What wraps a module goes from the names: "module.features.0.weight" is "features.0.weight".

    Raises:
      ValueError: the file is damaged, or a package that reads it is not installed.
    """
    found = read_tensors(path) if path.suffix == ".safetensors" else Tensors(_read_torch(path), {})
    plain = {_unwrapped(name): array for name, array in found.arrays.items()}
    return found._replace(arrays=plain) if len(plain) == len(found.arrays) else found


def _unwrapped(name: str) -> str:
    """Without the names that DataParallel and torch.compile give to what they wrap."""
    return ".".join(part for part in name.split(".") if part not in ("module", "_orig_mod"))


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    """A state dict; nothing but tensors and containers is unpickled."""
    try:
        import torch  # noqa: PLC0415
    except ImportError as error:
        raise ValueError(
            f"reading {path.name} wants PyTorch: pip install torch, or save it as .safetensors"
        ) from error
    with reading(path, " is no state dict of tensors"):
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:  # whose words are advice for other programs
            raise ValueError(
                f"{path} is damaged, or holds more than tensors; save model.state_dict() alone"
            ) from error
        for key in ("state_dict", "model_state_dict", "model"):  # as in checkpoints
            if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
                found = found[key]
        if not isinstance(found, Mapping) or not all(map(torch.is_tensor, found.values())):
            held = (
                ", ".join(map(str, found)) if isinstance(found, Mapping) else type(found).__name__
            )
            raise ValueError(f"{path} holds {held:.80} and no state dict; save model.state_dict()")
        for name, tensor in found.items():
            if tensor.dtype not in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
                raise _no_values(path, name, tensor.dtype)
        return {str(x): tensor.detach().to(torch.float32).numpy() for x, tensor in found.items()}
