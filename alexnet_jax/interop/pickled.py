"""Pickles of other programs, read without running anything: arrays and plain containers alone."""

import io
import math
import pickle
import pickletools
import re
from collections import OrderedDict
from typing import Any

import numpy as np


class Ignored:
    """Stands for objects of the other program's own classes; what they hold is not used."""

    def __new__(cls, *arguments: Any) -> "Ignored":
        """Takes what the class it stands for would take."""
        return super().__new__(cls)


class _Dtype:
    """Stands for a dtype: NumPy's own takes any state for good, and a damaged one ends the process.

    Raises:
      UnpicklingError: it is not one of numbers, truth values or objects.
    """

    def __init__(self, name: Any, *_: Any) -> None:
        if not (isinstance(name, str) and re.fullmatch(r"[<>|=]?([fiu][1248]|b1|O8?)", name)):
            raise pickle.UnpicklingError(f"its dtype {name!r:.40} is none of numbers")
        self.dtype = np.dtype(name.removesuffix("8") if "O" in name else name)

    def __setstate__(self, state: Any) -> None:
        """Of a state only the order of the bytes is of interest."""
        if state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("its dtype has no order of bytes")
        if state[1] != "|":
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array that looks at what a pickle fills it with: NumPy's own believes what it is told."""

    def __setstate__(self, state: Any) -> None:
        """Raises UnpicklingError where shape, dtype and content do not fit."""
        *_, shape, stated, columns_first, content = state
        sound = isinstance(shape, tuple) and all(type(side) is int for side in shape)
        if not sound or min(shape, default=0) < 0:
            raise pickle.UnpicklingError(f"an array of the shape {shape!r:.40}")
        if not isinstance(stated, _Dtype):
            raise pickle.UnpicklingError("an array without a dtype")
        dtype, size = stated.dtype, math.prod(shape)
        if dtype.hasobject:
            fits = isinstance(content, list) and len(content) == size
        else:
            content = _bytes(content)
            fits = len(content) == size * dtype.itemsize
        if not fits:
            raise pickle.UnpicklingError(f"an array of the shape {shape} with other content")
        checked: Any = (1, shape, dtype, bool(columns_first), content)
        super().__setstate__(checked)


def _array(*_: Any) -> _Array:
    """What a pickle makes before it fills in shape and numbers; no memory is taken for it."""
    return _Array((0,), np.int8)


def _scalar(stated: _Dtype, content: Any) -> Any:
    array = _array()
    array.__setstate__(((), stated, False, content))
    return array[()]


def _bytes(content: Any) -> bytes:
    return content.encode("latin1") if isinstance(content, str) else bytes(memoryview(content))


def _ignored(*_: Any) -> Ignored:
    return Ignored()


_CORE = ("numpy.core.multiarray", "numpy._core.multiarray")
_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): Ignored,  # only named, never made
    ("numpy", "dtype"): _Dtype,
    ("collections", "OrderedDict"): OrderedDict,
    ("ordereddict", "OrderedDict"): OrderedDict,  # of Python 2.6
    **dict.fromkeys(((core, "_reconstruct") for core in _CORE), _array),
    **dict.fromkeys(((core, "scalar") for core in _CORE), _scalar),
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
    start = file.tell()
    _check_operations(file)
    file.seek(start)
    return _Arrays(file, ignore).load()


# Of a tuple that holds tuples, written out: as a key it is hashed in so many steps.
_LARGEST_TUPLE = 1_000_000


def _check_operations(file: io.BytesIO) -> None:
    """Raises UnpicklingError for a pickle that would take all memory or time to load.

    The sizes of what lies on its stack are followed, and nothing is made.
    """
    stack: list[int] = []
    marks: list[int] = []
    memo: dict[int, int] = {}
    argument: Any
    for position, (operation, argument, _) in enumerate(pickletools.genops(file)):
        name, before, after = operation.name, operation.stack_before, operation.stack_after
        if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            number = len(memo) if argument is None else argument
            # Python takes memory for as many objects as the number says, whatever it is.
            if number > position:
                raise pickle.UnpicklingError(f"it numbers an object {number}, and has not as many")
            memo[number] = stack[-1]
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "POP" and marks and marks[-1] == len(stack):
            marks.pop()
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            marked = pickletools.markobject in before
            least = before.index(pickletools.markobject) if marked else len(before)
            at = (marks.pop() if marked else len(stack)) - least
            taken, stack[at:] = stack[at:], [1] * len(after)
            if name.startswith("TUPLE") or name == "FROZENSET":
                stack[-1] += sum(taken)
                if stack[-1] > _LARGEST_TUPLE:
                    raise pickle.UnpicklingError("it nests tuples without end")
