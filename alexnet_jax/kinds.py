"""Whether a value is of the type of another, whether Python's or NumPy's, or a finite number."""

import math
from typing import Any

import numpy as np

# The type of an example -> what values of its kind may be.
_KINDS: dict[type, tuple[type, ...]] = {
    bool: (bool, np.bool_),
    int: (int, np.integer),
    float: (int, float, np.integer, np.floating),
    str: (str,),
    tuple: (tuple,),
    type(None): (str, type(None)),  # a network's tower_axis
}
_FLOAT32 = np.finfo(np.float32)
IN_FLOAT32 = "0, or from 1.18e-38 to 3.4e+38, which float32 holds"


def is_kind(value: Any, like: Any) -> bool:
    """Whether a value is of the type of an example; true and false are no numbers."""
    boolean = isinstance(value, bool | np.bool_)
    return isinstance(value, _KINDS[type(like)]) and boolean == isinstance(like, bool)


def is_finite(number: Any) -> bool:
    """Whether a real number is neither infinite nor NaN, nor too large for a float."""
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number of over 308 digits
        return False


def is_in_float32(number: float) -> bool:
    """Whether float32 holds a real number: 0, or neither infinite there nor so small that it is 0.

    XLA takes the subnormal numbers for 0.
    """
    return number == 0 or float(_FLOAT32.tiny) <= abs(number) <= float(_FLOAT32.max)
