"""Whether the fields of a network are of the types of their defaults."""

import dataclasses
from typing import Any

from alexnet_jax.kinds import is_kind


def check_kinds(net: Any) -> None:
    """Raises ValueError for a field of the wrong type, or whose elements are."""
    for field in dataclasses.fields(net):
        value, default = getattr(net, field.name), field.default
        if field.name in ("parent", "name"):
            continue
        fits = is_kind(value, default)
        if isinstance(default, tuple):
            like = default[0] if default else ""
            fits = fits and all(is_kind(element, like) for element in value)
        if not fits:
            wanted = "type str or None" if default is None else f"type {type(default).__name__}"
            example = "" if default is None else f", such as {default!r}"
            shown = " ".join(repr(value).split())  # of a group in a configuration in one line
            raise ValueError(f"{field.name}={shown}; it is of {wanted}{example}")
