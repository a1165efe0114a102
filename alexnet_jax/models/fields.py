"""Whether the fields of a network are of the types of their defaults."""

import dataclasses
from typing import Any

import numpy as np

# The type of a field's default -> what its values may be.
_KINDS: dict[type, tuple[type, ...]] = {
    bool: (bool, np.bool_),
    int: (int, np.integer),
    float: (int, float, np.integer, np.floating),
    str: (str,),
    tuple: (tuple,),
    type(None): (str, type(None)),  # tower_axis
}


def _is_kind(value: Any, like: Any) -> bool:
    """Whether a value is of the type of a default; true and false are no numbers."""
    boolean = isinstance(value, bool | np.bool_)
    return isinstance(value, _KINDS[type(like)]) and boolean == isinstance(like, bool)


def check_kinds(net: Any) -> None:
    """Raises ValueError for a field of the wrong type, or whose elements are."""
    for field in dataclasses.fields(net):
        value, default = getattr(net, field.name), field.default
        if field.name in ("parent", "name"):
            continue
        fits = _is_kind(value, default)
        if isinstance(default, tuple):
            like = default[0] if default else ""
            fits = fits and all(_is_kind(element, like) for element in value)
        if not fits:
            wanted = "type str or None" if default is None else f"type {type(default).__name__}"
            example = "" if default is None else f", such as {default!r}"
            raise ValueError(f"{field.name}={value!r}; it is of {wanted}{example}")
