"""Pickles of other programs, read without running anything: arrays and plain containers alone."""

import io
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np


class Ignored:
    """Stands for objects of the other program's own classes; what they hold is not used."""

    def __new__(cls, *arguments: Any) -> "Ignored":
        """Takes what the class it stands for would take."""
        return super().__new__(cls)


def _array(*_: Any) -> np.ndarray:
    """What a pickle makes before it fills in shape and numbers; no memory is taken for it."""
    return np.ndarray((0,), np.int8)


def _ignored(*_: Any) -> Ignored:
    return Ignored()


_CORE = ("numpy.core.multiarray", "numpy._core.multiarray")
_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("collections", "OrderedDict"): OrderedDict,
    ("ordereddict", "OrderedDict"): OrderedDict,  # of Python 2.6
    **dict.fromkeys(((core, "_reconstruct") for core in _CORE), _array),
    **dict.fromkeys(((core, "scalar") for core in _CORE), np.float32(0).__reduce__()[0]),
}


class _Arrays(pickle.Unpickler):
    """Refuses whatever is neither an array, nor a container, nor of a module to be ignored."""

    def __init__(self, file: io.BytesIO, ignore: tuple[str, ...]) -> None:
        super().__init__(file, encoding="latin1")
        self._ignore = ignore

    def find_class(self, module: str, name: str) -> Any:
        """Raises UnpicklingError for what is neither an array nor a part of one."""
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        if self._ignore and name == "_reconstructor" and module in ("copy_reg", "copyreg"):
            return _ignored
        if self._ignore and name == "object" and module in ("__builtin__", "builtins"):
            return Ignored
        if module in self._ignore:
            return Ignored
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array")


def load_arrays(file: io.BytesIO, *, ignore: tuple[str, ...] = ()) -> Any:
    """The arrays, numbers, strings and containers in a pickle of Python 2 or 3.

    Args:
      file: at the start of the pickle.
      ignore: modules whose objects are taken, unseen, as `Ignored`.

    Raises:
      Exception: of any kind: a damaged pickle raises as many as there are; UnpicklingError where it
        asks for something else.
    """
    return _Arrays(file, ignore).load()
